"""What a person should know before a loop runs, because it will not be as they may expect. Called by `start` and `resume`.

Only reads. What forbids a start is not here: that is an error of its own.
"""

import os
from pathlib import Path

from ralph_rpc import git
from ralph_rpc.loops.backlog_news import news_of
from ralph_rpc.machine.installs import installs_into
from ralph_rpc.model.config import Config
from ralph_rpc.pi.agent_folder import ignored_settings
from ralph_rpc.pi.argv import prints
from ralph_rpc.tickets.ticket import Backlog


def warnings(project: Path, config: Config, backlog: Backlog | None = None) -> tuple[str, ...]:
    """Each as one line; `backlog` is that of a ticket loop."""
    found = list(news_of(backlog, config)) if backlog is not None else []
    if ignored := ignored_settings(project, config, os.environ):
        found.append(
            f"pi will ignore {', '.join(ignored)} of this project: use them with --approve, or say --no-approve"
        )
    if prints(config):
        found.append("--backend print: pi takes no messages while it works; steer and followup head the next prompt")
    if config["worktree"] is not None or config.get("worktrees"):
        found += _led_back(git.toplevel(project) or project)
    return tuple(found)


def _led_back(checkout: Path) -> list[str]:
    """The environments that a worktree would share with the checkout, and by which it would get the checkout's code."""
    packages: dict[str, list[str]] = {}
    for install in installs_into(os.environ, checkout):
        packages.setdefault(install.environment, []).append(install.package)
    return [
        f"{environment} leads into {checkout} ({', '.join(names)}, an editable install or a link): in a worktree, what uses "
        "it tests that code; --worktree-setup can make an environment in each"
        for environment, names in packages.items()
    ]
