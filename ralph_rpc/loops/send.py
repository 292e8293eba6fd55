"""Sending a loop a command, and waiting for its receipt.

`send` writes one file into the loop's inbox and changes nothing else; the runner gives the receipt, as events. If the
machine dies after it has returned, the command is still in the inbox, and the next runner takes it if it is a message.
Called by every command for a running loop and by the viewer, so it imports nothing heavy.
"""

import os
import time
from typing import Any, Literal, NamedTuple, cast

import orjson

from ralph_rpc.errors import NotRunning, UsageError
from ralph_rpc.files import inbox
from ralph_rpc.files.eventreader import EventReader
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.loops.find import on_command_line
from ralph_rpc.loops.status import LoopStatus, loop_status
from ralph_rpc.loops.tail import end_of_log
from ralph_rpc.loops.wait import POLL_S, TimedOut
from ralph_rpc.machine import nofollow
from ralph_rpc.model.commands import MESSAGES, Body, Verb
from ralph_rpc.model.state import ENDED, State

AT_WORK = ("running", "verifying")
"""A ticket in one of these has an agent that can be told something."""
_LAST_STEPS = ("delivered", "rejected", "expired")
_COMMAND = b'{"type":"ralph_command"'


class Sent(NamedTuple):
    """A command that is in the inbox."""

    id: str
    """Its id in the events and in commands.jsonl."""
    verb: Verb
    offset: int
    """Where in the log its receipts can begin."""
    kept: bool
    """No runner is there: the message waits for the first prompt after `resume`."""


class Receipt(NamedTuple):
    """What became of a command in the end."""

    id: str
    verb: Verb
    state: Literal["delivered", "rejected", "expired"]
    """`delivered`: it has had its effect; for a message, the model has begun to answer with it in its context."""
    reason: str | None
    """Why it was rejected or has expired."""


def check(paths: LoopPaths, verb: Verb, ticket: str | None = None, running: bool = False) -> LoopStatus:
    """The loop's status; RalphError where such a command could not have any effect. Sends nothing.

    A message for a loop without a runner is kept for its next run, unless `running` says that one must be there.
    `ticket` is the one that the message is for.
    """
    found = loop_status(paths)
    if found.runner == "dead" and verb not in MESSAGES:
        raise NotRunning(f"loop {paths.name!r} is not running ({found.shown})", resume_hint(paths))
    if found.runner == "dead" and found.shown == "completed":
        raise NotRunning(f"loop {paths.name!r} is completed", f"start it again with: ralph-rpc start {paths.name}")
    if found.runner == "dead" and running:
        raise NotRunning(
            f"loop {paths.name!r} is not running ({found.shown}), so no runner is there to take it", resume_hint(paths)
        )
    if verb in MESSAGES:
        _check_addressee(paths, found.state, ticket)
    return found


def send(paths: LoopPaths, verb: Verb, body: Body) -> Sent:
    """Puts the command into the loop's inbox, durably; does not wait for the runner.

    Raises RalphError as `check` does, UsageError for a body that the runner would reject, OSError where the inbox
    cannot be written.
    """
    check_owner(paths)
    found = check(paths, verb, body.get("ticket"))
    offset = end_of_log(paths)
    # The runner keeps the reserve for the loop's end, and an order is on the way to it.
    id = inbox.drop(paths.inbox, verb, dict(body), None if verb in MESSAGES else paths.reserve)
    return Sent(id, verb, offset, kept=found.runner == "dead")


def check_owner(paths: LoopPaths) -> None:
    """Raises UsageError where the runner would refuse our file: it takes those of its own user, for whom root can write."""
    try:
        owner = nofollow.lstat(paths.dir.parent).st_uid
    except FileNotFoundError:
        return  # said by what writes into it
    if os.geteuid() not in (0, owner):
        raise UsageError(
            f"loop {paths.name!r} belongs to user {owner}, and you are user {os.geteuid()}",
            "run this as its owner, or with sudo",
        )


def await_receipt(paths: LoopPaths, sent: Sent, timeout: float | None = None) -> Receipt:
    """What became of the command, once that is certain.

    Raises TimedOut after `timeout` seconds, RalphError where the runner goes away first.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    reader = EventReader.at(paths.events, sent.offset)
    try:
        while True:
            # Before the read: a receipt that was the runner's last word is then still seen.
            gone = loop_status(paths).runner == "dead"
            for _, line in reader.read():
                if line.startswith(_COMMAND) and (receipt := _receipt(line, sent)) is not None:
                    return receipt
            if gone:
                raise NotRunning(f"the runner of {paths.name!r} is gone", resume_hint(paths))
            if deadline is not None and time.monotonic() > deadline:
                raise TimedOut("not delivered yet; the loop still has it", f"see: ralph-rpc status {paths.name}")
            time.sleep(POLL_S)
    finally:
        reader.close()


def resume_hint(paths: LoopPaths) -> str:
    """What to do where a runner is missing."""
    return f"resume it with: ralph-rpc resume {on_command_line(paths)}"


def _receipt(line: bytes, sent: Sent) -> Receipt | None:
    event = cast(dict[str, Any], orjson.loads(line))
    if event.get("id") != sent.id or event.get("state") not in _LAST_STEPS:
        return None
    return Receipt(sent.id, sent.verb, event["state"], event.get("reason"))


def _check_addressee(paths: LoopPaths, state: State | None, ticket: str | None) -> None:
    """Raises UsageError where the runner would have to refuse the message."""
    if state is None:
        return
    if state["kind"] != "tickets":
        if ticket is not None:
            raise UsageError(f"loop {paths.name!r} has no tickets", "leave --ticket out")
        return
    running = state.get("tickets", {}).get("running", [])
    working = [one["ticket"] for one in running if one["status"] in AT_WORK]
    if ticket is None and len(working) > 1 and state["status"] not in ENDED:
        raise UsageError(
            f"{len(working)} tickets are being worked on: {', '.join(working)}", "say which with --ticket ID"
        )
