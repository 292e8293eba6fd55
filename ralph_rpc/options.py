"""The options of `start` and `resume`: one table, from which click, the environment and the TOML files read.

A value comes from the command line, else `RALPH_<NAME>`, else `<project>/.ralph/config.toml`, else the
user's `config.toml`, else the default; its origin travels with it, so that every complaint and `--dry-run`
can name the place. Everything is checked here, before anything is created. Only reads files, writes none.
"""

import difflib
import os
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

import click

from ralph_rpc.errors import UsageError
from ralph_rpc.files.atomic import read_plain
from ralph_rpc.model.config import Config, Thinking
from ralph_rpc.option_kinds import (
    ANSWERS,
    ARGUMENTS,
    BOOLEAN,
    COMMAND,
    COUNT,
    DURATION,
    FILE,
    LARGEST_FILE,
    LIMIT,
    LINE,
    MONEY,
    NAMES,
    PATHS,
    PROGRAM,
    SIZE,
    THINKING,
    TOKENS,
    WHOLE,
    Kind,
    Wrong,
    checked_answers,
)  # fmt: skip

# What the runner itself says to pi, or what would end pi's RPC mode.
_OWNED_ARGS = (
    "--mode", "--session-dir", "--no-session", "--session",
    "-c", "--continue", "-r", "--resume", "-p", "--print",
)  # fmt: skip


@dataclass(frozen=True)
class Option:
    """One option: `--<name>`, `RALPH_<NAME>` and the TOML key `<name>` are the same."""

    name: str
    key: str
    """Its key in Config; `reflect` has none, its text becomes reflect.md."""
    kind: Kind
    help: str
    default: str | None = None
    """As it would be typed; None is unset."""
    short: str | None = None

    @property
    def param(self) -> str:
        return self.name.replace("-", "_")

    @property
    def env(self) -> str:
        return "RALPH_" + self.param.upper()

    @property
    def is_list(self) -> bool:
        return self.kind in (PATHS, NAMES, ARGUMENTS)


OPTIONS: tuple[Option, ...] = (
    Option("model", "model", LINE, "The model, as pi names it."),
    Option("provider", "provider", LINE, "The model's provider, as pi names it."),
    Option("thinking", "thinking", THINKING, f"Thinking level: {', '.join(get_args(Thinking))}."),
    Option("max-iterations", "maxIterations", WHOLE, "Stop after N iterations; 0: no limit.", "50", "-n"),
    Option("max-cost", "maxCost", MONEY, "Stop when so many US dollars are spent."),
    Option("max-tokens", "maxTokens", TOKENS, "Stop when so many tokens are used (500k, 2M)."),
    Option("max-time", "maxTimeMs", LIMIT, "Stop after this time (30s, 10m, 2h, 1d)."),
    Option("iteration-timeout", "iterationTimeoutMs", DURATION, "Longest iteration; 0: no limit.", "2h"),
    Option("idle-timeout", "idleTimeoutMs", DURATION, "Longest silence of pi; 0: no limit.", "15m"),
    Option("tool-timeout", "toolTimeoutMs", DURATION, "Longest tool call and verify run; 0: no limit.", "1h"),
    Option("max-failures", "maxFailures", WHOLE, "Failed iterations in a row that end the loop.", "10"),
    Option(
        "stall-after", "stallAfter", WHOLE, "Iterations without any change that end the loop; 0: never.", "5"
    ),
    Option("verify", "verify", COMMAND, "Shell command that must exit 0 before a completion counts."),
    Option(
        "marker",
        "marker",
        LINE,
        "Last line of the answer that claims completion.",
        "<promise>COMPLETE</promise>",
    ),
    Option("reflect-every", "reflectEvery", WHOLE, "Reflect in every Nth iteration; 0: never.", "0"),
    Option("reflect", "", FILE, "The reflection prompt; needs --reflect-every."),
    Option("worktree", "worktree", LINE, "Work in a git worktree of this branch, made if it is missing."),
    Option("parallel", "parallel", COUNT, "Tickets worked on at the same time.", "1"),
    Option("attempts", "attempts", COUNT, "Attempts at a ticket before it is set aside.", "3"),
    Option("only", "only", NAMES, "Work on this ticket only; may be repeated."),
    Option("allow-untagged", "allowUntagged", BOOLEAN, "Tickets without a component tag may run beside others."),
    Option("worktrees", "worktrees", BOOLEAN, "A git worktree and a branch for each ticket [if --parallel > 1]."),
    Option("worktree-setup", "worktreeSetup", COMMAND, "Shell command that makes a new worktree ready."),
    Option("worktree-copy", "worktreeCopy", NAMES, "Files not in git that come along (globs); may be repeated."),
    Option("into", "into", LINE, "The branch that tickets are merged into [the one checked out]."),
    Option("merge", "merge", BOOLEAN, "Whether finished tickets are merged, or only kept on their branches."),
    Option("prompt-template", "promptTemplate", COMMAND, "A ticket's prompt, such as '/tf {id} --auto'."),
    Option("lessons-max", "lessonsMax", WHOLE, "Lessons of earlier tickets that are kept.", "50"),
    Option("notify", "notify", COMMAND, "Shell command that is told what needs a person, or desktop."),
    Option("extension", "extensions", PATHS, "A pi extension; may be repeated."),
    Option("skill", "skills", PATHS, "A pi skill; may be repeated."),
    Option("approve", "approve", BOOLEAN, "Whether pi trusts the project's own settings (.pi/)."),
    Option("ui-answers", "uiAnswers", ANSWERS, "Answers to dialogs of pi's extensions, by their titles."),
    Option("log-size", "logSize", SIZE, "Size at which events.jsonl is rotated.", "256M"),
    Option("log-keep", "logKeep", WHOLE, "Rotated logs that are kept.", "4"),
    Option("pi", "pi", PROGRAM, "The pi to run."),
    Option("pi-args", "piArgs", ARGUMENTS, "Further arguments of pi, given after --."),
)
_BY_NAME = {option.name: option for option in OPTIONS}

