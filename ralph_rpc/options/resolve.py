"""Which value of an option counts, and where it came from.

The command line, else `RALPH_<NAME>`, else `<project>/.ralph/config.toml`, else in a ticket loop
`<project>/.tf/config/settings.json`, else the user's `config.toml`, else the default. The origin travels with the
value, so that every complaint and `--dry-run` can name the place. Everything is checked here, before anything is
created. What the project's file sets and only the user may allow is told apart (`guarded`); whether the user has agreed
is for the caller to ask. Only reads files, writes none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import orjson

from ralph_rpc.errors import UsageError
from ralph_rpc.model.config import Config
from ralph_rpc.options.consent import Guarded, needs_consent
from ralph_rpc.options.environment import from_environment, unknown_variables
from ralph_rpc.options.kinds import ARGUMENTS
from ralph_rpc.options.settings import read_settings
from ralph_rpc.options.table import OPTIONS
from ralph_rpc.options.toml import Sourced, parsed_toml, read_toml, toml_bytes, user_config_file

# The runner itself passes these to pi, or they would end pi's RPC mode.
_OWNED_ARGS = (
    "--mode",
    "--session-dir",
    "--no-session",
    "--session",
    "-c",
    "--continue",
    "-r",
    "--resume",
    "-p",
    "--print",
)

_READ_IN = ("reflect", "ui-answers")
"""Options whose value can be the content of another file."""


@dataclass(frozen=True)
class Resolved:
    """Every option and its origin: `--max-cost`, `RALPH_MAX_COST`, `.ralph/config.toml line 3`, `default`."""

    config: Config
    """`pi` holds what was asked for (nothing, or one path or name); `piVersion` is not known yet."""
    origins: dict[str, str]
    """By option name."""
    reflect: str | None
    """The text of the reflection prompt that was given."""
    guarded: tuple[Guarded, ...] = ()
    """What counts of the project's file only if the user agrees to its content."""
    content: tuple[bytes, ...] = ()
    """That content: the file's, and those of the files that it has read in."""
    settings: bytes = b""
    """What counts of `.tf/config/settings.json`."""
    warnings: tuple[str, ...] = ()
    """What was set and means nothing, each as one line."""


def resolve(cli: Mapping[str, object], project: Path, env: Mapping[str, str], tickets: bool = False) -> Resolved:
    """Every option from the first place that gives it.

    `cli` holds click's parameters; None and () mean not given. For a loop that works on `tickets` there may be one
    place more. Raises UsageError that names the option, the variable, or the file and line.
    """
    found = {option.name: (option.default_value, "default") for option in OPTIONS}
    found |= read_toml(user_config_file())
    data = toml_bytes(project_config_file(project), project)
    of_project = parsed_toml(project_config_file(project), data, project)
    settings = read_settings(project) if tickets else {}
    strangers = unknown_variables(env)
    users = from_environment(env) | _from_cli(cli)
    resolved = _checked(found | settings | of_project | users)
    asked = (
        needs_consent(name, value, found[name][0], origin)
        for name, (value, origin) in (settings | of_project).items()
        if name not in users
    )
    guarded = tuple(one for one in asked if one is not None)
    read_in = (orjson.dumps(of_project[name][0]) for name in _READ_IN if name in of_project)
    return replace(
        resolved,
        guarded=guarded,
        content=(data, *read_in),
        settings=orjson.dumps(settings) if settings else b"",
        warnings=strangers,
    )


def project_config_file(project: Path) -> Path:
    """The project's defaults."""
    return project / ".ralph" / "config.toml"


def guarded_of(stored: Config) -> tuple[Guarded, ...]:
    """What in the options of a loop that was made elsewhere is run or loosened, compared with the user's own defaults."""
    own = {option.name: option.default_value for option in OPTIONS}
    own |= {name: value for name, (value, _) in read_toml(user_config_file()).items()}
    values = cast(Mapping[str, Any], stored)
    asked = (
        needs_consent(option.name, values[option.key], own[option.name], "config.json")
        for option in OPTIONS
        if option.key in values
    )
    return tuple(one for one in asked if one is not None)


def override(stored: Config, cli: Mapping[str, object]) -> Resolved:
    """The options that a loop was started with, replaced by those given on the command line."""
    values = cast(Mapping[str, Any], stored)
    found = {option.name: (values.get(option.key, option.default_value), "config.json") for option in OPTIONS}
    return _checked(found | _from_cli(cli))


def given(cli: Mapping[str, object]) -> list[str]:
    """The names of the options that the command line gives."""
    return [option.name for option in OPTIONS if option.is_given(cli)]


def _from_cli(cli: Mapping[str, object]) -> Sourced:
    found: Sourced = {}
    for option in OPTIONS:
        if not option.is_given(cli):
            continue
        name, value = option.name, cli[option.param]
        origin = f"--{name}"
        if isinstance(value, bool):
            found[name] = (value, origin if value else f"--no-{name}")
        elif option.kind is ARGUMENTS:
            found[name] = (list(cast(Sequence[str], value)), "after --")
        else:
            texts = [value] if isinstance(value, str) else cast(Sequence[str], value)
            found[name] = (option.parse(texts, Path.cwd(), origin), origin)
    return found


def _checked(found: Sourced) -> Resolved:
    values = {name: value for name, (value, _) in found.items()}
    origins = {name: origin for name, (_, origin) in found.items()}
    if values["reflect"] is not None and not values["reflect-every"]:
        raise UsageError(f"{origins['reflect']} needs --reflect-every", "say how often, such as --reflect-every 5")
    for argument in values["pi-args"]:
        flag = argument.split("=", 1)[0]
        if flag in _OWNED_ARGS:
            raise UsageError(
                f"{argument!r} cannot be handed to pi ({origins['pi-args']})",
                "the runner sets pi's mode and sessions itself",
            )
        if flag == "--api-key":
            raise UsageError(
                f"--api-key cannot be handed to pi ({origins['pi-args']}): anyone can see a command line, and it is logged",
                "give pi its key in the environment, or log in with pi itself",
            )
    config = {option.key: values[option.name] for option in OPTIONS if option.key} | {"piVersion": None}
    config["hosts"] = [host for hosts in values["hosts"] for host in hosts.split(",")]
    config["launcherEnv"] = [name for names in values["launcher-env"] for name in names.split(",")]
    return Resolved(cast(Config, config), origins, values["reflect"])
