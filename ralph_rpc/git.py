"""git: the one place that spells its commands, and the worktree that a loop may work in.

Called by `start` (check, add), the runner (heads), `clean` (risk, remove) and the work meter (command and
environment). Every command runs without prompts, editors, background maintenance and the caller's GIT_*
variables, and is bounded in time. No hook of the repository runs, `post-checkout` included: one that fails or
waits must not decide whether a loop starts. A worktree is added and removed under a lock of the whole
repository; a machine that dies in between leaves at worst an unfinished worktree, which the next add
replaces. Branches are never deleted.
"""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ralph_rpc.errors import RalphError, UsageError
from ralph_rpc.files import locks

OLDEST = (2, 38)
LOCK_PATIENCE_S = 60.0
STATUS_TIMEOUT_S = 120.0
CHECKOUT_TIMEOUT_S = 600.0  # a worktree of a large repository takes minutes to write or delete

_SETTINGS = ("core.hooksPath=/dev/null", "core.fsmonitor=false", "gc.auto=0", "maintenance.auto=false")


class GitError(RalphError):
    """A git command that failed: what it was, its exit code (None: ended by us, or never ran), and why."""

    def __init__(self, command: str, returncode: int | None, reason: str, hint: str = "") -> None:
        super().__init__(f"`git {command}` failed: {reason}", hint)
        self.command = command
        self.returncode = returncode
        self.reason = reason


@dataclass(frozen=True)
class Result:
    """What a git command gave: exit code, stdout as bytes, stderr as text."""

    code: int
    out: bytes
    err: str

    @property
    def line(self) -> str:
        """The single line of its output."""
        return os.fsdecode(self.out.removesuffix(b"\n"))

    @property
    def fields(self) -> list[str]:
        """Its output as NUL-terminated fields (for commands given -z)."""
        return [os.fsdecode(field) for field in self.out.split(b"\0")[:-1]]

    @property
    def last_error(self) -> str:
        lines = [line.strip() for line in self.err.splitlines() if line.strip()]
        return lines[-1] if lines else f"exit code {self.code}"


def command(args: Sequence[str], settings: Sequence[str] = ()) -> list[str]:
    """The argv of a git command that runs no hook and starts nothing in the background."""
    pairs = [word for setting in (*_SETTINGS, *settings) for word in ("-c", setting)]
    return ["git", "--no-pager", *pairs, *args]


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment less every GIT_*, such that git never asks and speaks English."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    # Optional locks are those of `status`, which would refresh (so rewrite) the user's index.
    fixed = {"GIT_TERMINAL_PROMPT": "0", "GIT_EDITOR": "true", "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    return clean | fixed | dict(extra or {})


def run(
    args: Sequence[str],
    cwd: Path,
    timeout: float = 30,
    env_extra: Mapping[str, str] | None = None,
    check: bool = True,
) -> Result:
    """Run `git ARGS` in `cwd` for at most `timeout` seconds; GitError if it cannot, or fails and `check`."""
    shown = " ".join(args[:2])
    try:
        process = subprocess.Popen(
            command(args),
            cwd=cwd,
            env=environment(env_extra),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # so that filters and helpers of git's end with it
        )
    except OSError as error:
        if error.filename == "git":
            raise GitError(shown, None, "git is not installed", "install git 2.38 or newer") from error
        raise GitError(shown, None, f"{error.strerror}: {error.filename}") from error
    with process:
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired as error:
            _end(process)
            raise GitError(shown, None, f"no end after {timeout:g} s") from error
        except BaseException:
            _end(process)
            raise
    result = Result(process.returncode, out, err.decode(errors="replace"))
    if check and result.code != 0:
        raise GitError(shown, result.code, result.last_error)
    return result


def _end(process: subprocess.Popen[bytes]) -> None:
    """End git and its helpers, first such that it removes its lock files."""
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.communicate(timeout=2)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)


def version() -> tuple[int, int]:
    """The installed git's version, as (2, 39). GitError if there is none."""
    text = run(["--version"], Path("/")).line
    found = re.match(r"git version (\d+)\.(\d+)", text)
    if found is None:
        raise GitError("--version", 0, f"unknown answer {text!r}")
    return int(found[1]), int(found[2])


def is_repo(path: Path) -> bool:
    """Whether `path` lies in the work tree of a git repository."""
    return toplevel(path) is not None


def toplevel(path: Path) -> Path | None:
    """The root of the work tree that `path` lies in; None if there is none, or no git."""
    found = _answer(["rev-parse", "--show-toplevel"], path)
    return Path(found) if found is not None else None


def head(path: Path) -> str | None:
    """The commit checked out at `path`; None before the first one, outside of a repository, without git."""
    return _answer(["rev-parse", "--quiet", "--verify", "HEAD^{commit}"], path)


def _answer(args: Sequence[str], cwd: Path) -> str | None:
    try:
        return run(args, cwd).line
    except GitError:
        return None


