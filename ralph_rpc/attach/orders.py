"""What a line of the input means, and how it becomes a command in the loop's inbox.

`parse` is pure; `send` writes one file, as `ralph-rpc steer` and its kin do, and changes nothing else. The
runner gives the receipt, as events.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from ralph_rpc.errors import RalphError, UsageError
from ralph_rpc.files import inbox
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.loops import loop_status
from ralph_rpc.model.commands import Verb

COMMANDS = {
    "/stop": "end after this iteration (/stop now: at once)",
    "/pause": "hold before the next iteration",
    "/resume": "go on after a pause",
    "/abort": "end this run (/abort pause, /abort stop)",
    "/next": "/next TEXT: a message for the next iteration",
    "/detach": "leave; the loop goes on",
    "/help": "this",
}
_CHOICES: dict[str, tuple[str, tuple[str, ...]]] = {
    "stop": ("when", ("iteration", "now")),
    "abort": ("then", ("continue", "pause", "stop")),
}


@dataclass(frozen=True)
class Order:
    """A command for the loop."""

    verb: Verb
    body: dict[str, Any] = field(default_factory=dict)

    @property
    def message(self) -> str | None:
        """The text of a steer or followup."""
        text = self.body.get("message")
        return text if isinstance(text, str) else None


Local = Literal["detach", "help"]


def parse(line: str, followup: bool) -> Order | Local | None:
    """What a line asks for; None for an empty one. Raises UsageError for what begins as a command and is
    none.
    """
    text = line.strip()
    if not text:
        return None
    if not line.startswith("/"):  # a space before it sends it as it is
        return (
            Order("followup", {"message": text, "when": "now"})
            if followup
            else Order("steer", {"message": text})
        )
    word, _, rest = text.partition(" ")
    rest = rest.strip()
    if word == "/next" and rest:
        return Order("followup", {"message": rest, "when": "next"})
    if word == "/next":
        raise UsageError("/next needs a message", "/next TEXT keeps it for the next iteration")
    if word == "/detach":
        return "detach"
    if word == "/help":
        return "help"
    verb: Verb
    for verb in ("stop", "pause", "resume", "abort"):
        if word == f"/{verb}":
            return Order(verb, _choice(verb, rest))
    raise UsageError(
        f"there is no command {word}", "/help shows all; a space before it sends it as a message"
    )


def completions(line: str) -> list[str]:
    """The commands that a line may become."""
    return [command for command in COMMANDS if line and command.startswith(line)]


def send(paths: LoopPaths, order: Order, ticket: str | None) -> str:
    """Drops the command and returns its id; a message is for the `ticket`, if given. Raises RalphError
    where nobody would take it, OSError.
    """
    found = loop_status(paths)
    if found.runner == "dead" and order.message is None:
        raise RalphError(
            f"the loop does not run ({found.shown})", f"go on with: ralph-rpc resume {paths.name}"
        )
    if found.runner == "dead" and found.shown == "completed":
        raise RalphError("the loop is completed", f"begin anew with: ralph-rpc start {paths.name}")
    body = (
        {**order.body, "ticket": ticket} if ticket is not None and order.message is not None else order.body
    )
    return inbox.drop(paths.inbox, order.verb, body)


def _choice(verb: Verb, word: str) -> dict[str, Any]:
    if not word:
        return {}
    member, choices = _CHOICES.get(verb, ("", ()))
    if word not in choices:
        raise UsageError(
            f"/{verb} does not know {word!r}", f"it knows: {', '.join(choices)}" if choices else ""
        )
    return {member: word}
