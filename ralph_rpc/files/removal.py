"""Removal of a whole folder in which an agent's tools had their way.

Called for temporary folders, worktrees and the folders of loops. A machine that dies here leaves a part of them; done
again, it removes the rest.
"""

import os
import stat
from pathlib import Path


def remove_tree(path: Path) -> None:
    """Remove a folder and all below it, folders without permissions included. No link is followed. Raises OSError."""
    _open(path)
    for folder, below, _ in os.walk(path):
        for name in below:  # before the walk goes down into it
            _open(Path(folder, name))
    import shutil  # here, because a start, which mostly finds nothing, has pi wait for whatever is loaded

    shutil.rmtree(path)


def _open(folder: Path) -> None:
    mode = folder.lstat().st_mode
    if stat.S_ISDIR(mode) and mode & 0o700 != 0o700:
        folder.chmod(mode | 0o700)
