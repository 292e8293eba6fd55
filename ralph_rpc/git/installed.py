"""Packages that agents installed in a worktree, lent to a checkout in which only a verification runs.

A loop without `--worktree-setup` leaves the installing to its agents: what they put into `node_modules` and the like is no
ticket's work, and a verification elsewhere would only fail for the lack of it. It is lent by links, which go with the
checkout. An environment that leads back into the worktree is not lent: the code there may be another.
"""

from pathlib import Path

from ralph_rpc.git.calls import STATUS_TIMEOUT_S, run
from ralph_rpc.git.ignored_files import INSTALLED
from ralph_rpc.machine.installs import installs_into


def lend(worktree: Path, place: Path) -> list[str]:
    """Link the installed packages of the worktree into the other checkout; the folders that were not lent."""
    asked = ["ls-files", "--others", "--ignored", "--exclude-standard", "--directory", "-z"]
    kept = []
    for name in run(asked, worktree, STATUS_TIMEOUT_S, check=False).fields:
        source, link = worktree / name, place / name.rstrip("/")
        if link.is_symlink() and not link.exists():
            link.unlink()  # lent by a worktree that is gone
        if not name.endswith("/") or source.name not in INSTALLED or link.is_symlink() or link.exists():
            continue
        if installs_into({"VIRTUAL_ENV": str(source), "PATH": "", "HOME": "/nowhere"}, worktree, lies_in_it=True):
            kept.append(name)
        elif link.parent.is_dir():
            link.symlink_to(source, target_is_directory=True)
    return kept
