"""Commands: the files of the inbox and the lines of commands.jsonl."""

from typing import Literal, NotRequired, TypedDict

Verb = Literal["steer", "followup", "abort", "stop", "pause", "resume"]
VERBS: tuple[Verb, ...] = ("steer", "followup", "abort", "stop", "pause", "resume")


class Steer(TypedDict):
    """Delivered between two turns of the running iteration, otherwise at the head of the next prompt."""

    type: NotRequired[Literal["steer"]]
    id: NotRequired[str]
    message: str
    ticket: NotRequired[str]
    """In a ticket loop: whose worker it is for."""


class Followup(TypedDict):
    """`now` continues the running session when it would end; `next` waits for the next prompt."""

    type: NotRequired[Literal["followup"]]
    id: NotRequired[str]
    message: str
    when: NotRequired[Literal["now", "next"]]
    ticket: NotRequired[str]
    """As with steer."""


class Abort(TypedDict):
    """Ends the current pi run at once; `then` says what follows (default: continue)."""

    type: NotRequired[Literal["abort"]]
    id: NotRequired[str]
    then: NotRequired[Literal["continue", "pause", "stop"]]


class Stop(TypedDict):
    """Ends the loop after this iteration (default) or now."""

    type: NotRequired[Literal["stop"]]
    id: NotRequired[str]
    when: NotRequired[Literal["iteration", "now"]]


class Pause(TypedDict):
    """Holds the loop before its next iteration."""

    type: NotRequired[Literal["pause"]]
    id: NotRequired[str]


class Resume(TypedDict):
    """Goes on after a pause."""

    type: NotRequired[Literal["resume"]]
    id: NotRequired[str]


class Body(TypedDict):
    """A checked command, whatever its verb, with its defaults filled in."""

    message: NotRequired[str]
    when: NotRequired[Literal["now", "next", "iteration"]]
    then: NotRequired[Literal["continue", "pause", "stop"]]
    ticket: NotRequired[str]


JournalState = Literal["received", "sent", "accepted", "delivered", "rejected", "expired"]


class JournalLine(TypedDict):
    """One step of one command in commands.jsonl. `received` carries all that a restart needs."""

    at: int
    """Epoch milliseconds."""
    id: str
    command: Verb
    state: JournalState
    body: NotRequired[Body]
    """With `received`."""
    file: NotRequired[str]
    """With `received`: the claimed file's name, so that a second look at it is recognised."""
    origin: NotRequired[str]
    """With `received` of a file without an id: inode and time of change before it was claimed. A power loss may give it
    its old name back."""
    iteration: NotRequired[int]
    """With `sent`, `accepted`, `delivered`."""
    reason: NotRequired[str]
    """With `rejected` and `expired`."""
    redelivered: NotRequired[bool]
    """With `delivered`: pi may have had it once before, in a run that ended before the receipt was on disk."""
