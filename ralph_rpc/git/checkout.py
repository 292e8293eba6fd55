"""The checkout of the target branch, taken along when the branch moves, and nothing of a person's lost.

Called by `land` only, under the lock of the repository. The branch of a checkout cannot move alone: the next
commit there would undo the merge. So files, index and ref move together, from `old` to `new`, while git's own
index lock of that checkout is held, which keeps every other git from changing it. Files that differ between
old and new must be as they are in old (or in new already), everything else may be changed, staged, untracked
as it likes and stays so.

The index lock says, in its content, what was to be moved. A machine that dies in between leaves it: files are
old, new, missing or cut short, the index is old or new, and the ref is last. Whoever holds the lock of the
repository next reads it and finishes the move (`finish_interrupted`). Until then git says in that checkout
that index.lock exists; if a person removes it, the files that had been moved already are no obstacle to the
next try.
"""

import json
import os
import shutil
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from ralph_rpc.git.calls import CHECKOUT_TIMEOUT_S, GitError, Result, run
from ralph_rpc.git.repository import Repository, branch_head, git_dir, operation_in
from ralph_rpc.git.status import Status, status_of
from ralph_rpc.text import inert

INDEX_PATIENCE_S = 2.0
"""A `git status` in the checkout holds its index lock for an instant."""

SHOWN = 3
_KIND = "ralph-rpc"
_DRAFT = "ralph-rpc.move"


@dataclass(frozen=True)
class Move:
    """The target branch is to go from one commit to another, because of the ticket's branch `why`."""

    branch: str
    old: str
    new: str
    why: str


@dataclass(frozen=True)
class Change:
    """A file that differs between two commits: its objects there, "" where it is not."""

    path: str
    old: str
    new: str


class _InTheWay(Exception):
    """Why the checkout cannot go along."""


def move_ref(repo: Repository, at: Path, move: Move) -> bool:
    """Move the branch if it is still at `old`, called in the checkout `at`, whose reflog then has it, too.

    False if it has moved on by itself. GitError if it is still at `old`, or nobody can say where it is.
    """
    reason = ["-m", f"ralph-rpc: merge {move.why}"]
    try:
        repo.run(["update-ref", *reason, f"refs/heads/{move.branch}", move.new, move.old], at)
    except GitError:
        # A git that is killed may have moved it: to take the files back then would undo the merge at the next commit.
        now = branch_head(repo.project, move.branch)
        if now == move.old:
            raise
        return now == move.new
    return True


def take_along(repo: Repository, place: Path, move: Move) -> str | None:
    """Move the branch and its checkout at `place`; or the reason why that must wait, with nothing changed.

    A branch that has moved on by itself is no reason: then nothing is changed, which the caller sees by its
    head.
    """
    folder = git_dir(place)
    if folder is None:
        return f"{place} has {move.branch} checked out, but is broken: git worktree repair"
    if what := operation_in(folder):
        return f"{what} is under way in {place}: finish or abort it"
    try:
        _take_index_lock(folder, place, move)
        return _carry_out(repo, place, folder, move, resumed=False)
    except _InTheWay as reason:
        return str(reason)


def interrupted_in(place: Path) -> Move | None:
    """The move of the checkout at `place` that is under way there, or in which its mover died."""
    folder = git_dir(place)
    return _noted_move(folder / "index.lock") if folder is not None else None


def finish_interrupted(repo: Repository, place: Path) -> None:
    """Complete the move of the checkout at `place` in which its mover died, if there is one."""
    folder, move = git_dir(place), interrupted_in(place)
    if folder is None or move is None:
        return
    if branch_head(repo.project, move.branch) != move.old:
        _unlock(folder)  # all was done but this, or somebody has moved the branch since
        return
    try:
        _carry_out(repo, place, folder, move, resumed=True)
    except _InTheWay:  # a person has been at work there since; what is in the way shows at the next move
        return


