"""Whether another loop works in the same checkout: two agents there would overwrite each other's files.

Called by `start` and `resume` before anything is made; only looks. Two starts in the same instant may both pass.
"""

from ralph_rpc import git
from ralph_rpc.errors import AlreadyRunning
from ralph_rpc.files import records
from ralph_rpc.files.atomic import Unreadable
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.loops.find import loops_of, registered
from ralph_rpc.loops.status import loop_status
from ralph_rpc.model.config import Config


def check_checkout(paths: LoopPaths, config: Config) -> None:
    """Raises AlreadyRunning where another loop whose runner lives works in the checkout that this one would work in."""
    if config.get("shareCheckout") or not _works_in_checkout(config):
        return
    others = [one for one in dict.fromkeys((*loops_of(paths.project), *registered())) if one != paths and _lives(one)]
    if not others:
        return
    top = git.toplevel(paths.project) or paths.project
    for other in others:
        if other.project.is_relative_to(top) and (git.toplevel(other.project) or other.project) == top:
            where = "" if other.project == paths.project else f" ({other.project})"
            raise AlreadyRunning(
                f"loop {other.name!r}{where} works in this checkout, and two would overwrite each other's files",
                "give this one a tree of its own with --worktree BRANCH, or say that it is meant with --share-checkout",
            )


def _lives(loop: LoopPaths) -> bool:
    if loop_status(loop).runner == "dead":
        return False
    try:
        config = records.read_config(loop)
    except Unreadable:
        return False
    return config is not None and _works_in_checkout(config)


def _works_in_checkout(config: Config) -> bool:
    """Not in worktrees of its own."""
    return config["worktree"] is None and not (config.get("tickets") and config.get("worktrees"))
