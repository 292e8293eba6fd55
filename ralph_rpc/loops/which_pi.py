"""Which pi a loop runs, looked for and checked before anything is made. Called by `start` and `resume`."""

from pathlib import Path

from ralph_rpc.errors import PiUnusable, UsageError
from ralph_rpc.loops.elsewhere import runs_here, with_far_pi
from ralph_rpc.model.config import Config
from ralph_rpc.pi.find import check_version, find_pi, numbers, package_of, probe_version

APPROVE_SINCE = "0.79.0"


def with_pi(config: Config, ask: bool = True, inside: bool = False) -> Config:
    """The options with the pi that is really there; PiUnusable or UsageError where it cannot serve.

    Without `ask` it is not run, and its version stays unknown where no package around it tells. It is asked `inside` of
    the working folder only where the loop is to run.
    """
    if not runs_here(config):
        return with_far_pi(config, ask, inside)
    # The last word: a stored command may be node and pi's script, and node may have been updated since.
    pi = find_pi(config["pi"][-1] if config["pi"] else None, inside)
    version = pi.version
    if version is None and ask:
        # Only for wrappers, whose package cannot be found: asking costs a second.
        version = probe_version(pi, inside)
        if version is None:
            raise PiUnusable(f"{pi.command[-1]} does not name a version of pi", "Is it pi? Try it with --version")
    check_version(type(pi)(pi.command, version, pi.source))
    config = {**config, "pi": pi.command, "piVersion": version}
    _check_approve(config)
    return config


def with_stored_pi(config: Config) -> Config:
    """The same, with the pi that the loop was started with, as new as it is by now; another where that one is gone."""
    if not runs_here(config):
        return config
    stored = [Path(word) for word in config["pi"]]
    if not stored or not stored[-1].is_file():
        return with_pi({**config, "pi": []}, inside=True)
    try:
        return with_pi(config, inside=True)
    except PiUnusable:
        # The PATH of a boot or a cron job may lack the node that the loop was started with.
        version = (package_of(stored[-1]) or {}).get("version")
        if not isinstance(version, str) or len(stored) < 2 or not stored[0].is_file():
            raise
        return {**config, "piVersion": version}


def _check_approve(config: Config) -> None:
    """Raises UsageError where pi would end at once because it does not know --approve."""
    version = config["piVersion"]
    if config["approve"] is not None and version is not None and numbers(version) < numbers(APPROVE_SINCE):
        flag = "--approve" if config["approve"] else "--no-approve"
        raise UsageError(
            f"pi {version} does not know {flag}", f"it needs {APPROVE_SINCE}; older pi always trusts the project"
        )