def _carry_out(repo: Repository, place: Path, folder: Path, move: Move, resumed: bool) -> str | None:
    """Move files, index and ref, and unlock the index, unless something remains half done."""
    try:
        before = status_of(place, untracked="no")
        if before.branch != move.branch or before.commit != move.old:
            _unlock(folder)
            return None
        index = _prepared_index(repo, place, folder, move, before, resumed)
    except BaseException as error:
        if isinstance(error, _InTheWay) or not resumed:  # else what is half done stays noted
            _unlock(folder)
        raise
    done = _read_tree(repo, place, index, move.old, move.new)
    if done.code > 0 and status_of(place, untracked="no") == before:  # git refused before it touched anything
        index.unlink()
        _unlock(folder)
        return f"{place} cannot go along: {inert(done.last_error, keep_newlines=False)}"
    if done.code != 0:
        raise GitError("read-tree -m -u", done.code, done.last_error)
    index.replace(folder / "index")
    # Somebody may leave the branch without touching the index (`git switch -c`), or move it from elsewhere.
    if _is_on(place, move.branch) and move_ref(repo, place, move) and _head(place) == move.new:
        _unlock(folder)
        return None
    index = _copied_index(folder)
    if (undone := _read_tree(repo, place, index, move.new, move.old)).code != 0:
        raise GitError("read-tree -m -u", undone.code, undone.last_error)
    index.replace(folder / "index")
    _unlock(folder)
    return None


def _read_tree(repo: Repository, place: Path, index: Path, old: str, new: str) -> Result:
    env = {"GIT_INDEX_FILE": str(index)}
    return repo.run(["read-tree", "-m", "-u", old, new], place, CHECKOUT_TIMEOUT_S, env, check=False)


def _prepared_index(
    repo: Repository, place: Path, folder: Path, move: Move, status: Status, resumed: bool
) -> Path:
    """A copy of the index that has noted what is as in `new` already.

    _InTheWay where a file is neither old nor new.
    """
    changes = _changes(place, move)
    index = _copied_index(folder)
    found = _obstacles(repo, place, index, move.new, changes, status, resumed)
    if found and resumed and _drop_cut_short(place, move, found):
        index, status = _copied_index(folder), status_of(place, untracked="no")
        found = _obstacles(repo, place, index, move.new, changes, status, resumed)
    if found:
        index.unlink()
        shown = ", ".join(inert(path, keep_newlines=False) for path in found[:SHOWN])
        more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        raise _InTheWay(f"in the way in {place}: {shown}{more}; commit, stash or move them")
    return index


def _copied_index(folder: Path) -> Path:
    index = folder / "ralph-rpc.index"
    (folder / "ralph-rpc.index.lock").unlink(missing_ok=True)
    shutil.copy2(folder / "index", index)
    return index


def _changes(place: Path, move: Move) -> list[Change]:
    args = ["diff-tree", "-r", "-z", "--raw", "--no-renames", move.old, move.new]
    fields = run(args, place, CHECKOUT_TIMEOUT_S).fields
    changes = []
    for entry, path in zip(fields[::2], fields[1::2], strict=True):
        _, _, old, new, _ = entry.split(" ")
        changes.append(Change(path, old.strip("0") and old, new.strip("0") and new))
    return changes


def _obstacles(
    repo: Repository, place: Path, index: Path, new: str, changes: list[Change], status: Status, resumed: bool
) -> list[str]:
    """Paths of which a person's content would be lost, or whose deletion would be undone."""
    changed = {entry.path: entry for entry in status.entries}
    removed = {change.path for change in changes if not change.new}
    found: list[str] = []
    perhaps_new: list[str] = []
    for change in changes:
        entry = changed.get(change.path)
        if entry is None:
            lying = None if change.old else _lies_at(place, change.path, removed)
            if lying is not None:
                (perhaps_new if lying == change.path else found).append(lying)
        elif entry.is_unmerged or entry.indexed not in (change.old, change.new):
            found.append(change.path)
        elif _is_file(place, change.path):
            (perhaps_new if change.new else found).append(change.path)
        elif change.new and not resumed:
            found.append(change.path)
    differing = _differing(repo, place, index, new, perhaps_new)
    return found + [path for path in perhaps_new if path in differing]


