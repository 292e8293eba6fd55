"""The command line of pi, for those who start it and those who show it. Pure, and cheap to import: pi waits for it."""

from pathlib import Path

from ralph_rpc.model.config import Config


def pi_argv(config: Config, sessions: Path, fallback: str | None = None) -> list[str]:
    """The command line of pi in RPC mode, or with `--backend print` of the one that gets a single prompt.

    `fallback` is the PROVIDER/ID of a model that takes the place of the loop's.
    """
    mode = ["-p", "--mode", "json"] if prints(config) else ["--mode", "rpc"]
    argv = [*config["pi"], *mode, "--session-dir", str(sessions.absolute())]
    provider, model = config["provider"], config["model"]
    if fallback is not None:
        provider, _, model = fallback.partition("/")
    for flag, value in (("--provider", provider), ("--model", model), ("--thinking", config["thinking"])):
        if value is not None:
            argv += [flag, value]
    for extension in config["extensions"]:
        argv += ["--extension", extension]
    for skill in config["skills"]:
        argv += ["--skill", skill]
    if config["approve"] is not None:
        argv.append("--approve" if config["approve"] else "--no-approve")
    return argv + config["piArgs"]


def prints(config: Config) -> bool:
    """Whether each prompt gets a pi of its own."""
    return config.get("backend") == "print"


def held(argv: list[str], config: Config, python: str) -> list[str]:
    """What is started: pi, or the program that makes a session out of one-shot pis."""
    if not prints(config):
        return argv
    # Imported here: others need none of it.
    from ralph_rpc.machine.carried import carried

    return [python, *carried(Path(__file__).with_name("one_shot.py")), *argv]
