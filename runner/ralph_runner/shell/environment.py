"""The environment of pi and of the commands that a runner starts, made from our own. Only looks."""

import os
from pathlib import Path

from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.machine.leads import Cleaned, without_leads
from ralph_rpc.model.config import Config

UNATTENDED = {
    "GIT_EDITOR": "true",
    "GIT_SEQUENCE_EDITOR": "true",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_PAGER": "cat",
    "PAGER": "cat",
    "EDITOR": "true",
    "VISUAL": "true",
    "DEBIAN_FRONTEND": "noninteractive",
    "PI_SKIP_VERSION_CHECK": "1",
    "PI_OFFLINE": "1",
}
"""What keeps a command from waiting for a person: no editor, pager or question. Set unless the user's environment has it.

`sudo` and `ssh` ask on the terminal, and find none. What asks on its stdin gets its end."""


def worktree_of(paths: LoopPaths, config: Config) -> Path | None:
    """The worktree that a task loop works in, if it has one."""
    return paths.worktree if config["worktree"] is not None else None


def child_environment(
    paths: LoopPaths, tmp: Path, ticket: str | None = None, own: Path | None = None
) -> dict[str, str]:
    """Ours, with the marks by which the loop's whole tree is found again, and a TMPDIR that is removed with the loop.

    TMPDIR matters: pi leaves a file there for every long tool output and never deletes one. For work in the worktree `own`,
    without what leads into the project's checkout.
    """
    env = dict(os.environ)
    env.pop("RALPH_NOTIFY", None)  # its address can be a secret, and none of these programs needs it
    env["RALPH_LOOP"] = paths.name
    env["RALPH_LOOP_DIR"] = str(paths.dir)
    env["TMPDIR"] = str(tmp)
    if ticket is not None:
        env["RALPH_TICKET"] = ticket
    if own is not None:
        env = without_leads(env, checkout_of(paths), own).env
    return {**UNATTENDED, **env}


def told_of(cleaned: Cleaned, checkout: Path) -> str | None:
    """What was taken out of the environment for work in a worktree, for the log; None if nothing was."""
    if not cleaned.removed:
        return None
    how = "--worktree-setup can make an environment in each"
    return f"in worktrees, without what leads into {checkout}: {', '.join(cleaned.removed)}; {how}"


def checkout_of(paths: LoopPaths) -> Path:
    """The checkout that holds the project, found without git, as pi waits for this."""
    project = paths.project
    return next((folder for folder in (project, *project.parents) if (folder / ".git").exists()), project)