def _differing(repo: Repository, place: Path, index: Path, new: str, paths: list[str]) -> set[str]:
    """Those of the paths whose file is not as in `new`; the others are noted in the index as they are."""
    env = {"GIT_INDEX_FILE": str(index)}
    # Without this, a file that was only touched counts as changed.
    repo.run(["update-index", "-q", "--refresh"], place, CHECKOUT_TIMEOUT_S, env, check=False)
    if not paths:
        return set()
    names = b"".join(os.fsencode(path) + b"\0" for path in paths)
    repo.run(
        ["update-index", "--add", "--remove", "-z", "--stdin"], place, CHECKOUT_TIMEOUT_S, env, False, names
    )
    args = ["diff-index", "--cached", "-z", "--name-only", "--no-renames", new]
    return set(run(args, place, CHECKOUT_TIMEOUT_S, env).fields)


def _lies_at(place: Path, path: str, removed: set[str]) -> str | None:
    """What a new file at `path` would replace unseen: a file there, in it, or in place of a folder."""
    here = place
    for part in Path(path).parts:
        here = here / part
        name = str(here.relative_to(place))
        if not os.path.lexists(here):
            return None
        if here.is_symlink() or not here.is_dir():
            return None if name in removed else name
    below = (
        str((Path(folder) / file).relative_to(place)) for folder, _, files in os.walk(here) for file in files
    )
    return next((name for name in below if name not in removed), None)


def _is_file(place: Path, path: str) -> bool:
    """Whether a file or a link is there, and not by way of a linked folder."""
    here = place / path
    if any(
        parent.is_symlink() for parent in here.parents if parent.is_relative_to(place) and parent != place
    ):
        return False
    return here.is_symlink() or here.is_file()


def _drop_cut_short(place: Path, move: Move, paths: Iterable[str]) -> bool:
    """Remove those files that are the beginning of what was being written when git was killed."""
    dropped = False
    for path in paths:
        if _is_file(place, path) and not (place / path).is_symlink():
            whole = run(
                ["cat-file", "--filters", f"{move.new}:{path}"], place, CHECKOUT_TIMEOUT_S, check=False
            ).out
            begun = (place / path).read_bytes()
            if len(begun) < len(whole) and whole.startswith(begun):
                (place / path).unlink()
                dropped = True
    return dropped


def _head(place: Path) -> str:
    """Unlike `calls.head` it raises where git cannot say, which is no reason to take files back."""
    return run(["rev-parse", "--quiet", "--verify", "HEAD^{commit}"], place).line


def _is_on(place: Path, branch: str) -> bool:
    return run(["symbolic-ref", "--quiet", "HEAD"], place, check=False).line == f"refs/heads/{branch}"


def _take_index_lock(folder: Path, place: Path, move: Move) -> None:
    """git's own lock, with the move in it from its first instant. _InTheWay if somebody keeps it."""
    lock, draft = folder / "index.lock", folder / _DRAFT
    deadline = time.monotonic() + INDEX_PATIENCE_S
    try:
        draft.unlink(missing_ok=True)  # not written over: it may be the same file as a lock
        draft.write_text(json.dumps({"kind": _KIND, **asdict(move)}))
        while not _linked(draft, lock):
            if time.monotonic() > deadline:
                hint = f"if none does, remove {lock}"
                raise _InTheWay(f"a git command works in {place}, or was killed there: {hint}")
            time.sleep(0.02)
    except OSError as error:
        raise _InTheWay(f"the index of {place} cannot be locked: {error.strerror}") from error
    finally:
        draft.unlink(missing_ok=True)


def _linked(draft: Path, lock: Path) -> bool:
    try:
        lock.hardlink_to(draft)
    except FileExistsError:
        return False
    return True


def _noted_move(lock: Path) -> Move | None:
    """The move in an index lock of ours; None if there is none, or somebody else's."""
    try:
        noted = json.loads(lock.read_bytes())
        if noted.pop("kind") == _KIND:
            return Move(**noted)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        pass
    return None


def _unlock(folder: Path) -> None:
    (folder / _DRAFT).unlink(missing_ok=True)
    (folder / "index.lock").unlink(missing_ok=True)
