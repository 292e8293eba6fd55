"""What a person is notified of: a loop that has ended or needs them; and the program that shows it on a desktop.

Pure but for the look for a notifier (`desktop_notifier`). The runner builds a notification at each change of status and
hands it to `ralph_runner.shell.notify`, which runs the person's command; `start` asks whether `desktop` can work.
A rate limit that the loop waits out, and an end that a person ordered through this program, need no notification; an
unpaid bill does, once for each outage, although the loop waits for it by itself.
"""

import html
import shutil
import sys
from collections.abc import Sequence
from typing import Literal, NamedTuple, NotRequired, TypedDict
from urllib.parse import urlsplit

import orjson

from ralph_rpc.clock import iso
from ralph_rpc.model.config import Config
from ralph_rpc.model.state import ENDED, State
from ralph_rpc.terminal.width import line_of

DESKTOP = "desktop"
"""The command that means the platform's own notifier."""
NTFY, WEBHOOK = "ntfy:", "webhook:"
"""What a command begins with that is an address instead."""
_LONGEST = 500
"""Columns of a text in a notification. All of it must fit into a pipe, so that no writer can be held up."""

_PRIORITIES = {"error": "high", "needs-person": "high", "needs-merge": "high"}
"""In ntfy's words."""

Event = Literal["completed", "error", "needs-person", "needs-merge"]
"""`needs-person`: the loop is paused, a provider wants money, or a limit or a foreign signal has ended the loop."""


class Notification(TypedDict):
    """What the command finds on its stdin, as one JSON object."""

    event: Event
    name: str
    cwd: str
    ralphDir: str
    kind: str
    status: str
    stopReason: str | None
    error: str | None
    iteration: int
    cost: float
    ticket: NotRequired[str]
    """With `needs-merge`."""
    message: str
    """One inert line for a person: which loop, and what has become of it."""
    at: str


def notification_of(before: str | None, state: State, at_ms: int, kill_ordered: bool = False) -> Notification | None:
    """The notification when a loop goes from the status `before` (None: it has just begun) to that of `state`, if any.

    `kill_ordered`: if a signal has ended it, the signal came from this program's `kill`.
    """
    status = state["status"]
    if status == before:
        return None
    reason = state["stopReason"]
    if status == "completed":
        return _notification("completed", state, f"completed ({reason})" if reason else "completed", at_ms)
    if status == "error":
        why = state["error"] or reason or "for an unknown reason"
        return _notification("error", state, f"ended in error: {why}", at_ms)
    if status == "paused":
        return _notification("needs-person", state, "is paused", at_ms)
    if status == "stopped" and reason == "kill" and not kill_ordered:
        return _notification("needs-person", state, f"was ended from outside: {state['error'] or 'by a signal'}", at_ms)
    if status == "stopped" and reason not in ("stop", "kill"):
        return _notification("needs-person", state, f"stopped ({reason})" if reason else "stopped", at_ms)
    return None


def unpaid(state: State, told: frozenset[str], at_ms: int) -> tuple[frozenset[str], Notification | None]:
    """The bills that keep a model from answering, by the beginning of their outage, and a notification if one is new.

    `told` are those of before. An outage is told once, however often the provider repeats it.
    """
    bills = [outage for outage in state.get("outages", []) if outage["kind"] == "billing"]
    new = [bill for bill in bills if bill["since"] not in told]
    known = frozenset(bill["since"] for bill in bills)
    if not new or state["status"] in ENDED:
        return known, None
    who = new[0]["model"] or "/".join(part for part in (state["provider"], state["model"]) if part) or "the provider"
    why = f"{who} wants to be paid: {new[0]['words']}; it continues by itself after that"
    return known, _notification("needs-person", state, why, at_ms)


def needs_merge(state: State, ticket: str, reason: str, at_ms: int) -> Notification:
    """The work of a ticket is done, but only a person can merge it."""
    notice = _notification("needs-merge", state, f"ticket {ticket} needs a merge by hand: {reason}", at_ms)
    notice["ticket"] = ticket
    return notice


class Post(NamedTuple):
    """What is to be sent over HTTP."""

    url: str
    headers: dict[str, str]
    body: str


def post_of(command: str, notice: Notification) -> Post | None:
    """What the notification is to the receiver that `command` names; None where it is no address."""
    if command.startswith(NTFY):
        headers = {
            "Title": f"ralph-rpc: {_ascii(notice['name'])}",
            "Priority": _PRIORITIES.get(notice["event"], "default"),
        }
        return Post(command.removeprefix(NTFY), headers, notice["message"])
    if command.startswith(WEBHOOK):
        # The last two are what Slack, Mattermost and Discord show.
        body = {**notice, "text": notice["message"], "content": notice["message"]}
        return Post(command.removeprefix(WEBHOOK), {"Content-Type": "application/json"}, orjson.dumps(body).decode())
    return None


def shown(command: str) -> str:
    """The command of --notify as it may be shown: of an address, which can be a secret, only the host."""
    for kind in (NTFY, WEBHOOK):
        if command.startswith(kind):
            parts = urlsplit(command.removeprefix(kind))
            return f"{kind}{parts.scheme}://{parts.hostname or ''}/…"
    return command


def shown_config(config: Config) -> Config:
    """The options as they may be shown."""
    command = config.get("notify")
    return config if command is None else {**config, "notify": shown(command)}


def environment(notice: Notification) -> dict[str, str]:
    """The same for a shell, beside RALPH_LOOP and RALPH_LOOP_DIR, which everything that a runner starts has."""
    return {
        "RALPH_EVENT": notice["event"],
        "RALPH_STATUS": notice["status"],
        "RALPH_STOP_REASON": notice["stopReason"] or "",
        "RALPH_MESSAGE": notice["message"],
        "RALPH_ITERATION": str(notice["iteration"]),
        "RALPH_COST": f"{notice['cost']:.4f}",
    }


def desktop_notifier() -> str | None:
    """The platform's own notifier, if it has one that can be called."""
    return shutil.which("osascript" if sys.platform == "darwin" else "notify-send")


def desktop_argv(notifier: str, notice: Notification) -> Sequence[str]:
    """The command that shows it. Its texts are arguments, so that nothing in them can become a part of the program."""
    title, body = f"ralph-rpc: {_line(notice['name'])}", notice["message"]
    if notifier.endswith("osascript"):
        script = ("on run argv", "display notification (item 1 of argv) with title (item 2 of argv)", "end run")
        return [notifier, *(part for line in script for part in ("-e", line)), body, title]
    urgency = "critical" if notice["event"] == "error" else "normal"
    # Notification daemons take the body for markup.
    return [notifier, "--app-name=ralph-rpc", f"--urgency={urgency}", "--", title, html.escape(body, quote=False)]


def _notification(event: Event, state: State, what: str, at_ms: int) -> Notification:
    return {
        "event": event,
        "name": state["name"],
        "cwd": state["cwd"],
        "ralphDir": state["ralphDir"],
        "kind": state["kind"],
        "status": state["status"],
        "stopReason": state["stopReason"],
        "error": None if state["error"] is None else _line(state["error"]),
        "iteration": state["iteration"],
        "cost": state["stats"]["cost"],
        "message": _line(f"{state['name']}: {what}"),
        "at": iso(at_ms),
    }


def _ascii(text: str) -> str:
    """What may stand in a header; the names of loops are no more anyway."""
    return _line(text).encode("ascii", "replace").decode()


def _line(text: str) -> str:
    # Characters without width take no column, but space in the pipe.
    return line_of(text[: 4 * _LONGEST], _LONGEST)
