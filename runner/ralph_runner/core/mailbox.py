"""The operator's messages from receipt to delivery. Pure; used by the step.

    held -> sent -> queued -> read -> delivered        a steer or followup handed to a running pi
    held -> prompt -> delivered                        at the head of the next prompt

A message is delivered when the model begins to answer with it in its context, not when pi says "success": pi
keeps the messages it has queued in memory, and an abort or a new session drops them. Whatever pi had but the model had
not read when a run ends goes back to `held`. So a message is in this box or delivered, never both, never neither.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from ralph_rpc.model.commands import MessageVerb

MessagePlace = Literal["held", "sent", "queued", "read", "prompt"]


@dataclass(frozen=True, slots=True)
class Message:
    """One steer or followup that has no receipt yet."""

    id: str
    verb: MessageVerb
    text: str
    next_only: bool = False
    """followup with "when": "next": never sent into a running session."""
    place: MessagePlace = "held"
    maybe: bool = False
    """The model may have seen it in a run that ended before the receipt; a delivery is flagged `redelivered`."""


Mail = tuple[Message, ...]


def receive(mail: Mail, message: Message) -> Mail:
    """Adds a message; one whose id is already here changes nothing."""
    return mail if any(m.id == message.id for m in mail) else (*mail, message)


def forwardable(mail: Mail) -> Mail:
    """The held messages that may be sent into a running session, in order of receipt."""
    return tuple(m for m in mail if m.place == "held" and not m.next_only)


def for_prompt(mail: Mail) -> Mail:
    """The held messages, for the head of the next prompt, in order of receipt."""
    return tuple(m for m in mail if m.place == "held")


def in_pi(mail: Mail) -> bool:
    """True if pi has messages that it has not read into the conversation."""
    return any(m.place in ("sent", "queued") for m in mail)


def move(mail: Mail, ids: frozenset[str], place: MessagePlace) -> Mail:
    """The messages with these ids are now at `place`."""
    return tuple(replace(m, place=place) if m.id in ids else m for m in mail)


def read_by_pi(mail: Mail, text: str, dropped: MessageVerb | None) -> Mail:
    """pi put a user message into the conversation: the oldest one it can be is read.

    `dropped` tells which of pi's queues has just become shorter; it decides where the text differs from what was
    sent, since pi expands templates.
    """
    waiting = [m for m in mail if m.place in ("sent", "queued")]
    found = next((m for m in waiting if m.text.strip() == text.strip()), None)
    if found is None and dropped is not None:
        found = next((m for m in waiting if m.verb == dropped), None)
    return mail if found is None else move(mail, frozenset({found.id}), "read")


def answered(mail: Mail) -> tuple[Mail, Mail]:
    """The model has begun to answer: (what is left, what is now delivered)."""
    return _part(mail, lambda m: m.place not in ("read", "prompt"))


def run_ended(mail: Mail) -> Mail:
    """The run is over: what the model did not get is held again for the next prompt."""
    return tuple(
        m if m.place == "held" else replace(m, place="held", maybe=m.maybe or m.place in ("read", "prompt"))
        for m in mail
    )


def _part(mail: Mail, keep: Callable[[Message], bool]) -> tuple[Mail, Mail]:
    return tuple(m for m in mail if keep(m)), tuple(m for m in mail if not keep(m))