_Found = dict[str, tuple[Any, str]]
"""Option name -> value, origin."""


@dataclass(frozen=True)
class Resolved:
    """Every option and its origin: `--max-cost`, `RALPH_MAX_COST`, `.ralph/config.toml line 3`, `default`."""

    config: Config
    """`pi` holds what was asked for (nothing or one path or name), `piVersion` nothing yet."""
    origins: dict[str, str]
    """By option name."""
    reflect: str | None
    """The text of the reflection prompt that was given."""


def resolve(cli: Mapping[str, object], project: Path, env: Mapping[str, str]) -> Resolved:
    """Every option from the first place that gives it.

    `cli` holds click's parameters, of which None and () are not given. Raises UsageError that names option,
    variable, or file and line.
    """
    found = {option.name: (_default(option), "default") for option in OPTIONS}
    found |= _from_toml(user_config_file())
    found |= _from_toml(project / ".ralph" / "config.toml", project)
    found |= _from_env(env)
    found |= _from_cli(cli)
    return _checked(found)


def override(stored: Config, cli: Mapping[str, object]) -> Resolved:
    """The options that a loop was started with, replaced by those given on the command line."""
    values = cast(Mapping[str, Any], stored)
    found = {option.name: (values.get(option.key, _default(option)), "config.json") for option in OPTIONS}
    return _checked(found | _from_cli(cli))


def given(cli: Mapping[str, object]) -> list[str]:
    """The names of the options that the command line gives."""
    return [option.name for option in OPTIONS if cli.get(option.param) not in (None, ())]


class OptionsCommand(click.Command):
    """A command with the options of the table; what follows `--` are pi's arguments, and nothing else is.

    Without this, `start api fix the bug` would hand three words to pi instead of refusing them.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        split = args.index("--") if "--" in args else len(args)
        ctx.params["pi_args"] = tuple(args[split + 1 :])
        return super().parse_args(ctx, args[:split])

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return [*super().collect_usage_pieces(ctx), "[-- PI_ARGS...]"]


def click_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Declares the table's options on an OptionsCommand. click only collects texts; `resolve` judges them."""
    for option in reversed(OPTIONS):
        if option.kind is ARGUMENTS:
            continue
        help_text = option.help if option.default is None else f"{option.help} [{option.default}]"
        if option.kind is BOOLEAN:
            switch = f"--{option.name}/--no-{option.name}"
            command = click.option(switch, option.param, default=None, help=help_text)(command)
        else:
            flags = [flag for flag in (option.short, f"--{option.name}") if flag]
            command = click.option(
                *flags, option.param, metavar=option.kind.metavar, multiple=option.is_list, help=help_text
            )(command)
    return command


def user_config_file() -> Path:
    """The user's own defaults for every project."""
    import platformdirs

    return Path(platformdirs.user_config_dir("ralph-rpc")) / "config.toml"


def _default(option: Option) -> Any:
    if option.default is not None:
        return option.kind.parse(option.default, Path("/"))
    if option.is_list or option.kind is PROGRAM:
        return []
    return {} if option.kind is ANSWERS else None


def _parsed(option: Option, texts: Sequence[str], folder: Path, origin: str) -> Any:
    """The value of one option from its texts; more than one only for lists."""
    try:
        if option.kind in (PATHS, NAMES):
            return [option.kind.parse(text, folder) for text in texts]
        return option.kind.parse(texts[0], folder)
    except Wrong as error:
        raise UsageError(f"{origin}: {error}") from None


def _from_cli(cli: Mapping[str, object]) -> _Found:
    found: _Found = {}
    for name in given(cli):
        option = _BY_NAME[name]
        value = cli[option.param]
        origin = f"--{name}"
        if isinstance(value, bool):
            found[name] = (value, origin if value else f"--no-{name}")
        elif option.kind is ARGUMENTS:
            found[name] = (list(cast(Sequence[str], value)), "after --")
        else:
            texts = [value] if isinstance(value, str) else cast(Sequence[str], value)
            found[name] = (_parsed(option, texts, Path.cwd(), origin), origin)
    return found


