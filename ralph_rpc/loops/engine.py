"""Whether jobs on an engine can do a loop's tickets, looked at before anything is made. Called by `start` and `resume`.

Only looks, but for a ref that is set at the hub and removed again: one that cannot be pushed to would be found out by
the first job, hours later.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ralph_rpc.errors import UsageError
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.git import hub as hubs
from ralph_rpc.git.calls import GitError, toplevel
from ralph_rpc.git.repository import branch_head
from ralph_rpc.launchers import engines
from ralph_rpc.model.config import Config

_NOT_THERE = {
    "launcher": "a job's pi runs beside its runner, wherever that is",
    "hosts": "the engine chooses the machine",
    "launcherEnv": "keys would stand in the engine's files: let pi log in there, with its own auth.json",
    "worktreeCopy": "a job works in a clone, which has no untracked files: bring them by --worktree-setup",
}


def check_engine(config: Config) -> None:
    """Raises UsageError where the engine cannot be used from here, or not together with other options."""
    text = config.get("engine")
    if text is None:
        return
    values: Mapping[str, Any] = {**config}
    for key, why in _NOT_THERE.items():
        if values.get(key):
            name = "--" + "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in key)
            raise UsageError(f"--engine and {name} exclude each other", why)
    engine = engines.parse(text)
    if (missing := engines.lacks(engine)) is not None:
        raise UsageError(f"--engine {engine.kind}: {missing[0]}", missing[1])
    hub = config.get("hub")
    if engine.kind == "kubernetes" and (hub is None or Path(hub).exists()):
        raise UsageError(
            "--engine kubernetes needs a --hub that its pods can reach", "give the address of a repository"
        )


def with_engine(project: Path, config: Config, origins: Mapping[str, str], tickets: str) -> Config:
    """The options of a ticket loop whose tickets are done by jobs. UsageError where they cannot do them."""
    if config.get("engine") is None:
        if origins.get("hub", "").startswith("--"):
            raise UsageError("--hub needs --engine", "it is where jobs find their work")
        return config
    if config.get("worktrees") is False:
        raise UsageError(
            "--engine and --no-worktrees exclude each other", "each ticket's work comes on a branch of its own"
        )
    top = toplevel(project)
    if top is not None and not Path(tickets).is_relative_to(project.resolve()):
        raise UsageError(f"the tickets in {tickets} lie outside of {project}", "jobs have a clone of the project alone")
    hub = config.get("hub")
    if hub is not None and Path(hub).exists():
        hub = str(Path(hub).resolve())
        if top is not None and hubs.is_own(top, hub):
            hub = None
    return {**config, "worktrees": True, "hub": hub}


def try_hub(paths: LoopPaths, config: Config) -> None:
    """Raises UsageError unless a ref can be set at the hub, which is removed again."""
    hub, into = config.get("hub"), config.get("into")
    if config.get("engine") is None or hub is None or into is None:
        return
    ref = f"refs/ralph/{paths.name}/trial"
    try:
        hubs.publish(paths.project, hub, {ref: branch_head(paths.project, into)})
        hubs.publish(paths.project, hub, {ref: None})
    except GitError as error:
        raise UsageError(
            f"--hub {hub}: nothing can be pushed there: {error.reason}", "jobs find and leave their work there"
        ) from error
