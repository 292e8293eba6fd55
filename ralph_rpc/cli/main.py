"""The program: its commands, loaded when they are called, and the boundary where errors become one line.

A failure that a person can act on is printed as `ralph-rpc: <message>. <hint>`; anything else is a bug, and
its traceback goes to a file that the line names. `--debug` shows tracebacks instead.
"""

import importlib
import os
import sys
import time
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import Any, NoReturn

import click

from ralph_rpc import __version__
from ralph_rpc.errors import ENDED_IN_ERROR, INTERRUPTED, OK, USAGE, RalphError

COMMANDS: dict[str, tuple[str, str]] = {
    "start": ("ralph_rpc.cli.start:start", "Create a loop and start it."),
    "resume": ("ralph_rpc.cli.resume:resume", "Go on with a paused, stopped, crashed or failed loop."),
    "stop": ("ralph_rpc.cli.control:stop", "End loops after this iteration, or now."),
    "abort": ("ralph_rpc.cli.control:abort", "End the current iteration at once."),
    "pause": ("ralph_rpc.cli.control:pause", "Hold a loop before its next iteration."),
    "steer": ("ralph_rpc.cli.control:steer", "Tell the agent something while it works."),
    "followup": ("ralph_rpc.cli.control:followup", "Tell the agent something when it is done."),
    "kill": ("ralph_rpc.cli.control:kill", "End a loop that does not listen."),
    "status": ("ralph_rpc.cli.status:status", "Show one loop in detail, or all of this project."),
    "list": ("ralph_rpc.cli.list:list_loops", "List loops."),
    "tickets": ("ralph_rpc.cli.tickets:tickets_command", "Show a backlog of tickets: what runs, what waits, and why."),
    "run-ticket": ("ralph_rpc.cli.run_ticket:run_ticket", "Work on one ticket and wait for its end."),
    "attach": ("ralph_rpc.cli.attach:attach", "Watch a loop live, and talk to it."),
    "report": ("ralph_rpc.cli.report:report", "Write a page about what a loop did."),
    "logs": ("ralph_rpc.cli.logs:logs", "Show what a loop did, and follow it."),
    "wait": ("ralph_rpc.cli.wait:wait", "Wait until loops have ended."),
    "clean": ("ralph_rpc.cli.clean:clean", "Remove or archive what ended loops left."),
    "doctor": ("ralph_rpc.cli.doctor:doctor", "Check this machine and mend what can be mended."),
    "demo": ("ralph_rpc.cli.demo:demo", "See the whole thing work, without an account."),
    "schema": ("ralph_rpc.cli.schema:schema", "Print the JSON Schema of a file."),
}
"""Name -> where its click command is, and its line in the help."""


_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class _ReaderLeft(Exception):
    """Nobody reads our stdout any more, as after `| head`."""


class Program(click.Group):
    """Knows its commands by name and help line alone, so that each call imports only the one it needs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            import difflib  # here and below: what only an error needs, every call would pay for

            near = difflib.get_close_matches(cmd_name, COMMANDS, 1)
            ctx.fail(f"no such command {cmd_name!r}" + (f", did you mean {near[0]!r}?" if near else ""))
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # Made another error, since click turns this one into a silent exit code 1.
            raise _ReaderLeft from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_line) for name, (_, help_line) in COMMANDS.items()])


@click.command(cls=Program, invoke_without_command=True, context_settings=_SETTINGS)
@click.version_option(__version__, prog_name="ralph-rpc", message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@click.pass_context
def program(ctx: click.Context, debug: bool) -> None:
    """Runs coding-agent loops unattended: pi gets the same task again and again, each time with a fresh mind.

    Begin with `ralph-rpc demo`, or with `ralph-rpc start NAME -m 'what to do'`.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
        ctx.exit(USAGE)


def main() -> NoReturn:
    """The console script."""
    code = run(sys.argv[1:])
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # nobody reads it any more
            stream.flush()
    # Files are closed and threads have ended by now. To take the interpreter apart, object by object, would be a tenth
    # of what an everyday command costs.
    os._exit(code)


def run(args: list[str]) -> int:
    """One call of the program; returns its exit code. The shell's completion and `sys.exit` pass through."""
    try:
        code = program.main(args, prog_name="ralph-rpc", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else OK
    except (BrokenPipeError, _ReaderLeft):
        # The reader has seen enough. Python would complain again when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return OK
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the boundary: nothing may reach a person as a bare traceback
        # Not from click's context: an error in reading the arguments comes before there is one.
        if "--debug" in takewhile(lambda argument: argument.startswith("-"), args):
            import traceback

            traceback.print_exc()
        else:
            _complain(_explained(error))
        return _code(error)


def _code(error: Exception) -> int:
    if isinstance(error, RalphError):
        return error.code
    return USAGE if isinstance(error, click.UsageError) else ENDED_IN_ERROR


def _explained(error: Exception) -> str:
    if isinstance(error, RalphError):
        return _sentences(error.message, error.hint)
    if isinstance(error, click.UsageError):
        command = error.ctx.command_path if error.ctx else "ralph-rpc"
        return _sentences(error.format_message(), f"Try: {command} --help")
    if isinstance(error, click.ClickException):
        return error.format_message()
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return _sentences(f"internal error, {type(error).__name__}: {error}", _crash_log(error))


def _sentences(first: str, second: str) -> str:
    if not second:
        return first
    if not second.startswith("ralph-rpc"):
        second = second[0].upper() + second[1:]
    return f"{first} {second}" if first.endswith((".", "?", "!")) else f"{first}. {second}"


def _complain(text: str) -> None:
    """One inert line on stderr: paths, names and texts of other programs come along in messages."""
    from ralph_rpc.text import inert

    line = inert(" ".join(text.split()), keep_newlines=False)
    try:
        click.echo(f"ralph-rpc: {line}", err=True)
    except OSError:
        return  # nobody reads stderr


def _crash_log(error: Exception) -> str:
    """Writes the traceback to a file of its own and says where."""
    import traceback

    import platformdirs

    folder = Path(platformdirs.user_log_dir("ralph-rpc"))
    path = folder / f"crash-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(
            f"ralph-rpc {__version__}, Python {sys.version}\n{''.join(traceback.format_exception(error))}"
        )
    except OSError:
        return "Run it again with --debug before the command to see where"
    return f"Please report it with {path}"
