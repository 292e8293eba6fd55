"""The temporary folder of a loop: the TMPDIR of everything that its runner starts.

The runner makes it at each start, under the loop's lock and with nothing of an earlier run alive. Its name follows from
the loop's folder. So whatever a runner that is killed at any instant leaves, even before its first state.json, is found
by that name: the next run replaces it, `clean` and `doctor` remove it. If that name is taken by something that is not
ours or cannot be removed, the folder gets a random name, which state.json records.
"""

import os
from contextlib import suppress
from pathlib import Path

from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.files.removal import remove_tree
from ralph_rpc.machine import nofollow


def make(loop: LoopPaths, named: str | None) -> Path:
    """Make an empty folder for this user only; `named` is the one that state.json names. Raises OSError."""
    for left in of_loop(loop, named):
        with suppress(OSError):  # it may hold a mount, for example: no reason not to work
            remove_tree(left)
    try:
        folder = _own(loop)
        folder.mkdir(0o700)
    except OSError:
        folder = _root() / f"{_prefix(loop)}{os.urandom(8).hex()}"
        folder.mkdir(0o700)
    return folder


def of_loop(loop: LoopPaths, named: str | None) -> list[Path]:
    """Those that exist: the one that state.json names (`named`), and the one named after the loop's folder.

    Only in the place for such folders, with our prefix, and owned by us: state.json must not make us delete anything
    else.
    """
    found = [Path(named)] if named else []
    with suppress(OSError):  # the loop's folder itself is gone
        found.append(_own(loop))
    return [path for path in dict.fromkeys(found) if _is_ours(loop, path)]


def _own(loop: LoopPaths) -> Path:
    # Not from its path: another container with the same /tmp may have another project at that path.
    status = nofollow.lstat(loop.dir)
    return _root() / f"{_prefix(loop)}{status.st_dev:x}-{status.st_ino:x}"


def _root() -> Path:
    """Where `tempfile` would make one; importing that takes longer than everything else here."""
    named = [os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP")]
    places = [place for place in (*named, "/tmp", "/var/tmp") if place and os.access(place, os.W_OK | os.X_OK)]
    return Path(places[0] if places else "").absolute()


def _prefix(loop: LoopPaths) -> str:
    return f"ralph-{loop.name}-"


def _is_ours(loop: LoopPaths, path: Path) -> bool:
    try:
        status = path.lstat()
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return False
    ours = path.is_dir() and not path.is_symlink() and status.st_uid == os.geteuid()
    here = path.parent.resolve() == _root().resolve()
    return ours and here and path.name.startswith(_prefix(loop))