def check_worktree(project: Path, path: Path, branch: str) -> None:
    """Raise UsageError, with nothing made, unless `add_worktree` can give `branch` a worktree at `path`."""
    if version() < OLDEST:
        raise UsageError("git is older than 2.38", "update git, or start without --worktree")
    inside = run(["rev-parse", "--show-toplevel"], project, check=False)
    if inside.code != 0:
        reason = inside.last_error if "dubious ownership" in inside.err else f"{project} is no git repository"
        raise UsageError(f"--worktree needs git: {reason}", "git init, or start without --worktree")
    if head(project) is None:
        raise UsageError(f"{project} has no commit yet", "commit something, then --worktree has a base")
    _check_branch_name(project, branch)
    for tree in _worktrees(project):
        if _same(tree.path, path):
            if tree.branch == branch:
                continue
            if tree.is_left_over:
                if (lost := _lost_with_memory(project, path)) is None:
                    continue
                raise UsageError(f"the worktree {path} was deleted, but has {lost}", f"git branch NAME {tree.head}")
            where = f"branch {tree.branch!r}" if tree.branch else "no branch"
            raise UsageError(
                f"the worktree {path} is on {where}, not on {branch!r}", "switch it, or clean it first"
            )
        if tree.branch == branch:
            hint = f"git worktree prune (in {project})" if not tree.path.exists() else "choose another branch"
            raise UsageError(f"branch {branch!r} is checked out at {tree.path}", hint)
    tree_there = _find(project, path)
    intact = tree_there is not None and (tree_there.is_left_over or (path / ".git").is_file())
    if os.path.lexists(path) and not intact:
        raise UsageError(f"{path} exists and is not a worktree of this repository", "move it away")


def add_worktree(project: Path, path: Path, branch: str) -> None:
    """Check `branch` out at `path`, created from HEAD if it does not exist; a worktree it has there is kept.

    UsageError as check_worktree, which is called first; GitError when git fails. Hooks do not run, and
    submodules are not filled in.
    """
    with _repository_lock(project):
        check_worktree(project, path, branch)
        existing = _find(project, path)
        if existing is not None:
            if not existing.is_left_over:
                return
            _discard(project, path)
        if _has_branch(project, branch):
            how = [str(path), branch]
        else:
            how = ["--no-track", "-b", branch, str(path), "HEAD"]
        try:
            run(["worktree", "add", "--quiet", *how], project, CHECKOUT_TIMEOUT_S)
        except BaseException:
            if _find(project, path) is not None:  # killed: git had no chance to take back what it had begun
                _discard(project, path)
            raise


def project_in(worktree: Path, project: Path) -> Path:
    """Where the project lies in a worktree of its repository: at its root, unless the project is a subfolder."""
    top = toplevel(project)
    inside = worktree / project.relative_to(top) if top is not None and project.is_relative_to(top) else worktree
    return inside if inside.is_dir() else worktree


def worktree_risk(project: Path, path: Path) -> str | None:
    """What removing the worktree at `path` would lose or leave unmerged, as one line; None when it is safe.

    Uncommitted: changed, staged, or untracked and not ignored. Unmerged: commits that are in no other branch,
    no remote branch and no other checkout, though the branch itself survives a removal.
    """
    if path.is_symlink():
        return "a link in its place"
    if not path.exists():
        return _lost_with_memory(project, path) if is_repo(project) else None
    tree = _find(project, path)
    if tree is None or not (path / ".git").is_file():
        return "it is no intact worktree of this repository, so its content cannot be judged"
    if tree.is_left_over:
        return None
    if (Path(run(["rev-parse", "--absolute-git-dir"], path).line) / "modules").exists():
        return "submodules, whose commits would go with it"
    risks = []
    everything = ["--untracked-files=all", "--ignore-submodules=none", "--no-renames"]
    status = run(["status", "--porcelain=v1", "-z", *everything], path, STATUS_TIMEOUT_S)
    if dirty := len(status.fields):
        risks.append(f"{dirty} uncommitted file{'s'[: dirty != 1]}")
    if commits := _unmerged(project, tree):
        where = f"of branch {tree.branch!r}" if tree.branch else "of no branch"
        risks.append(f"{commits} unmerged commit{'s'[: commits != 1]} {where}")
    return " and ".join(risks) or None


def worktree_paths(project: Path) -> list[Path]:
    """Where the repository's worktrees are, or were where their folders are gone; without the main one."""
    return [tree.path for tree in _worktrees(project)[1:]]


