"""What the commands that send a loop something have in common: say what was sent, and wait for the receipt.

Called by stop, abort, pause, steer, followup and resume, which people type all day, so it imports nothing heavy.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import click
import orjson

from ralph_rpc.cli.arguments import check_wait
from ralph_rpc.cli.meant import addressed, meant_loop
from ralph_rpc.errors import RalphError, UsageError
from ralph_rpc.files.commandfile import MAX_BYTES
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.loops.find import on_command_line
from ralph_rpc.loops.inside import refuse_inside
from ralph_rpc.loops.send import Sent, await_receipt, check, resume_hint, send
from ralph_rpc.machine.programs import found_there
from ralph_rpc.model.commands import Body, MessageVerb, OrderVerb, Verb
from ralph_rpc.terminal.inert import inert, inert_json


class How(NamedTuple):
    """How a command tells what became of it."""

    waits: bool
    timeout: float | None
    as_json: bool


def send_order(name: str | None, project: Path | None, verb: OrderVerb, body: Body, told: str, how: How) -> None:
    """Sends one loop an order and says `told`."""
    check_wait(how.waits, how.timeout)
    paths = meant_loop(name, project, "running")
    if how.waits:
        refuse_inside(paths, f"{verb} --wait")
    sent = send(paths, verb, body)
    tell(paths, sent, told, how)


def send_message(
    words: tuple[str, ...], message: str | None, project: Path | None, verb: MessageVerb, body: Body, how: How
) -> None:
    """Sends one loop the message that `words` (behind its name), `message`, stdin or the editor give.

    `body` is the rest of the command.
    """
    check_wait(how.waits, how.timeout)
    name, text = addressed(words)
    if message is not None and text:
        raise UsageError("the message stands twice, in -m and behind the name", "leave one of them out")
    paths = meant_loop(name, project, "told")
    # Before a person writes it.
    if how.waits:
        refuse_inside(paths, f"{verb} --wait")
    found = check(paths, verb, body.get("ticket"), running=how.waits)
    sent = send(paths, verb, {**body, "message": _text(text if message is None else (message,))})
    kept = f"not running ({found.shown}); kept for the first prompt after: ralph-rpc resume {on_command_line(paths)}"
    tell(paths, sent, kept if sent.kept else f"sent ({sent.id})", how)


def tell(paths: LoopPaths, sent: Sent, told: str, how: How) -> None:
    """Says what was sent, and with --wait that it has had its effect."""
    if not how.as_json:
        say_of(paths, told)
    if how.waits and not sent.kept:
        await_delivery(paths, sent, how)
    if how.as_json:
        say_json(as_json(paths, sent.verb, sent.id, "kept" if sent.kept else "delivered" if how.waits else "sent"))


def await_delivery(paths: LoopPaths, sent: Sent, how: How) -> None:
    """Waits until the command has had its effect, and says so. RalphError if it never will, or after the timeout."""
    receipt = await_receipt(paths, sent, how.timeout)
    if receipt.state != "delivered":
        raise RalphError(f"{receipt.verb} {receipt.state}: {receipt.reason or ''}", resume_hint(paths))
    if not how.as_json:
        say_of(paths, f"{receipt.verb} delivered")


def as_json(paths: LoopPaths, verb: Verb, id: str | None, state: str) -> dict[str, str | None]:
    """What was sent, as --json gives it."""
    project = str(paths.project)
    return {"name": paths.name, "project": project, "command": verb, "id": id, "state": state}


def say_of(paths: LoopPaths, told: str) -> None:
    """What was done to a loop, on stdout, and in which project."""
    say(f"{paths.name}: {told} ({paths.project})")


def say(line: str) -> None:
    """One line on stdout, inert."""
    click.echo(inert(line, keep_newlines=False))


def say_json(model: object) -> None:
    """A value on stdout, as JSON."""
    click.echo(inert_json(orjson.dumps(model, option=orjson.OPT_INDENT_2).decode()))


def _text(words: Sequence[str]) -> str:
    """The message from the arguments, stdin or the editor; not empty."""
    if words and tuple(words) != ("-",):
        text = " ".join(words)
    elif words or not sys.stdin.isatty():
        data = sys.stdin.buffer.read(MAX_BYTES + 1)
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            raise UsageError("the message on stdin is not UTF-8", "nothing was sent") from None
    else:
        with found_there():
            text = click.edit("") or ""
    text = text.strip()
    if not text:
        raise UsageError("there is no message", "give it as arguments, on stdin, or in the editor")
    return text
