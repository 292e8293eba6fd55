"""The target's ref moved where no checkout has the branch, so that no `git switch` to it slips in between.

A switch reads the branch's commit, writes index and files, and only then says in HEAD where it is. If the ref moved
meanwhile, that checkout would have the new commit and the old files, and its next commit would undo the merge. So git's
own index locks of all checkouts are held while the ref moves, as `checkout` holds the one of the checkout that moves along.
A machine that dies in between leaves these locks, with our mark in them; the next holder of the repository lock
removes them.
"""

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ralph_rpc.git import checkout
from ralph_rpc.git.calls import CHECKOUT_TIMEOUT_S, run
from ralph_rpc.git.repository import (
    LOCK_REASON,
    Repository,
    Worktree,
    git_dir,
    git_runs_in,
    is_ownerless,
    list_worktrees,
)

_MARK = b"ralph-rpc: the branch is moved\n"
SETTLE_S = 2.0
"""How long a switch that has written its index may take to say so in HEAD."""


def move_alone(repo: Repository, move: checkout.Move) -> bool | str | None:
    """True once the branch is moved, False if it has moved by itself; a reason why it must wait; None if a checkout has
    the branch by now."""
    places = [tree.path for tree in list_worktrees(repo.project) if tree.path.exists() and not _is_a_ticket_s(tree)]
    with _held(repo, places) as busy:
        if busy is not None:
            return f"a git command is running in {busy}"
        if any(_is_arriving(repo, place, move) for place in places):
            return None
        return checkout.move_ref(repo, repo.project, move)


def left_locked(trees: Iterable[Worktree]) -> list[Path]:
    """The lock files that a dead process of ours left; to be removed by a holder of the repository lock."""
    folders = [folder for tree in trees if (folder := git_dir(tree.path)) is not None]
    return [folder / "index.lock" for folder in folders if _is_ours(folder / "index.lock")]


def _is_a_ticket_s(tree: Worktree) -> bool:
    return tree.locked is not None and tree.locked.startswith(f"{LOCK_REASON} ")


@contextmanager
def _held(repo: Repository, places: list[Path]) -> Iterator[Path | None]:
    """Hold the index locks of these checkouts; gives the first whose lock a living git keeps."""
    held: list[Path] = []
    busy: Path | None = None
    try:
        for place in places:
            folder = git_dir(place)
            if folder is None:
                continue  # a bare repository
            lock = folder / "index.lock"
            taken = _taken(lock, (place, repo.common))
            if taken:
                held.append(lock)
            elif taken is False:
                busy = place
                break
        yield busy
    finally:
        for lock in held:
            lock.unlink(missing_ok=True)


def _taken(lock: Path, places: tuple[Path, Path]) -> bool | None:
    """Whether the lock is held now; None if somebody left it behind, which keeps every switch away as well as ours would."""
    began = time.monotonic()
    while True:
        try:
            fd = os.open(lock, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            waited = time.monotonic() - began
            if _is_ours(lock):
                lock.unlink(missing_ok=True)
            elif waited > checkout.INDEX_PATIENCE_S:
                return None if lock.exists() and is_ownerless(lock, places) and lock.exists() else False
            else:
                time.sleep(0.02)
        else:
            with os.fdopen(fd, "wb") as file:
                file.write(_MARK)
            return True


def _is_ours(lock: Path) -> bool:
    with suppress(OSError):
        return lock.read_bytes() == _MARK
    return False


def _is_arriving(repo: Repository, place: Path, move: checkout.Move) -> bool:
    """Whether a switch has brought this checkout to the branch, or is about to: its index is the branch's already."""
    if git_dir(place) is None:
        return False
    deadline = time.monotonic() + SETTLE_S
    while not checkout.is_on(place, move.branch):
        same = run(["diff-index", "--cached", "--quiet", move.old], place, CHECKOUT_TIMEOUT_S, check=False)
        if same.code != 0 or time.monotonic() > deadline or not git_runs_in(place):
            return checkout.is_on(place, move.branch)
        time.sleep(0.02)
    return True
