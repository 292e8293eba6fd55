"""A small program of ours as words of a command line, so that nothing has to be installed where it runs.

Compressed and in plain letters: no shell on the way, of whatever kind, finds anything in it to interpret. Read once, when
a loop starts, so that an upgrade of the program changes nothing for a loop that runs. Called for the far guard and for
`--backend print`.
"""

import base64
import zlib
from functools import cache
from pathlib import Path

_BOOT = "import base64,sys,zlib;exec(zlib.decompress(base64.b64decode(sys.argv[1])))"


@cache
def carried(source: Path) -> tuple[str, ...]:
    """What follows the name of the interpreter; the arguments, from `sys.argv[2]` on, come after it."""
    data = base64.b64encode(zlib.compress(source.read_bytes(), 9)).decode()
    return ("-I", "-S", "-c", _BOOT, data)
