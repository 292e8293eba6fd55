"""What git knows of a repository's checkouts, and the lock under which they are changed.

The lock is one file in the directory that all worktrees share, held by any process that adds, removes or merges; git's
own locks fail instead of waiting. It is never held while an agent or a verification runs. A holder that dies may leave
a running git behind: its commands carry the lock's path in their environment, and the next holder waits for them, and
ends them if they do not finish. A lock file that a killed git left is removed when a command of ours runs into it and
no living git can own it; the index of a person's checkout is never unlocked that way.
"""

import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ralph_rpc.errors import UsageError
from ralph_rpc.git.calls import GitError, Result, run
from ralph_rpc.machine import locks

LOCK_PATIENCE_S = 60.0
TICKET_PATIENCE_S = 900.0
"""Tickets wait for one another, and each may check out a large repository."""

OWNER_PATIENCE_S = 10.0
"""How long to wait for a git that holds a lock file, or that a dead process of ours left."""

LOCK_REASON = "ralph-rpc"
"""How the reason begins with which tickets' worktrees are locked, so that no `git worktree prune` forgets them."""

HALF_MADE_PATIENCE_S = 5.0
"""How long to wait for a `git worktree add` of somebody's to have written a file that it has just made."""

_MARK = "RALPH_RPC_GIT"
_LEFT_LOCK = re.compile(r"[Uu]nable to create '?(/.+?\.(?:lock|new))'?: File exists")

_OPERATIONS = {
    "MERGE_HEAD": "a merge",
    "CHERRY_PICK_HEAD": "a cherry-pick",
    "REVERT_HEAD": "a revert",
    "rebase-merge": "a rebase",
    "rebase-apply": "a rebase",
    "BISECT_LOG": "a bisect",
}


@dataclass(frozen=True)
class Worktree:
    """One entry of `git worktree list`; `locked` is the reason, None if it is not locked."""

    path: Path
    head: str | None
    branch: str | None
    locked: str | None

    @property
    def is_left_over(self) -> bool:
        """Its folder was deleted by hand, or its `git worktree add` was killed: nothing of value is in it."""
        return not self.path.exists() or self.locked == "initializing"


def list_worktrees(project: Path) -> list[Worktree]:
    """All worktrees of the repository, the main one first."""
    trees = []
    entry: dict[str, str] = {}
    for field in _listed(project):
        if field:
            key, _, value = field.partition(" ")
            entry[key] = value
            continue
        branch = entry["branch"].removeprefix("refs/heads/") if "branch" in entry else None
        trees.append(Worktree(Path(entry["worktree"]), entry.get("HEAD"), branch, entry.get("locked")))
        entry = {}
    return trees


def _listed(project: Path) -> list[str]:
    until = time.monotonic() + HALF_MADE_PATIENCE_S
    while True:
        try:
            return run(["worktree", "list", "--porcelain", "-z"], project).fields
        except GitError as error:
            if error.half_made is None:
                raise
            if time.monotonic() > until:
                hint = f"if no `git worktree add` is running, one was killed: remove {error.half_made}"
                raise GitError(error.command, error.returncode, error.reason, hint) from error
        time.sleep(0.01)


def find_worktree(project: Path, path: Path) -> Worktree | None:
    """What git remembers of the linked worktree at `path`."""
    return next((tree for tree in list_worktrees(project)[1:] if same_place(tree.path, path)), None)


def same_place(one: Path, other: Path) -> bool:
    """Whether both paths name the same entry of a folder."""
    # The last part is not followed: a link in a worktree's place is not the worktree it leads to.
    return one.parent.resolve() / one.name == other.parent.resolve() / other.name


def git_dir(checkout: Path) -> Path | None:
    """Where git keeps what belongs to this checkout alone (index, HEAD, a merge that is under way)."""
    link = checkout / ".git"
    if link.is_dir():
        return link
    try:
        text = link.read_bytes()
    except OSError:
        return None
    named = os.fsdecode(text.removeprefix(b"gitdir:").strip())
    found = (checkout / named).resolve() if text.startswith(b"gitdir:") else None
    return found if found is not None and found.is_dir() else None


def operation_in(folder: Path) -> str | None:
    """What a person has started in the checkout whose git_dir this is: `a merge`, `a rebase`, …"""
    return next((what for name, what in _OPERATIONS.items() if (folder / name).exists()), None)


def branch_in_use(common: Path, branch: str) -> str | None:
    """`a rebase` or `a bisect`, in any checkout, that returns to this branch when it ends."""
    for folder in (common, *sorted((common / "worktrees").glob("*"))):
        for name, what in (
            ("rebase-merge/head-name", "a rebase"),
            ("rebase-apply/head-name", "a rebase"),
            ("BISECT_START", "a bisect"),
        ):
            try:
                named = os.fsdecode((folder / name).read_bytes().strip())
            except OSError:
                continue
            if named.removeprefix("refs/heads/") == branch:
                return what
    return None


def branch_head(project: Path, branch: str) -> str | None:
    """The branch's commit; None if there is no such branch."""
    found = run(["rev-parse", "--quiet", "--verify", f"refs/heads/{branch}^{{commit}}"], project, check=False)
    return found.line if found.code == 0 else None


