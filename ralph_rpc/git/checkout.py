"""The checkout of the target branch, updated together with the branch, without losing anything of a person's.

Called only by `land`, under the lock of the repository. The branch of a checkout cannot move alone: the next
commit there would undo the merge. So files, index and ref move together, from `old` to `new`, while git's own
index lock of that checkout is held, which keeps every other git from changing it. Files that differ between
old and new must be as they are in old (or in new already); everything else may be changed, staged or untracked, and
stays so. The exception are the tickets' own files: what a person has written into one is merged with what comes, line by
line, once the ref has moved.

The index lock says, in its content, what was to be moved. A machine that dies in between leaves it: files are old,
new, missing or cut short, the index is old or new, and the ref is last. The next holder of the repository lock reads
it and finishes the move (`finish_interrupted`). Until then git says in that checkout that index.lock exists; if a
person removes it, the files that had been moved already are no obstacle to the next try.
"""

import json
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ralph_rpc.files.atomic import write_atomic
from ralph_rpc.git.calls import CHECKOUT_TIMEOUT_S, GitError, Result, run
from ralph_rpc.git.line_merge import merged
from ralph_rpc.git.repository import Repository, branch_head, git_dir, operation_in
from ralph_rpc.git.status import REPOSITORY_MODE, Status, status_of
from ralph_rpc.git.trees import blob, is_by_line

INDEX_PATIENCE_S = 2.0
"""A `git status` in the checkout holds its index lock for an instant."""

SHOWN = 3
TRIES = 5
_KIND = "ralph-rpc"
_DRAFT = "ralph-rpc.move"


@dataclass(frozen=True)
class Move:
    """The target branch is to go from one commit to another, because of the ticket's branch `why`."""

    branch: str
    old: str
    new: str
    why: str
    by_line: str = ""
    """The folder of the tickets, whose files are merged line by line where a person has changed them."""


@dataclass(frozen=True)
class Change:
    """A file that differs between two commits: its objects there, "" where it is not, and its mode."""

    path: str
    old: str
    new: str
    mode: str = "100644"


class _InTheWay(Exception):
    """Why the checkout cannot be updated."""


def move_ref(repo: Repository, at: Path, move: Move) -> bool:
    """Move the branch if it is still at `old`, called in the checkout `at`, whose reflog then records it.

    False if it has moved on by itself. GitError if it is still at `old`, or git cannot say where it is.
    """
    reason = ["-m", f"ralph-rpc: merge {move.why}"]
    try:
        repo.run(["update-ref", *reason, f"refs/heads/{move.branch}", move.new, move.old], at)
    except GitError:
        # A killed git may have moved it: if the files were taken back then, the next commit would undo the merge.
        now = branch_head(repo.project, move.branch)
        if now == move.old:
            raise
        return now == move.new
    return True


