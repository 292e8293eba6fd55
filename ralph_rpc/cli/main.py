"""The program: its commands, loaded when they are called, and the boundary where errors become one line.

A failure that a person can act on is printed as `ralph-rpc: <message>. <hint>`; anything else is a bug: it exits with 70, and
its traceback goes to a file that the line names (`cli/crashlog.py`). `--debug` shows tracebacks instead.
"""

import importlib
import os
import sys
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import Any, NoReturn

import click

from ralph_rpc import __version__
from ralph_rpc.errors import ENDED_IN_ERROR, INTERNAL_ERROR, INTERRUPTED, OK, USAGE, RalphError
from ralph_rpc.machine.upward import PassedOver, passed_over
from ralph_rpc.terminal.screen import show_in_any_encoding

COMMANDS: dict[str, tuple[str, str]] = {
    "start": ("ralph_rpc.cli.start:start", "Create a loop and start it."),
    "resume": ("ralph_rpc.cli.resume:resume", "Continue a paused, stopped, crashed or failed loop."),
    "stop": ("ralph_rpc.cli.stop:stop", "End loops after this iteration, or now."),
    "abort": ("ralph_rpc.cli.abort:abort", "End the current iteration at once."),
    "pause": ("ralph_rpc.cli.pause:pause", "Hold a loop before its next iteration."),
    "steer": ("ralph_rpc.cli.steer:steer", "Tell the agent something while it works."),
    "followup": ("ralph_rpc.cli.followup:followup", "Tell the agent something when it is done."),
    "kill": ("ralph_rpc.cli.kill:kill", "End a loop that does not listen."),
    "status": ("ralph_rpc.cli.status:status", "Show one loop in detail, or all of this project."),
    "list": ("ralph_rpc.cli.list:list_loops", "List loops."),
    "tickets": ("ralph_rpc.cli.tickets:tickets_command", "Show a backlog of tickets: what runs, what waits, and why."),
    "tickets add": ("ralph_rpc.cli.tickets_add:tickets_add", "Write a new ticket."),
    "run-ticket": ("ralph_rpc.cli.run_ticket:run_ticket", "Work on one ticket and wait for its end."),
    "work": ("ralph_rpc.cli.work:work", "Work on one ticket in a clone, as a job of an engine."),
    "attach": ("ralph_rpc.cli.attach:attach", "Watch a loop live, and talk to it."),
    "report": ("ralph_rpc.cli.report:report", "Write a page about what a loop did."),
    "logs": ("ralph_rpc.cli.logs:logs", "Show what a loop did, and follow it."),
    "wait": ("ralph_rpc.cli.wait:wait", "Wait until loops have ended."),
    "clean": ("ralph_rpc.cli.clean:clean", "Remove or archive what ended loops left."),
    "doctor": ("ralph_rpc.cli.doctor:doctor", "Check this machine, and fix what can be fixed."),
    "pi-extension": ("ralph_rpc.cli.pi_extension:pi_extension", "Watch, steer and start loops from inside pi."),
    "demo": ("ralph_rpc.cli.demo:demo", "See the whole thing work, without an account."),
    "pi": ("ralph_rpc.cli.pi:run_pi", "Run the pi that loops use: to log in, to update it."),
    "trust": ("ralph_rpc.cli.trust:trust", "Agree to what a project's files would run."),
    "schema": ("ralph_rpc.cli.schema:schema", "Print the JSON Schema of a file."),
    "completion": ("ralph_rpc.cli.completion:completion", "Print or install the shell's completion."),
    "help": ("ralph_rpc.cli.help:help_command", "Show the help of a command."),
    "version": ("ralph_rpc.cli.help:version", "Show the version."),
}
"""Name -> where its click command is, and its line in the help."""

ALIASES = {"ls": "list", "ps": "list", "rm": "clean"}
"""Names that people type out of habit -> the command that they get."""

_HABITS = {
    "new": "start",
    "run": "start",
    "create": "start",
    "restart": "resume",
    "continue": "resume",
    "tail": "logs -f",
    "watch": "attach",
    "cancel": "stop",
    "delete": "clean",
    "ticket": "tickets",
    "login": "pi",
}
"""Names that could mean several things -> what is offered."""

_PROGRAMS = ("ralph-rpc", "git ", "pip ", "npm ", "chmod ", "tk ")
"""A hint that begins with a command keeps it as it is typed."""

_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


