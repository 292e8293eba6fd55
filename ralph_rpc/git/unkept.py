"""What a checkout holds that its commit will not, though git neither ignores it nor calls it a change.

Folders without a file, files that git was told not to look at, and, where git does not record modes, files that can be
run here alone. A verification sees them, and a clone does not. Called by the runner; it only looks.
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from ralph_rpc.git.calls import STATUS_TIMEOUT_S, run
from ralph_rpc.git.status import is_ours

MOST = 20_000
"""Files of a folder that are looked at, and executable files that are counted."""


def empty_folders(checkout: Path) -> list[str]:
    """Folders in which there is no file at all, the topmost of each."""
    # What is left out is what git ignores; a folder of ignored files alone is listed, and is not empty.
    asked = ["ls-files", "--others", "--directory", "--exclude-standard", "-z"]
    names = run(asked, checkout, STATUS_TIMEOUT_S).fields
    folders = (name for name in names if name.endswith("/") and not is_ours(name.rstrip("/")))
    return sorted(name for name in folders if not _holds_files(checkout / name))


def unseen_changes(checkout: Path) -> list[str]:
    """Tracked files that differ from the index, and of which git says nothing; with why, in brackets."""
    return sorted([*_marked(checkout), *_executable(checkout)])


def _holds_files(folder: Path) -> bool:
    seen = 0
    for _, folders, files in os.walk(folder):
        seen += len(folders)
        if files or ".git" in folders or seen > MOST:
            return True
    return False


def _marked(checkout: Path) -> Iterator[str]:
    """Files with a mark of `git update-index` that hides changes."""
    for field in run(["ls-files", "-v", "-z"], checkout, STATUS_TIMEOUT_S).fields:
        mark, _, path = field.partition(" ")
        here = checkout / path
        if (mark.islower() or mark == "S") and here.is_file() and not here.is_symlink():
            indexed = run(["rev-parse", "--quiet", "--verify", f":0:./{path}"], checkout, check=False).line
            if run(["hash-object", "--", path], checkout).line != indexed:
                how = "skip-worktree" if mark.upper() == "S" else "assume-unchanged"
                yield f"{path} (git update-index --no-{how} shows the change)"


def _executable(checkout: Path) -> Iterator[str]:
    if run(["config", "--type=bool", "--get", "core.fileMode"], checkout, check=False).line != "false":
        return
    found = 0
    for field in run(["ls-files", "-s", "-z"], checkout, STATUS_TIMEOUT_S).fields:
        head, _, path = field.partition("\t")
        if head.startswith("100644") and _can_be_run(checkout / path):
            found += 1
            if found > MOST:
                return
            yield f"{path} (executable, which is not recorded here: git update-index --chmod=+x)"


def _can_be_run(path: Path) -> bool:
    try:
        mode = path.lstat().st_mode
    except OSError:
        return False
    return stat.S_ISREG(mode) and bool(mode & stat.S_IXUSR)
