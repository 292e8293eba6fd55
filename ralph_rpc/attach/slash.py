"""What a line of the input means: a command for the loop, one for the viewer itself, or nothing. Pure."""

from dataclasses import dataclass, field
from typing import Literal, cast

from ralph_rpc.errors import UsageError
from ralph_rpc.model.commands import CHOICES, CONTROL, Body, Verb

COMMANDS = {
    "/stop": "end after this iteration (/stop now: at once)",
    "/pause": "hold before the next iteration",
    "/resume": "end the pause",
    "/abort": "end this run (/abort pause, /abort stop)",
    "/next": "/next TEXT: a message for the next iteration",
    "/detach": "leave; the loop continues",
    "/help": "this",
}


@dataclass(frozen=True)
class Order:
    """A command for the loop."""

    verb: Verb
    body: Body = field(default_factory=Body)

    @property
    def message(self) -> str | None:
        """The text of a steer or followup."""
        return self.body.get("message")

    def to(self, ticket: str | None) -> Body:
        """The command's body; a message is for the agent on `ticket`, if given."""
        return self.body if ticket is None or self.message is None else {**self.body, "ticket": ticket}


Local = Literal["detach", "help"]


def parse(line: str, followup: bool) -> Order | Local | None:
    """What a line asks for; None for an empty one. Raises UsageError for what looks like a command and is none."""
    text = line.strip()
    if not text:
        return None
    if not line.startswith("/"):  # a space before it sends it as it is
        return Order("followup", {"message": text, "when": "now"}) if followup else Order("steer", {"message": text})
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
    for verb in CONTROL:
        if word == f"/{verb}":
            return Order(verb, _choice(verb, rest))
    raise UsageError(f"there is no command {word}", "/help shows all; a space before it sends it as a message")


def completions(line: str) -> list[str]:
    """The commands that a line may become."""
    return [command for command in COMMANDS if line and command.startswith(line)]


def _choice(verb: Verb, word: str) -> Body:
    if not word:
        return {}
    member, choices = CHOICES.get(verb, ("", ()))
    if word not in choices:
        raise UsageError(f"/{verb} does not know {word!r}", f"it knows: {', '.join(choices)}" if choices else "")
    return cast(Body, {member: word})
