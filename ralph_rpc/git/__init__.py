"""git: the one place that spells its commands.

`calls` says how git is called; `repository` what it knows of its checkouts, and the lock under which they change;
`worktrees` is for task loops. For ticket loops, `target` checks the branch that work goes to, `ticket_trees` gives
each ticket its worktree, `copying` brings untracked files into it, `uncommitted` commits what the agent left, `update`
brings the target's new commits into the ticket's branch, `merge` moves the target, and `checkout` updates a person's
checkout of the target with it. Names in reasons are as git has them: whoever shows them makes them inert.
"""

from ralph_rpc.git.calls import (
    OLDEST,
    GitError,
    Result,
    allow_fetching,
    command,
    environment,
    head,
    is_repo,
    run,
    toplevel,
    version,
    without_filters,
)
from ralph_rpc.git.repository import common_dir
from ralph_rpc.git.worktrees import (
    add_worktree,
    check_worktree,
    project_in,
    remove_worktree,
    worktree_paths,
    worktree_risk,
)

__all__ = [
    "OLDEST",
    "GitError",
    "Result",
    "add_worktree",
    "allow_fetching",
    "check_worktree",
    "command",
    "common_dir",
    "environment",
    "head",
    "is_repo",
    "project_in",
    "remove_worktree",
    "run",
    "toplevel",
    "version",
    "without_filters",
    "worktree_paths",
    "worktree_risk",
]