def is_ancestor(project: Path, one: str, other: str) -> bool:
    """Whether `other` contains all commits of `one`."""
    done = run(["merge-base", "--is-ancestor", one, other], project, check=False)
    if done.code not in (0, 1):
        raise GitError("merge-base --is-ancestor", done.code, done.last_error)
    return done.code == 0


def common_dir(project: Path) -> Path:
    """The directory that all worktrees of the project's repository share."""
    found = run(["rev-parse", "--path-format=absolute", "--git-common-dir"], project, check=False)
    if found.code != 0:
        raise UsageError(f"{project} is not a git repository", "git init, or start without --worktree")
    return Path(found.line)


def lock_path(project: Path) -> Path:
    """The file that `repository_lock` locks."""
    return common_dir(project) / "ralph-rpc.lock"


class Repository:
    """A repository as long as its lock is held, and the commands that change it."""

    def __init__(self, project: Path, common: Path, lock: locks.Lock) -> None:
        self.project = project
        self.common = common
        self._lock = lock

    def run(
        self,
        args: Sequence[str],
        cwd: Path | None = None,
        timeout: float = 30,
        env: Mapping[str, str] | None = None,
        check: bool = True,
        stdin: bytes | None = None,
    ) -> Result:
        """As `run_past_locks`, known to the next holder of the lock should this process die."""
        extra = {_MARK: str(self._lock.path), **(env or {})}
        return run_past_locks(args, cwd or self.project, self.common, timeout, extra, check, stdin)


@contextmanager
def repository_lock(project: Path, patience_s: float | None = None) -> Iterator[Repository]:
    """Hold the lock that all loops of this repository share."""
    path = lock_path(project)
    lock = locks.acquire(path, LOCK_PATIENCE_S if patience_s is None else patience_s)
    if lock is None:
        raise GitError("worktree", None, f"another ralph-rpc is changing worktrees of {project}", "try again")
    with lock:
        # What is written here while the lock is held is still there if its holder died.
        if os.pread(lock.fd, 1, 0):
            end_orphans(str(lock.path))
        with suppress(OSError):  # a full disk; git will say so itself
            os.pwrite(lock.fd, b"held\n", 0)
        try:
            yield Repository(project, path.parent, lock)
        finally:
            os.ftruncate(lock.fd, 0)


def run_past_locks(
    args: Sequence[str],
    cwd: Path,
    common: Path,
    timeout: float = 30,
    env: Mapping[str, str] | None = None,
    check: bool = True,
    stdin: bytes | None = None,
) -> Result:
    """`run`, again if it met a lock file below `common` whose owner is dead; a living one is waited for."""
    deadline = time.monotonic() + OWNER_PATIENCE_S
    while True:
        done = run(args, cwd, timeout, env, False, stdin)
        left = _LEFT_LOCK.search(done.err) if done.code != 0 else None
        if left is None or time.monotonic() > deadline:
            break
        lock = Path(left[1])
        if not lock.is_relative_to(common.resolve()) or not is_ownerless(lock, (cwd, common)):
            time.sleep(0.05)
            continue
        lock.unlink(missing_ok=True)
    if check and done.code != 0:
        held = f"a running git may hold {left[1]}" if left is not None else done.last_error
        raise GitError(" ".join(args[:2]), done.code, held)
    return done


def is_ownerless(lock: Path, places: Sequence[Path]) -> bool:
    """Whether no living git can have made this lock file, or it is gone: none that runs in these places is older than it."""
    try:
        made = lock.stat().st_mtime
    except FileNotFoundError:
        return True
    import psutil  # here, as it takes long to load and is hardly ever needed

    from ralph_rpc.machine.processes import processes

    resolved = [place.resolve() for place in places]
    roots = resolved + [place.parent for place in resolved if place.name == ".git"]
    for process in processes():
        try:
            if process.name().startswith("git") and process.create_time() <= made + 1:
                here = Path(process.cwd())
                if any(here.is_relative_to(root) for root in roots):
                    return False
        except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
            continue
        except (psutil.Error, OSError):  # somebody else's, or about to end: unsure, so it is the owner
            return False
    return True


def git_runs_in(place: Path) -> bool:
    """Whether a git command is under way there, but for those that only ask on our behalf."""
    import psutil  # here, as above

    from ralph_rpc.machine.processes import processes

    for process in processes():
        with suppress(psutil.Error, OSError):
            if process.name() == "git" and Path(process.cwd()).is_relative_to(place.resolve()):
                return True
    return False


def end_orphans(mark: str) -> None:
    """Wait for the gits that a dead process of ours left at work under this mark, then end them."""
    import psutil  # here, as above

    from ralph_rpc.machine.processes import processes

    left = []
    for process in processes():
        try:
            if process.environ().get(_MARK) == mark:
                left.append(process)
        except (psutil.Error, OSError):
            continue
    _, left = psutil.wait_procs(left, OWNER_PATIENCE_S)
    for process in left:
        with suppress(psutil.Error, OSError):
            process.terminate()  # such that it removes its lock files
    _, left = psutil.wait_procs(left, 2)
    for process in left:
        with suppress(psutil.Error, OSError):
            process.kill()
    psutil.wait_procs(left, 2)


def marked(path: Path) -> dict[str, str]:
    """The environment by which `end_orphans(str(path))` knows a command that changes what is at `path`."""
    return {_MARK: str(path)}