def take_along(repo: Repository, place: Path, move: Move) -> str | None:
    """Move the branch and its checkout at `place`; or the reason why that must wait, with nothing changed.

    If the branch has moved on by itself, nothing is changed and no reason given; the caller sees it by the head.
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


class _Looker:
    """git for one who changes nothing, and so needs no lock of the repository."""

    def run(
        self,
        args: Sequence[str],
        cwd: Path,
        timeout: float = 30,
        env: Mapping[str, str] | None = None,
        check: bool = True,
        stdin: bytes | None = None,
    ) -> Result:
        return run(args, cwd, timeout, env, check, stdin)


def in_the_way(place: Path, move: Move) -> list[str] | str:
    """What would keep `take_along` from moving this checkout: the paths that are in the way, or why none can be named.

    Changes nothing, and holds no lock: what it finds may be different a moment later.
    """
    folder = git_dir(place)
    if folder is None:
        return f"{place} has {move.branch} checked out, but is broken: git worktree repair"
    if what := operation_in(folder):
        return f"{what} is under way in {place}: finish or abort it"
    status = status_of(place, untracked="no")
    if status.branch != move.branch or status.commit != move.old:
        return []
    changes = _changes(place, move)
    with tempfile.TemporaryDirectory(prefix="ralph-look-") as own:  # others may look at the same time
        index = Path(shutil.copy2(folder / "index", own))
        found = _obstacles(_Looker(), place, index, move.new, changes, status, resumed=False)
    by_line = {change.path for change in changes if change.path in found and _may_merge_lines(place, move, change)}
    return [path for path in found if path not in by_line]


def interrupted_in(place: Path) -> Move | None:
    """The move of the checkout at `place` that is under way there, or that a dead process began."""
    folder = git_dir(place)
    return _noted_move(folder / "index.lock") if folder is not None else None


def finish_interrupted(repo: Repository, place: Path) -> None:
    """Complete the move of the checkout at `place` that a dead process began, if there is one."""
    folder, move = git_dir(place), interrupted_in(place)
    if folder is None or move is None:
        return
    if (now := branch_head(repo.project, move.branch)) != move.old:
        if now == move.new:
            _merge_lines(place, _text_changes(place, move))
        _unlock(folder)  # all was done but this, or somebody has moved the branch since
        return
    try:
        _carry_out(repo, place, folder, move, resumed=True)
    except _InTheWay:  # a person has worked there since; what is in the way shows at the next move
        return


def _carry_out(repo: Repository, place: Path, folder: Path, move: Move, resumed: bool) -> str | None:
    """Move files, index and ref, and unlock the index, unless something remains half done."""
    try:
        before = status_of(place, untracked="no")
        if before.branch != move.branch or before.commit != move.old:
            _unlock(folder)
            return None
        index, changed = _prepared_index(repo, place, folder, move, before, resumed)
    except BaseException as error:
        if isinstance(error, _InTheWay) or not resumed:  # else what is half done stays noted
            _unlock(folder)
        raise
    done = _read_tree(repo, place, index, move.old, move.new)
    if done.code > 0 and status_of(place, untracked="no") == before:  # git refused before touching anything
        index.unlink()
        _unlock(folder)
        return f"{place} cannot be updated: {done.last_error}"
    if done.code != 0:
        raise GitError("read-tree -m -u", done.code, done.last_error)
    _stage_merged(repo, place, index, changed)
    index.replace(folder / "index")
    # Somebody may leave the branch without touching the index (`git switch -c`), or move it from elsewhere.
    if is_on(place, move.branch) and move_ref(repo, place, move) and _head(place) == move.new:
        _merge_lines(place, [change for change, _ in changed])
        _unlock(folder)
        return None
    index = _copied_index(folder)
    _put(repo, place, index, [(change.path, change.mode, change.old) for change, _ in changed])
    if (undone := _read_tree(repo, place, index, move.new, move.old)).code != 0:
        raise GitError("read-tree -m -u", undone.code, undone.last_error)
    _put(repo, place, index, [(change.path, change.mode, staged) for change, staged in changed])
    index.replace(folder / "index")
    _unlock(folder)
    return None


def _read_tree(repo: Repository, place: Path, index: Path, old: str, new: str) -> Result:
    env = {"GIT_INDEX_FILE": str(index)}
    return repo.run(["read-tree", "-m", "-u", old, new], place, CHECKOUT_TIMEOUT_S, env, check=False)


def _prepared_index(
    repo: Repository, place: Path, folder: Path, move: Move, status: Status, resumed: bool
) -> tuple[Path, list[tuple[Change, str]]]:
    """A copy of the index that has noted what is as in `new` already, and the tickets' files to be merged by line.

    _InTheWay where a file is neither old nor new.
    """
    changes = _changes(place, move)
    index = _copied_index(folder)
    found = _obstacles(repo, place, index, move.new, changes, status, resumed)
    if found and resumed and _drop_cut_short(place, move, found):
        index, status = _copied_index(folder), status_of(place, untracked="no")
        found = _obstacles(repo, place, index, move.new, changes, status, resumed)
    by_line = [change for change in changes if change.path in found and _may_merge_lines(place, move, change)]
    left = [path for path in found if path not in {change.path for change in by_line}]
    if left:
        index.unlink()
        raise _InTheWay(told(place, left))
    staged = {entry.path: entry.indexed for entry in status.entries}
    # As in `new`: then read-tree leaves the person's file alone.
    _put(repo, place, index, [(change.path, change.mode, change.new) for change in by_line])
    return index, [(change, staged.get(change.path) or change.old) for change in by_line]


def _may_merge_lines(place: Path, move: Move, change: Change) -> bool:
    known = change.old and change.new and is_by_line(change.path, move.by_line)
    return bool(known) and _is_file(place, change.path) and not (place / change.path).is_symlink()


def _text_changes(place: Path, move: Move) -> list[Change]:
    """The tickets' files that the move changes."""
    return [change for change in _changes(place, move) if _may_merge_lines(place, move, change)]


def _merge_lines(place: Path, changes: Iterable[Change]) -> None:
    """What a person has written into the tickets' files, with what the move brought. Done again, it changes nothing."""
    for change in changes:
        path = place / change.path
        old, new = (blob(place, one) for one in (change.old, change.new))
        for _ in range(TRIES):
            text = path.read_bytes()
            if path.read_bytes() == text:  # else somebody writes it just now
                whole = merged(old, text, new)
                if whole != text:
                    write_atomic(path, whole, mode=stat.S_IMODE(path.stat().st_mode))
                break


