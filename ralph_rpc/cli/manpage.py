"""The man page, made from the same texts as the help: `python -m ralph_rpc.cli.manpage docs/ralph-rpc.1`.

A test compares the file in the repository with what this would write. The wheel carries it to share/man/man1.
"""

import inspect
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from ralph_rpc.cli.examples import EXAMPLES
from ralph_rpc.cli.grouped import GROUPS, OTHERS, TaskCommand, group_of
from ralph_rpc.cli.main import ALIASES, COMMANDS, program

EXIT_CODES = (
    (0, "fine, or completed"),
    (1, "the loop ended in error"),
    (2, "wrong usage, or content that you have not agreed to"),
    (3, "there is no such loop"),
    (4, "it runs already"),
    (5, "pi is missing or unusable"),
    (6, "it does not run, where that is no success"),
    (10, "stopped by a limit or by request"),
    (11, "all is done but tickets that need a person"),
    (70, "a bug in ralph-rpc"),
    (124, "--timeout has passed"),
    (130, "interrupted"),
)
_FILES = (
    (".ralph/NAME/", "the files of a loop: task.md, state.json, events.jsonl, iterations/, inbox/, runner.log"),
    (".ralph/config.toml", "defaults of a project, such as: max-cost = 5"),
    ("~/.config/ralph-rpc/config.toml", "your own defaults"),
    ("~/.ralph/registry/", "one file for each live loop; RALPH_HOME replaces ~/.ralph"),
)


def manpage() -> str:
    """The page, as roff."""
    return "\n".join(_page()) + "\n"


def _page() -> Iterator[str]:
    yield '.TH RALPH-RPC 1 "" "ralph-rpc" "User Commands"'
    yield from (".SH NAME", r"ralph\-rpc \- runs coding-agent loops unattended", ".SH SYNOPSIS")
    yield r".B ralph\-rpc"
    yield r"[\-\-debug] COMMAND [ARGS]..."
    yield ".SH DESCRIPTION"
    yield from _paragraphs(program.help or "")
    yield from (".PP", _text("Short names: " + ", ".join(f"{one} for {other}" for one, other in ALIASES.items()) + "."))
    yield ".SH COMMANDS"
    with click.Context(program, info_name="ralph-rpc", help_option_names=["-h", "--help"]) as ctx:
        for name in COMMANDS:
            yield from _command(ctx, name)
    yield ".SH EXIT STATUS"
    yield from _tagged((str(code), meaning) for code, meaning in EXIT_CODES)
    yield ".SH FILES"
    yield from _tagged(_FILES)


def _command(ctx: click.Context, name: str) -> Iterator[str]:
    command = program.get_command(ctx, name)
    assert command is not None
    yield f'.SS "{_text(name)}"'
    with command.make_context(name, [], ctx, resilient_parsing=True) as about:
        pieces = " ".join(command.collect_usage_pieces(about))
        yield from (f".B ralph\\-rpc {_text(name)}", _text(pieces))
        yield from _paragraphs(command.help or "")
        yield from _options(command, about)
    yield from (".PP", "Examples:", ".PP", ".nf")
    yield from (_text(f"    {line}") for line in EXAMPLES.get(name, ()))
    yield ".fi"


def _options(command: click.Command, about: click.Context) -> Iterator[str]:
    """In the groups of the help, where it has groups."""
    grouped = isinstance(command, TaskCommand)
    groups: dict[str, list[tuple[str, str]]] = {title: [] for title in (*GROUPS, OTHERS)}
    for param in command.get_params(about):
        record = param.get_help_record(about) if isinstance(param, click.Option) else None
        if record is not None and "--help" not in param.opts:
            groups[group_of(param) if grouped else OTHERS].append(record)
    for title, records in groups.items():
        if records and grouped:
            yield from (".PP", f".I {_text(title)}")
        yield from _tagged(records)


def _tagged(pairs: Iterable[tuple[str, str]]) -> Iterator[str]:
    for tag, text in pairs:
        yield from (".TP", f".B {_text(tag)}", _text(text))


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        yield from (".PP", _text(" ".join(paragraph.split())))


def _text(text: str) -> str:
    """A line in which nothing is an instruction."""
    line = text.replace("\\", r"\e").replace("-", r"\-").replace("'", r"\(aq")
    return f"\\&{line}" if line.startswith((".", "'")) else line


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(manpage())
