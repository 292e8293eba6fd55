"""git: the one place that spells its commands.

`calls` says how git is called; `repository` what it knows of its checkouts, and the lock under which they
change; `worktrees` is for task loops. Of ticket loops, `target` judges the branch that work goes to,
`ticket_trees` gives each ticket its worktree, `leftovers` commits what the agent left, `merge` brings it to
the branch, and `checkout` takes a person's checkout of that branch along.
"""

from ralph_rpc.git.calls import (
    OLDEST,
    GitError,
    Result,
    command,
    environment,
    head,
    is_repo,
    run,
    toplevel,
    version,
)
from ralph_rpc.git.worktrees import (
    add_worktree,
    check_worktree,
    project_in,
    remove_worktree,
    worktree_paths,
    worktree_risk,
)

__all__ = [
    "OLDEST", "GitError", "Result", "add_worktree", "check_worktree", "command", "environment", "head", "is_repo",
    "project_in", "remove_worktree", "run", "toplevel", "version", "worktree_paths", "worktree_risk",
]  # fmt: skip
