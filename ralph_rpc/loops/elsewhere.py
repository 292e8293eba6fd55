"""Whether a launcher can be used from here, and which pi is to be run behind it. Called by `start` and `resume`.

Only looks: what is over there is known when something runs there.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from ralph_rpc.errors import PiUnusable, UsageError
from ralph_rpc.launchers import presets
from ralph_rpc.launchers.boxes import hides_home
from ralph_rpc.launchers.hosts import parse_hosts
from ralph_rpc.machine.programs import on_path
from ralph_rpc.model.config import Config
from ralph_rpc.pi.find import find_pi, with_version

_PACKAGES = {"srun": "slurm-client", "ssh": "openssh-client", "bwrap": "bubblewrap", "podman": "podman"}
VIA_SSH = "ssh:{host}"
"""How the machines of --hosts are reached where --launcher says nothing else."""
_SHARES_PATHS = ("srun", "prefix")
"""Launchers behind which a path mostly means the same as here."""


def check_launcher(config: Config, project: Path) -> None:
    """Raises PiUnusable or UsageError where the launcher could not start anything, or would not do what it is for."""
    text = config.get("launcher")
    hosts = _hosts(config)
    if hosts and text is not None and "{host}" not in text:
        raise UsageError(
            f"--launcher {text} names no {{host}}", "with --hosts it says how each is reached: 'ssh:-p 22 {host}'"
        )
    if not hosts and text is not None and "{host}" in text:
        raise UsageError("{host} in --launcher needs --hosts", "name the machines: --hosts a:4,b:4")
    if hosts and text is None:
        text = VIA_SSH
    if text is None:
        if config.get("launcherEnv"):
            raise UsageError("--launcher-env needs --launcher", "here pi has your whole environment anyway")
        return
    launcher = presets.parse(text)
    if shutil.which(launcher.program) is None:
        package = _PACKAGES.get(launcher.program)
        hint = f"install it: apt install {package}" if package else f"presets are {', '.join(presets.PRESETS)}"
        raise PiUnusable(f"--launcher {text}: there is no program {launcher.program!r} here", hint)
    missing = [name for name in config.get("launcherEnv", ()) if name not in os.environ]
    if missing:
        raise UsageError(
            f"--launcher-env {','.join(missing)}: not set in your environment", "export it, or leave it out"
        )
    if launcher.kind == "bwrap" and not hides_home(project, Path.home()):
        raise UsageError(
            f"--launcher bwrap cannot hide your home, as it is in the project {project}", "use a smaller project"
        )


def with_slots(config: Config, origins: Mapping[str, str]) -> Config:
    """With --hosts, the launcher that reaches them, and no more tickets at a time than they have slots."""
    hosts = _hosts(config)
    if not hosts:
        return config
    slots = sum(hosts.values())
    given = origins.get("parallel", "config.json") != "default"
    parallel = min(slots, config.get("parallel", slots)) if given else slots
    return {**config, "launcher": config.get("launcher") or VIA_SSH, "parallel": parallel, "worktrees": True}


def _hosts(config: Config) -> dict[str, int]:
    try:
        return parse_hosts(config.get("hosts", ()))
    except ValueError as error:
        raise UsageError(f"--hosts: {error}") from None


def runs_here(config: Config) -> bool:
    """Whether pi is to be found on this machine: without a launcher, and in a box that shows its files."""
    if config.get("engine") is not None:
        return False
    text = config.get("launcher") or (VIA_SSH if config.get("hosts") else None)
    return text is None or presets.parse(text).kind in presets.HERE


def with_far_pi(config: Config, ask: bool = True, inside: bool = False) -> Config:
    """The options with the words that are pi over there: as given, else the name alone.

    A path that is the same there is made into what it takes to run it, such as node and a script; without `ask` nothing is
    run for that.
    """
    if config.get("engine") is not None:  # a job looks for its pi where it runs
        return {**config, "pi": config["pi"] or ["pi"], "piVersion": None}
    given = config["pi"][-1] if config["pi"] else None
    if presets.parse(config.get("launcher") or VIA_SSH).kind in _SHARES_PATHS:
        if given is not None and Path(given).is_file():
            found = find_pi(given, inside)
            pi = with_version(found, inside) if ask else found
            return {**config, "pi": pi.command, "piVersion": pi.version}
        if given is None and on_path("pi") is None:
            try:
                pi = find_pi(None, inside)  # the one that this program has installed
            except PiUnusable:
                pass
            else:
                return {**config, "pi": pi.command, "piVersion": pi.version}
    return {**config, "pi": config["pi"] or ["pi"], "piVersion": None}
