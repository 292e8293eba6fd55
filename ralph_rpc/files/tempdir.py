"""The temporary folder of a loop: the TMPDIR of everything that its runner starts.

The runner makes it at each start, under the loop's lock and with nothing of an earlier run alive. Its name follows from
the loop's folder, so what a runner leaves that is killed at any instant, also before its first state.json, is found by
that name: the next run replaces it, `clean` and `doctor` remove it. Where that name is taken by what is not ours or
cannot be removed, a folder of any name is made, which state.json tells.
"""

import os
from contextlib import suppress
from pathlib import Path

from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.files.removal import remove_tree


def make(loop: LoopPaths, named: str | None) -> Path:
    """An empty folder, this user's alone; `named` is the one that state.json tells of. Raises OSError."""
    for left in of_loop(loop, named):
        with suppress(OSError):  # a mount in it, say: no reason not to work
            remove_tree(left)
    try:
        folder = _own(loop)
        folder.mkdir(0o700)
    except OSError:
        folder = _root() / f"{_prefix(loop)}{os.urandom(8).hex()}"
        folder.mkdir(0o700)
    return folder


def of_loop(loop: LoopPaths, named: str | None) -> list[Path]:
    """Those that are there: the one that state.json tells of (`named`), and the one of the loop's folder.

    Only where such folders are made, with our name, and ours: state.json is no reason to delete anything else.
    """
    found = [Path(named)] if named else []
    with suppress(OSError):  # the loop itself is gone
        found.append(_own(loop))
    return [path for path in dict.fromkeys(found) if _is_ours(loop, path)]


def _own(loop: LoopPaths) -> Path:
    # Not of its path, which may be another project's in another container that has the same /tmp.
    status = loop.dir.stat()
    return _root() / f"{_prefix(loop)}{status.st_dev:x}-{status.st_ino:x}"


def _root() -> Path:
    """Where `tempfile` would make its own; loading that takes longer than all else that is done here."""
    named = [os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP")]
    places = [place for place in (*named, "/tmp", "/var/tmp") if place and os.access(place, os.W_OK | os.X_OK)]
    return Path(places[0] if places else "").absolute()


def _prefix(loop: LoopPaths) -> str:
    return f"ralph-{loop.name}-"


def _is_ours(loop: LoopPaths, path: Path) -> bool:
    try:
        status = path.lstat()
    except (OSError, ValueError):  # ValueError: no path can have a NUL
        return False
    ours = path.is_dir() and not path.is_symlink() and status.st_uid == os.geteuid()
    here = path.parent.resolve() == _root().resolve()
    return ours and here and path.name.startswith(_prefix(loop))