def _from_env(env: Mapping[str, str]) -> _Found:
    found: _Found = {}
    for option in OPTIONS:
        text = env.get(option.env, "")
        if text:
            texts = [part for part in text.split(os.pathsep) if part] if option.kind in (PATHS, NAMES) else [text]
            found[option.name] = (_parsed(option, texts, Path.cwd(), option.env), option.env)
    return found


def _from_toml(path: Path, project: Path | None = None) -> _Found:
    """One TOML file, all of it checked. Relative paths count from the project, or from the file's folder."""
    shown = str(path.relative_to(project)) if project else _short(path)
    try:
        data = read_plain(path, LARGEST_FILE)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise UsageError(f"cannot read {shown}: {error.strerror}") from error
    if len(data) > LARGEST_FILE:
        raise UsageError(f"{shown} is larger than 1 MiB")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{shown} is not UTF-8 (byte {error.start})") from None
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{shown} {_toml_trouble(error, text)}") from None
    found: _Found = {}
    for name, value in table.items():
        origin = f"{shown} line {_line_of(name, text)}"
        option = _BY_NAME.get(name)
        if option is None:
            near = difflib.get_close_matches(name.replace("_", "-").lower(), _BY_NAME, 1, 0.5)
            known = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(_BY_NAME)}"
            raise UsageError(f"{origin}: unknown key {name!r}", known)
        found[name] = (_toml_value(option, value, project or path.parent, origin), origin)
    return found


def _toml_value(option: Option, value: object, folder: Path, origin: str) -> Any:
    origin = f"{origin}: {option.name}"
    # bool is an int to Python, but max-iterations = true is a mistake.
    if not isinstance(value, option.kind.toml) or isinstance(value, bool) != (option.kind is BOOLEAN):
        raise UsageError(f"{origin}: {option.kind.expects}")
    if isinstance(value, bool):
        return value
    if isinstance(value, dict):
        try:
            return checked_answers(value, "must be")
        except Wrong as error:
            raise UsageError(f"{origin}: {error}") from None
    if isinstance(value, list):
        texts = cast(list[object], value)
        if not all(isinstance(text, str) and text and "\0" not in text for text in texts):
            raise UsageError(f"{origin}: {option.kind.expects}")
        return texts if option.kind is ARGUMENTS else _parsed(option, cast(list[str], texts), folder, origin)
    text = format(value, "f") if isinstance(value, float) else str(value)
    return _parsed(option, [text], folder, origin)


def _toml_trouble(error: tomllib.TOMLDecodeError, text: str) -> str:
    match = re.fullmatch(r"(.*?) \(at (?:line (\d+), column \d+|end of document)\)", str(error), re.DOTALL)
    if match is None:
        return f"is not TOML: {error}"
    line = match[2] or len(text.rstrip().split("\n"))
    return f"line {line} is not TOML: {match[1]}"


def _line_of(name: str, text: str) -> int:
    """The line that first sets a top-level key."""
    # tomllib doesn't tell. What looks like the key counts if the text before it parses by itself.
    lines = text.split("\n")
    key = re.compile(
        rf"""\s*(?:\[+\s*)?(?:"{re.escape(name)}"|'{re.escape(name)}'|{re.escape(name)})\s*[=.\]]"""
    )
    for number, line in enumerate(lines, 1):
        if key.match(line):
            try:
                if name not in tomllib.loads("\n".join(lines[: number - 1])):
                    return number
            except tomllib.TOMLDecodeError:
                continue  # inside a multi-line text
    return 1


def _short(path: Path) -> str:
    try:
        return str(Path("~") / path.relative_to(Path.home()))
    except ValueError:
        return str(path)


def _checked(found: _Found) -> Resolved:
    values = {name: value for name, (value, _) in found.items()}
    origins = {name: origin for name, (_, origin) in found.items()}
    if values["reflect"] is not None and not values["reflect-every"]:
        raise UsageError(
            f"{origins['reflect']} needs --reflect-every", "say how often, such as --reflect-every 5"
        )
    for argument in values["pi-args"]:
        flag = argument.split("=", 1)[0]
        if flag in _OWNED_ARGS:
            raise UsageError(
                f"{argument!r} cannot be handed to pi ({origins['pi-args']})",
                "the runner itself decides pi's mode and sessions",
            )
        if flag == "--api-key":
            raise UsageError(
                f"--api-key cannot be handed to pi ({origins['pi-args']}): everyone sees a command line, and it is logged",
                "give pi its key in the environment, or log in with pi itself",
            )
    config = {option.key: values[option.name] for option in OPTIONS if option.key} | {"piVersion": None}
    return Resolved(cast(Config, config), origins, values["reflect"])
