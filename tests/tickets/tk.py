"""The real `tk` (github.com/wedow/ticket, a bash script), for tests of how well we agree with it.

`$TK` names the script; where it is not set, those tests are skipped. Nothing is fetched.
"""

import os
import subprocess
from pathlib import Path

import pytest


def provide() -> Path:
    """The script; skips the test where there is none."""
    given = os.environ.get("TK")
    if not given:
        pytest.skip("TK does not name the script of tk")
    script = Path(given).expanduser()
    assert script.is_file(), f"TK={given} is no file"
    return script.resolve()


def tk(project: Path, *args: str, stdin: str = "", check: bool = True) -> str:
    """What `tk ARGS` prints in the project."""
    command = ["bash", str(provide()), *args]
    done = subprocess.run(command, cwd=project, input=stdin, capture_output=True, text=True, timeout=60, check=check)
    return done.stdout.strip()