_REFUSING = ("start", "run-ticket", "work", "resume", "stop", "abort", "pause", "steer", "followup", "kill", "clean")
"""Commands whose own error may name what was skipped: then it is not said twice."""


class _ReaderLeft(Exception):
    """Nobody reads our stdout any more, as after `| head`."""


class Program(click.Group):
    """Knows its commands by name and help line alone, so that each call imports only the one it needs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        both = " ".join(args[:2])
        if " " in both and both in COMMANDS:
            return both, self.get_command(ctx, both), args[2:]
        name, command, rest = super().resolve_command(ctx, args)
        return ALIASES.get(name or "", name), command, rest

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        cmd_name = ALIASES.get(cmd_name, cmd_name)
        if cmd_name not in COMMANDS:
            import difflib  # here and below: what only an error needs, every call would pay for

            meant = _HABITS.get(cmd_name)
            near = [meant] if meant else difflib.get_close_matches(cmd_name, COMMANDS, 1)
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
        others = ", ".join(f"{alias} for {name}" for alias, name in ALIASES.items())
        formatter.write(f"\nShort: {others}. Options and examples: ralph-rpc help COMMAND\n")


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
    show_in_any_encoding(sys.stdout, sys.stderr)
    above = _passed_over(args)
    if above is not None and args[0] not in _REFUSING:
        _complain(above.told)
        above = None
    try:
        code = program.main(args, prog_name="ralph-rpc", standalone_mode=False)
        if above is not None:
            _complain(above.told)
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
            told = _explained(error, args)
            if above is not None and str(above.path) not in told:
                _complain(above.told)
            _complain(told)
        return _code(error)


def _passed_over(args: list[str]) -> PassedOver | None:
    """What somebody else has put into our way, where the command looks around and was not told where."""
    completes = "_RALPH_RPC_COMPLETE" in os.environ
    if completes or all(one.startswith("-") for one in args) or any(one.startswith("--project") for one in args):
        return None
    with suppress(OSError):  # the working folder is gone
        return passed_over(Path.cwd())
    return None


def _code(error: Exception) -> int:
    if isinstance(error, RalphError):
        return error.code
    if isinstance(error, click.UsageError):
        return USAGE
    return INTERNAL_ERROR if _is_bug(error) else ENDED_IN_ERROR


def _is_bug(error: Exception) -> bool:
    """Whether the fault is ours, and not one that the user or the system can explain."""
    return not isinstance(error, (RalphError, click.ClickException)) and not (
        isinstance(error, OSError) and error.strerror
    )


def _explained(error: Exception, args: list[str]) -> str:
    if _is_bug(error):
        return _sentences(f"internal error, {type(error).__name__}: {error}", _what_to_report(error))
    if isinstance(error, RalphError):
        return _sentences(error.message, error.hint)
    if isinstance(error, click.UsageError):
        command = error.ctx.command_path if error.ctx else _command_in(args)
        return _sentences(error.format_message(), f"Try: {command} --help")
    if isinstance(error, click.ClickException):
        return error.format_message()
    assert isinstance(error, OSError)
    return f"{error.strerror}: {error.filename}" if error.filename else str(error.strerror)


def _command_in(args: list[str]) -> str:
    """What was called, where click has not said it."""
    first = next((word for word in args if not word.startswith("-")), "")
    return f"ralph-rpc {first}" if first in COMMANDS or first in ALIASES else "ralph-rpc"


def _sentences(first: str, second: str) -> str:
    if not second:
        return first
    if not second.startswith(_PROGRAMS):
        second = second[0].upper() + second[1:]
    return f"{first} {second}" if first.endswith((".", "?", "!")) else f"{first}. {second}"


def _complain(text: str) -> None:
    """One inert line on stderr: paths, names and texts of other programs come along in messages."""
    from ralph_rpc.terminal.inert import inert

    line = inert(" ".join(text.split()), keep_newlines=False)
    try:
        click.echo(f"ralph-rpc: {line}", err=True)
    except OSError:
        return  # nobody reads stderr


def _what_to_report(error: Exception) -> str:
    """Writes the crash log and says where it is."""
    from ralph_rpc.cli.crashlog import write_crash_log

    try:
        return f"This is a bug in ralph-rpc. Please report it, and attach {write_crash_log(error)}"
    except OSError:
        return "This is a bug in ralph-rpc. Run it again with --debug before the command to see where"
