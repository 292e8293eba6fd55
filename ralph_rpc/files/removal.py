"""Removal of a whole folder that an agent's tools may have left in any state.

Called for temporary folders, worktrees and the folders of loops. If the machine dies here, a part is left; calling it
again removes the rest.
"""

from contextlib import suppress
from pathlib import Path

from ralph_rpc.machine import nofollow


def remove_tree(path: Path) -> None:
    """Remove a folder and all below it, folders without permissions included. No link is followed. Raises OSError."""
    nofollow.remove_tree(path)


def remove_empty(*folders: Path) -> None:
    """Remove these folders, one after the other, as long as there is nothing in them."""
    with suppress(OSError):
        for folder in folders:
            nofollow.remove_folder(folder)
