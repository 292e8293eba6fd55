"""Keeps `.ralph` out of the reach of an ordinary `git clean -fdx`: it looks like a nested repository.

git leaves a nested repository alone unless -f is given twice. Three empty things make one: `.git/HEAD`, `.git/objects`
and `.git/refs`. The price is a line in the repository's info/exclude: without it `git status` would show the folder, and
`git add -A` would refuse to add it. So the line is written first and removed last; if the machine dies in between, the
folder is ignored and not protected, and the next `shelter` finishes it.

Called when a loop is started, resumed or rebuilt, and by the clean of a project's last loop.
"""

import errno
import os
import re
from pathlib import Path

from ralph_rpc.files.atomic import LARGEST, make_private_dir, read_plain, write_atomic
from ralph_rpc.git.calls import GitError, run
from ralph_rpc.machine import nofollow

_HEAD = b"ref: refs/heads/none\n"
_WHY = b"# ralph-rpc: its folder, which git clean leaves alone"


def shelter(folder: Path) -> None:
    """Protect a `.ralph` folder that exists; does nothing outside of a repository or where git cannot be run.

    git walks into a folder of which it tracks a file, and cleans it; there each loop's own folder is protected. Raises
    OSError.
    """
    found = _look(folder)
    if found is None:
        return
    exclude, line = found
    _exclude(exclude, line)
    if _tracks(folder):
        for loop in nofollow.entries(folder):
            if nofollow.is_folder(loop) and not loop.name.startswith("."):
                _make_repository(loop / ".git")
    else:
        _make_repository(folder / ".git")


def unshelter(folder: Path) -> None:
    """Take back what `shelter` has made, for a project that has no loop left. Raises OSError."""
    found = _look(folder)
    if nofollow.is_folder(folder / ".git"):
        nofollow.remove_tree(folder / ".git")
    if found is None:
        return
    exclude, line = found
    if any(nofollow.exists(other / ".git" / "HEAD") for other in _same_place_elsewhere(folder)):
        return  # the checkouts of a repository share the file
    old = _lines(exclude)
    new = [one for one in old if one not in (line, _WHY)]
    if new != old:
        _write(exclude, new)


def _look(folder: Path) -> tuple[Path, bytes] | None:
    """The repository's info/exclude, and the line of this folder."""
    try:
        told = run(
            ["rev-parse", "--path-format=absolute", "--show-toplevel", "--git-path", "info/exclude"], folder.parent
        )
    except GitError:
        return None
    top, exclude = (Path(os.fsdecode(one)) for one in told.out.removesuffix(b"\n").split(b"\n", 1))
    place = os.fsencode(folder.parent.resolve() / folder.name)
    root = os.fsencode(top.resolve()).removesuffix(b"/") + b"/"
    if not place.startswith(root) or b"\n" in place:
        return None
    return exclude, b"/" + re.sub(rb"([\\*?\[ ])", rb"\\\1", place.removeprefix(root)) + b"/"


def _tracks(folder: Path) -> bool:
    return run(["ls-files", "-z", "--", folder.name], folder.parent).out != b""


def _same_place_elsewhere(folder: Path) -> list[Path]:
    """The folder's counterparts in the other checkouts of the repository."""
    told = run(["rev-parse", "--show-prefix"], folder.parent, check=False)
    trees = run(["worktree", "list", "--porcelain", "-z"], folder.parent, check=False)
    if told.code != 0 or trees.code != 0:
        return []
    here = folder.parent.resolve()
    roots = [Path(field.removeprefix("worktree ")) for field in trees.fields if field.startswith("worktree ")]
    return [root / told.line / folder.name for root in roots if (root / told.line).resolve() != here]


def _make_repository(place: Path) -> None:
    if nofollow.exists(place / "HEAD") and all(nofollow.is_folder(place / part) for part in ("objects", "refs")):
        return
    for part in ("objects", "refs"):
        make_private_dir(place / part)
    write_atomic(place / "HEAD", _HEAD)


def _exclude(exclude: Path, line: bytes) -> None:
    lines = _lines(exclude)
    if line not in lines:
        _write(exclude, [*lines, _WHY, line])


def _lines(exclude: Path) -> list[bytes]:
    try:
        data = read_plain(exclude, LARGEST)
    except FileNotFoundError:
        return []
    if len(data) > LARGEST:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(exclude))
    return data.splitlines()


def _write(exclude: Path, lines: list[bytes]) -> None:
    # Its mode stays: other users of a shared repository read it.
    exclude.parent.mkdir(exist_ok=True)
    mode = exclude.stat().st_mode & 0o777 if exclude.exists() else 0o644
    write_atomic(exclude, b"".join(line + b"\n" for line in lines))
    exclude.chmod(mode)
