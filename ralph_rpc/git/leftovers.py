"""What the agent left uncommitted in its worktree becomes a commit of the ticket's branch.

Called by the runner when an attempt has ended, before anything is verified. Whatever is neither ignored nor
ours goes into one commit: nothing of `.ralph/`, and no file that `--worktree-copy` brought. What a machine
might get wrong is not guessed: an unfinished merge, another branch, a repository within the repository are
refused with a reason for the agent, and nothing is changed. A machine that dies in between leaves files
staged, or the commit; done again, it is the same.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from ralph_rpc.git.calls import CHECKOUT_TIMEOUT_S, GitError, Result, run
from ralph_rpc.git.repository import common_dir, git_dir, marked, operation_in, run_past_locks
from ralph_rpc.git.status import REPOSITORY_MODE, Status, is_ours, status_of
from ralph_rpc.git.update import files_with_markers, finish_interrupted
from ralph_rpc.text import inert, line_of

SUBJECT_COLUMNS = 200
SHOWN = 3


@dataclass(frozen=True)
class Refused:
    """Why the work cannot be committed; `reason` is one line that tells the agent what to put right."""

    reason: str


def commit_leftovers(worktree: Path, branch: str, subject: str, ticket: str) -> str | Refused | None:
    """Commit all that is uncommitted in the worktree of `branch`; the new commit, or None if there is
    nothing.

    A merge, cherry-pick or revert whose conflicts are all resolved is concluded by that commit.
    """
    folder = git_dir(worktree)
    if folder is None:
        return Refused("the worktree is broken: its .git is missing")
    finish_interrupted(worktree)
    status = status_of(worktree)
    what = operation_in(folder)
    if (reason := _obstacle(branch, status, what)) is not None:
        return Refused(reason)
    work = [entry.path for entry in status.entries if entry.is_work(folder)]
    held_back = [entry.path for entry in status.entries if is_ours(entry.path) and entry.x not in ".?"]
    if held_back:
        _change(
            worktree, ["reset", "--quiet", "--pathspec-from-file=-", "--pathspec-file-nul"], _names(held_back)
        )
    if not work and what is None:
        return None
    _change(worktree, ["update-index", "--add", "--remove", "--replace", "-z", "--stdin"], _names(work))
    if what is not None and (marked_files := files_with_markers(worktree, "", ["--cached"])):
        return Refused(f"conflict markers are left in {_some(marked_files)}: resolve them")
    how = ["--quiet", "--cleanup=whitespace", "-F", "-"]
    done = _change(worktree, ["commit", *how], ticket_message(subject, ticket).encode(), check=False)
    if done.code != 0:
        if run(["diff", "--cached", "--quiet"], worktree, CHECKOUT_TIMEOUT_S, check=False).code == 0:
            return None  # only the form differed, such as line ends that git converts
        raise GitError("commit", done.code, done.last_error)
    return run(["rev-parse", "HEAD"], worktree).line


def ticket_message(subject: str, ticket: str) -> str:
    """The message of a commit that is made for a ticket, with its trailer."""
    title, id = line_of(subject, SUBJECT_COLUMNS), line_of(ticket, SUBJECT_COLUMNS)
    return f"{title or id}\n\nTicket: {id}\n"


def drop_uncommitted(worktree: Path) -> None:
    """Bring the worktree back to its commit: what a verification changed or left goes; ignored files stay.

    To be called once the work is committed and has been verified; such files would keep the worktree for
    ever.
    """
    _change(worktree, ["reset", "--quiet", "--hard"])
    folder = git_dir(worktree)
    for entry in status_of(worktree).entries:
        if (
            entry.is_untracked
            and not entry.path.endswith("/")
            and folder is not None
            and entry.is_work(folder)
        ):
            (worktree / entry.path).unlink(missing_ok=True)


def _obstacle(branch: str, status: Status, what: str | None) -> str | None:
    if status.branch is None and what != "a rebase":
        where = status.commit[:12]
        return f"the work is on no branch but at {where}: switch to {branch} and merge {where} into it"
    if what in ("a rebase", "a bisect"):
        return f"{what} is under way: finish or abort it, so that the work is on {branch}"
    if status.branch != branch:
        return f"the work is on branch {status.branch}: switch to {branch} and merge {status.branch} into it"
    if unmerged := [entry.path for entry in status.entries if entry.is_unmerged]:
        return f"{what or 'a merge'} has conflicts in {_some(unmerged)}: resolve them and commit"
    nested = [
        entry.path for entry in status.entries if entry.path.endswith("/") or entry.mode == REPOSITORY_MODE
    ]
    if nested := [path for path in nested if not is_ours(path)]:
        return f"{_some(nested)} is a git repository of its own: remove its .git, or let .gitignore name it"
    return None


def _some(paths: list[str]) -> str:
    shown = ", ".join(inert(path, keep_newlines=False) for path in paths[:SHOWN])
    return shown if len(paths) <= SHOWN else f"{shown} and {len(paths) - SHOWN} more"


def _names(paths: list[str]) -> bytes:
    return b"".join(os.fsencode(path) + b"\0" for path in paths)


def _change(worktree: Path, args: list[str], stdin: bytes | None = None, check: bool = True) -> Result:
    # Names are names, whatever characters they have.
    env = marked(worktree) | {"GIT_LITERAL_PATHSPECS": "1"}
    return run_past_locks(args, worktree, common_dir(worktree), CHECKOUT_TIMEOUT_S, env, check, stdin)