def _stage_merged(repo: Repository, place: Path, index: Path, changed: Iterable[tuple[Change, str]]) -> None:
    """What a person had staged of these files stays staged, with what the move brings."""
    entries = []
    for change, staged in changed:
        if staged not in (change.old, change.new):
            texts = (blob(place, one) for one in (change.old, staged, change.new))
            made = repo.run(["hash-object", "-w", "--stdin"], place, stdin=merged(*texts)).line
            entries.append((change.path, change.mode, made))
    _put(repo, place, index, entries)


def _put(repo: Repository, place: Path, index: Path, entries: list[tuple[str, str, str]]) -> None:
    """Path, mode and object of each, into the index."""
    if entries:
        lines = b"".join(os.fsencode(f"{mode} {object}\t{path}") + b"\0" for path, mode, object in entries)
        env = {"GIT_INDEX_FILE": str(index)}
        repo.run(["update-index", "-z", "--index-info"], place, CHECKOUT_TIMEOUT_S, env, stdin=lines)


def told(place: Path, paths: list[str]) -> str:
    """That these are in the way, and what to do."""
    shown = ", ".join(paths[:SHOWN])
    more = f" and {len(paths) - SHOWN} more" if len(paths) > SHOWN else ""
    return f"in the way in {place}: {shown}{more}; commit, stash or move them"


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
        _, mode, old, new, _ = entry.split(" ")
        changes.append(Change(path, old.strip("0") and old, new.strip("0") and new, mode))
    return changes


def _obstacles(
    repo: Repository | _Looker, place: Path, index: Path, new: str, changes: list[Change], status: Status, resumed: bool
) -> list[str]:
    """Paths of which a person's content would be lost, or whose deletion would be undone."""
    changed = {entry.path: entry for entry in status.entries}
    removed = {change.path for change in changes if not change.new}
    found: list[str] = []
    perhaps_new: list[str] = []
    for change in changes:
        entry = changed.get(change.path)
        if entry is not None and change.mode == REPOSITORY_MODE and entry.indexed == change.old:
            continue  # a submodule that is at another commit: nothing in it changes with its pointer
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


def _differing(repo: Repository | _Looker, place: Path, index: Path, new: str, paths: list[str]) -> set[str]:
    """Those of the paths whose file is not as in `new`; the others are noted in the index as they are."""
    env = {"GIT_INDEX_FILE": str(index)}
    # Without this, a file that was only touched counts as changed.
    repo.run(["update-index", "-q", "--refresh"], place, CHECKOUT_TIMEOUT_S, env, check=False)
    if not paths:
        return set()
    names = b"".join(os.fsencode(path) + b"\0" for path in paths)
    repo.run(["update-index", "--add", "--remove", "-z", "--stdin"], place, CHECKOUT_TIMEOUT_S, env, False, names)
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
    below = (str((Path(folder) / file).relative_to(place)) for folder, _, files in os.walk(here) for file in files)
    return next((name for name in below if name not in removed), None)


def _is_file(place: Path, path: str) -> bool:
    """Whether a file or a link is there, and not by way of a linked folder."""
    here = place / path
    if any(parent.is_symlink() for parent in here.parents if parent.is_relative_to(place) and parent != place):
        return False
    return here.is_symlink() or here.is_file()


def _drop_cut_short(place: Path, move: Move, paths: Iterable[str]) -> bool:
    """Remove those files that are the beginning of what was being written when git was killed."""
    dropped = False
    for path in paths:
        if _is_file(place, path) and not (place / path).is_symlink():
            whole = run(["cat-file", "--filters", f"{move.new}:{path}"], place, CHECKOUT_TIMEOUT_S, check=False).out
            begun = (place / path).read_bytes()
            if len(begun) < len(whole) and whole.startswith(begun):
                (place / path).unlink()
                dropped = True
    return dropped


def _head(place: Path) -> str:
    """Unlike `calls.head` it raises where git cannot say, which does not justify taking files back."""
    return run(["rev-parse", "--quiet", "--verify", "HEAD^{commit}"], place).line


def is_on(place: Path, branch: str) -> bool:
    """Whether a checkout has the branch."""
    return run(["symbolic-ref", "--quiet", "HEAD"], place, check=False).line == f"refs/heads/{branch}"


def _take_index_lock(folder: Path, place: Path, move: Move) -> None:
    """git's own lock, which says from its first instant what is moved. _InTheWay if somebody keeps it."""
    lock, draft = folder / "index.lock", folder / _DRAFT
    deadline = time.monotonic() + INDEX_PATIENCE_S
    try:
        draft.unlink(missing_ok=True)  # not written over: it may be the same file as a lock
        draft.write_text(json.dumps({"kind": _KIND, **asdict(move)}))
        while not _linked(draft, lock):
            if time.monotonic() > deadline:
                hint = f"if none is running, remove {lock}"
                raise _InTheWay(f"a git command is running in {place}, or was killed there: {hint}")
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
