"""The command line of pi, for those who start it and those who show it. Pure, and cheap to import: pi waits for it."""

from pathlib import Path

from ralph_rpc.model.config import Config


def pi_argv(config: Config, sessions: Path) -> list[str]:
    """The command line of pi in RPC mode."""
    argv = [*config["pi"], "--mode", "rpc", "--session-dir", str(sessions.absolute())]
    for flag, value in (
        ("--provider", config["provider"]), ("--model", config["model"]), ("--thinking", config["thinking"]),
    ):  # fmt: skip
        if value is not None:
            argv += [flag, value]
    for extension in config["extensions"]:
        argv += ["--extension", extension]
    for skill in config["skills"]:
        argv += ["--skill", skill]
    if config["approve"] is not None:
        argv.append("--approve" if config["approve"] else "--no-approve")
    return argv + config["piArgs"]
