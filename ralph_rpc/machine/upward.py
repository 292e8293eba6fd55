"""Whose folders count when a command looks upwards for `.ralph` or `.tickets`: this user's, and for root root's.

In a folder that others can write to, any of them can put such a folder above ours and wait for somebody to stand below
it. So the search ends at the first folder of somebody else, and what is there is skipped and named in one line. Under
sudo, what the calling user owns counts as well, as it does for git. Only looks; called by every command.
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ralph_rpc.machine.nofollow import GUARDED, ralph_home


def owner_counts(owner: int) -> bool:
    """Whether what this user owns is obeyed."""
    return owner == os.geteuid() or (os.geteuid() == 0 and str(owner) == os.environ.get("SUDO_UID"))


def own_folders(folder: Path) -> Iterator[Path]:
    """The folder and those above it, up to the first one of somebody else. Root's are on everybody's way."""
    for at in (folder, *folder.parents):
        try:
            owner = at.stat().st_uid
        except OSError:
            return
        if owner != 0 and not owner_counts(owner):
            return
        yield at


def is_own(path: Path) -> bool:
    """Whether there is a folder of ours, and not a link."""
    try:
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and owner_counts(found.st_uid)


class PassedOver(NamedTuple):
    """What would count if it were this user's."""

    path: Path
    why: str

    @property
    def told(self) -> str:
        return f"skipped {self.path}: {self.why}"


def passed_over(folder: Path) -> PassedOver | None:
    """The first of these in this folder or above."""
    for at in (folder, *folder.parents):
        is_ours = next(own_folders(at), None) is not None
        for path in (at / name for name in GUARDED):
            try:
                found = path.lstat()
            except OSError:
                continue
            if not owner_counts(found.st_uid):
                return PassedOver(path, f"it belongs to another user ({found.st_uid})")
            if not is_ours:
                return PassedOver(at, f"it belongs to another user ({at.stat().st_uid})")
            if path.name == ".ralph" and str(path) != ralph_home():
                is_link = stat.S_ISLNK(found.st_mode)
                # Where it is the project's, nothing is looked for above it.
                return PassedOver(path, "it is a link, and links are not followed") if is_link else None
        if not is_ours:
            return None
    return None