def remove_worktree(project: Path, path: Path, force: bool = False) -> None:
    """Remove the worktree at `path`, or only git's memory of it where its folder is gone. The branch stays.

    GitError, and nothing removed, when worktree_risk finds something and not `force`. Other worktrees, also
    those whose folders are missing, are left alone.
    """
    with _repository_lock(project):
        risk = None if force else worktree_risk(project, path)
        if risk is not None:
            raise GitError(
                "worktree remove", None, f"{path} has {risk}", "merge or commit it, or use --force"
            )
        tree = _find(project, path)
        if tree is not None and tree.locked and not tree.is_left_over and not force:
            raise GitError(
                "worktree remove", None, f"{path} is locked", f"git worktree unlock {path}, or use --force"
            )
        _discard(project, path)


@dataclass(frozen=True)
class _Worktree:
    """One entry of `git worktree list`; `locked` is the reason, None if it is not locked."""

    path: Path
    head: str | None
    branch: str | None
    locked: str | None

    @property
    def is_left_over(self) -> bool:
        """Its folder was deleted by hand, or its `git worktree add` was killed: nothing of value is in it."""
        return not self.path.exists() or self.locked == "initializing"


def _worktrees(project: Path) -> list[_Worktree]:
    """All worktrees of the repository, the main one first."""
    trees = []
    entry: dict[str, str] = {}
    for field in run(["worktree", "list", "--porcelain", "-z"], project).fields:
        if field:
            key, _, value = field.partition(" ")
            entry[key] = value
            continue
        branch = entry["branch"].removeprefix("refs/heads/") if "branch" in entry else None
        trees.append(_Worktree(Path(entry["worktree"]), entry.get("HEAD"), branch, entry.get("locked")))
        entry = {}
    return trees


def _find(project: Path, path: Path) -> _Worktree | None:
    return next((tree for tree in _worktrees(project)[1:] if _same(tree.path, path)), None)


def _same(one: Path, other: Path) -> bool:
    # The last part is not followed: a link that lies in a worktree's place is not the worktree it leads to.
    return one.parent.resolve() / one.name == other.parent.resolve() / other.name


def _has_branch(project: Path, branch: str) -> bool:
    return run(["show-ref", "--verify", "--quiet", f"refs/heads/{branch}"], project, check=False).code == 0


def _check_branch_name(project: Path, branch: str) -> None:
    # `@{-1}` is a valid way to name another branch, but not a name: git answers with what it stands for.
    valid = branch.isprintable() and run(["check-ref-format", "--branch", branch], project, check=False)
    if not valid or valid.code != 0 or valid.line != branch:
        raise UsageError(f"{branch!r} is no valid branch name", "see git help check-ref-format")
    # A branch is a file and its slashes are folders, so `a` and `a/b` cannot both exist.
    names = run(["for-each-ref", "--format=%(refname:lstrip=2)", "refs/heads"], project).out
    for name in os.fsdecode(names).split("\n")[:-1]:
        if name.startswith(f"{branch}/") or branch.startswith(f"{name}/"):
            raise UsageError(
                f"branch {branch!r} cannot exist beside branch {name!r}", "choose another branch name"
            )


def _unmerged(project: Path, tree: _Worktree) -> int:
    if tree.head is None or not tree.head.strip("0"):  # a branch without a commit
        return 0
    others = [
        other.head for other in _worktrees(project) if other.head and other.head.strip("0") and other != tree
    ]
    own = [f"--exclude={tree.branch}"] if tree.branch else []
    args = ["rev-list", "--count", tree.head, "--not", *own, "--branches", "--remotes", *others]
    return int(run(args, project, STATUS_TIMEOUT_S).line)


def _lost_with_memory(project: Path, path: Path) -> str | None:
    """What only git's memory of a worktree whose folder is gone still holds: commits that are on no branch."""
    tree = _find(project, path)
    commits = _unmerged(project, tree) if tree is not None and tree.branch is None else 0
    return f"{commits} unmerged commit{'s'[: commits != 1]} of no branch" if commits else None


def _discard(project: Path, path: Path) -> None:
    """Remove the worktree at `path`, whatever is in it and however broken it is. A link is not followed."""
    registered = _find(project, path) is not None
    if registered and (path / ".git").is_file() and not path.is_symlink():
        # Twice: once for its changes, once for its lock.
        run(["worktree", "remove", "--force", "--force", str(path)], project, CHECKOUT_TIMEOUT_S)
        return
    if path.is_symlink():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)
    if registered:  # git forgets this one; `git worktree prune` would forget others too, on unmounted disks
        run(["worktree", "remove", "--force", "--force", str(path)], project)


@contextmanager
def _repository_lock(project: Path) -> Iterator[None]:
    """Hold the lock that all loops of this repository share; git's own locks fail instead of waiting."""
    common = run(["rev-parse", "--path-format=absolute", "--git-common-dir"], project, check=False)
    if common.code != 0:
        raise UsageError(f"{project} is no git repository", "git init, or start without --worktree")
    lock = locks.acquire(Path(common.line) / "ralph-rpc.lock", LOCK_PATIENCE_S)
    if lock is None:
        raise GitError("worktree", None, f"another ralph-rpc works on worktrees of {project}", "try again")
    with lock:
        yield
