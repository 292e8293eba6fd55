"""What the agent left uncommitted in its worktree becomes a commit of the ticket's branch.

Called by the runner when an attempt has ended, before anything is verified. Everything that is neither ignored nor ours
(`.ralph/`, files that `--worktree-copy` brought or `--worktree-setup` changed) goes into one commit. Nothing is
guessed: an unfinished merge, another branch, or a repository within the repository is refused with a reason for the
agent, and nothing is changed. A machine that dies in between leaves files staged, or the commit; doing it again comes
to the same.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from ralph_rpc.git.calls import CHECKOUT_TIMEOUT_S, GitError, Result, run
from ralph_rpc.git.repository import common_dir, git_dir, marked, operation_in, run_past_locks
from ralph_rpc.git.set_up import kept, left_by_setup
from ralph_rpc.git.status import REPOSITORY_MODE, Status, is_ours, status_of
from ralph_rpc.git.submodules import declared
from ralph_rpc.git.update import files_with_markers, finish_interrupted

SHOWN = 3
_OF_A_FILE = re.compile(r"[Uu]nable to process path|unable to index file|can only add regular files")
_OF_THE_REPOSITORY = re.compile(
    r"insufficient permission for adding|No space left|Read-only|[Uu]nable to (?:write|create)"
)


@dataclass(frozen=True)
class Refused:
    """Why the work cannot be committed; `reason` tells the agent what to fix."""

    reason: str


def commit_leftovers(worktree: Path, branch: str, message: str) -> str | Refused | None:
    """Commit everything uncommitted in the worktree of `branch`; returns the new commit, None if there is nothing.

    A merge, cherry-pick or revert whose conflicts are all resolved is concluded by that commit.
    """
    folder = git_dir(worktree)
    if folder is None:
        return Refused("the worktree is broken: its .git is missing")
    finish_interrupted(worktree)
    status = status_of(worktree)
    what = operation_in(folder)
    left = left_by_setup(worktree)
    if (reason := _obstacle(worktree, branch, status, what, left)) is not None:
        return Refused(reason)
    work = [entry.path for entry in status.entries if entry.is_work(folder) and entry.path not in left]
    held_back = [entry.path for entry in status.entries if is_ours(entry.path) and entry.x not in ".?"]
    if held_back:
        _change(worktree, ["reset", "--quiet", "--pathspec-from-file=-", "--pathspec-file-nul"], _names(held_back))
    if not work and what is None:
        return None
    adding = ["update-index", "--add", "--remove", "--replace", "-z", "--stdin"]
    if (added := _change(worktree, adding, _names(work), check=False)).code != 0:
        if _OF_A_FILE.search(added.err) and not _OF_THE_REPOSITORY.search(added.err):
            return Refused(f"git cannot add a file: {added.last_error}; make it readable, or remove it")
        _change(worktree, adding, _names(work))  # once more, for the words of whatever it is
    if what is not None and (marked_files := files_with_markers(worktree, "", ["--cached"])):
        return Refused(f"conflict markers are left in {_some(marked_files)}: resolve them")
    how = ["--quiet", "--cleanup=whitespace", "-F", "-"]
    done = _change(worktree, ["commit", *how], message.encode(), check=False)
    if done.code != 0:
        if run(["diff", "--cached", "--quiet"], worktree, CHECKOUT_TIMEOUT_S, check=False).code == 0:
            return None  # only the form differed, such as line endings that git converts
        raise GitError("commit", done.code, done.last_error)
    return run(["rev-parse", "HEAD"], worktree).line


def drop_uncommitted(worktree: Path) -> None:
    """Bring the worktree back to its commit: what a verification changed or left goes; ignored files stay.

    To be called once the work is committed and has been verified; such files would keep the worktree for ever.
    """
    with kept(worktree):
        _change(worktree, ["reset", "--quiet", "--hard"])
    folder, left = git_dir(worktree), left_by_setup(worktree)
    for entry in status_of(worktree).entries:
        if entry.path in left or not entry.is_untracked or entry.path.endswith("/"):
            continue
        if folder is not None and entry.is_work(folder):
            (worktree / entry.path).unlink(missing_ok=True)


def _obstacle(worktree: Path, branch: str, status: Status, what: str | None, left: frozenset[str]) -> str | None:
    if status.branch is None and what != "a rebase":
        where = status.commit[:12]
        return f"the work is not on a branch but at {where}: switch to {branch} and merge {where} into it"
    if what in ("a rebase", "a bisect"):
        return f"{what} is under way: finish or abort it, so that the work is on {branch}"
    if status.branch != branch:
        return f"the work is on branch {status.branch}: switch to {branch} and merge {status.branch} into it"
    if unmerged := [entry.path for entry in status.entries if entry.is_unmerged]:
        return f"{what or 'a merge'} has conflicts in {_some(unmerged)}: resolve them and commit"
    nested = [entry for entry in status.entries if entry.path.endswith("/") or entry.mode == REPOSITORY_MODE]
    modules = declared(worktree, "") if nested else {}
    if dirty := [
        one.path for one in nested if one.path in modules and one.path not in left and set("MU") & set(one.nested)
    ]:
        return f"submodule {_some(dirty)} has uncommitted changes, which are not merged: commit and push them, or discard them"
    if foreign := [one.path for one in nested if not is_ours(one.path) and one.path not in modules]:
        return f"{_some(foreign)} is a git repository of its own: remove its .git, or add it to .gitignore"
    return None


def _some(paths: list[str]) -> str:
    shown = ", ".join(paths[:SHOWN])
    return shown if len(paths) <= SHOWN else f"{shown} and {len(paths) - SHOWN} more"


def _names(paths: list[str]) -> bytes:
    return b"".join(os.fsencode(path) + b"\0" for path in paths)


def _change(worktree: Path, args: list[str], stdin: bytes | None = None, check: bool = True) -> Result:
    # Names are names, whatever characters they have.
    env = marked(worktree) | {"GIT_LITERAL_PATHSPECS": "1"}
    return run_past_locks(args, worktree, common_dir(worktree), CHECKOUT_TIMEOUT_S, env, check, stdin)
