"""What a person is told when a loop needs no more watching, and the program that shows it on a desktop.

Pure but for the look for a notifier (`desktop_notifier`). The runner builds a notice at each change of status and
hands it to `ralph_runner.shell.notify`, which runs the person's command; `start` asks whether `desktop` can work.
A rate limit that the loop waits for by itself, and an end that a person ordered, are nothing to tell.
"""

import html
import shutil
import sys
from collections.abc import Sequence
from typing import Literal, NotRequired, TypedDict

from ralph_rpc.clock import iso
from ralph_rpc.model.state import State
from ralph_rpc.text import line_of

DESKTOP = "desktop"
"""The command that means the platform's own notifier."""
_LONGEST = 500
"""Columns of a text in a notice. All of a notice must fit into a pipe, so that no writer can be held up."""
_ORDERED = frozenset({"stop", "kill"})
"""Reasons of an end that a person asked for."""

Event = Literal["completed", "error", "needs-person", "needs-merge"]
"""`needs-person`: the loop is paused, or a limit has ended it, and only a person lets it go on."""


class Notice(TypedDict):
    """One notice: what the command finds on its stdin as one JSON object."""

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


def notice_of(before: str | None, state: State, at_ms: int) -> Notice | None:
    """What to tell when a loop has come from the status `before` (None: it was just begun) to that of `state`."""
    status = state["status"]
    if status == before:
        return None
    reason = state["stopReason"]
    if status == "completed":
        return _notice("completed", state, f"completed ({reason})" if reason else "completed", at_ms)
    if status == "error":
        why = state["error"] or reason or "for an unknown reason"
        return _notice("error", state, f"ended in error: {why}", at_ms)
    if status == "paused":
        return _notice("needs-person", state, "is paused", at_ms)
    if status == "stopped" and reason not in _ORDERED:
        return _notice("needs-person", state, f"stopped ({reason})" if reason else "stopped", at_ms)
    return None


def needs_merge(state: State, ticket: str, reason: str, at_ms: int) -> Notice:
    """The work of a ticket is done, but only a person can merge it."""
    notice = _notice("needs-merge", state, f"ticket {ticket} needs a merge by hand: {reason}", at_ms)
    notice["ticket"] = ticket
    return notice


def environment(notice: Notice) -> dict[str, str]:
    """The same for a shell, beside RALPH_LOOP and RALPH_LOOP_DIR, which all that a runner starts has."""
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


def desktop_argv(notifier: str, notice: Notice) -> Sequence[str]:
    """Shows the notice. Its texts are arguments, so that nothing in them can become a part of the program."""
    title, body = f"ralph-rpc: {_line(notice['name'])}", notice["message"]
    if notifier.endswith("osascript"):
        script = (
            "on run argv",
            "display notification (item 1 of argv) with title (item 2 of argv)",
            "end run",
        )
        return [notifier, *(part for line in script for part in ("-e", line)), body, title]
    urgency = "critical" if notice["event"] == "error" else "normal"
    # Notification daemons take the body for markup.
    return [
        notifier,
        "--app-name=ralph-rpc",
        f"--urgency={urgency}",
        "--",
        title,
        html.escape(body, quote=False),
    ]


def _notice(event: Event, state: State, what: str, at_ms: int) -> Notice:
    return {
        "event": event, "name": state["name"], "cwd": state["cwd"], "ralphDir": state["ralphDir"],
        "kind": state["kind"], "status": state["status"], "stopReason": state["stopReason"],
        "error": None if state["error"] is None else _line(state["error"]),
        "iteration": state["iteration"], "cost": state["stats"]["cost"],
        "message": _line(f"{state['name']}: {what}"), "at": iso(at_ms),
    }  # fmt: skip


def _line(text: str) -> str:
    # Characters without width take no column, but room in the pipe.
    return line_of(text[: 4 * _LONGEST], _LONGEST)
