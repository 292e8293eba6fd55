"""Commands: the files of the inbox and the lines of commands.jsonl.

The only place that lists the verbs, their groups and their choices.
"""

from collections.abc import Mapping
from typing import Final, Literal, NotRequired, TypedDict, get_args

MessageVerb = Literal["steer", "followup"]
OrderVerb = Literal["stop", "abort", "pause"]
ControlVerb = OrderVerb | Literal["resume"]
Verb = MessageVerb | ControlVerb

MESSAGES: Final[tuple[MessageVerb, ...]] = get_args(MessageVerb)
"""They carry text for the agent."""
ORDERS: Final[tuple[OrderVerb, ...]] = get_args(OrderVerb)
"""They interrupt or end the work, and are taken before anything else that waits in the inbox."""
CONTROL: Final[tuple[ControlVerb, ...]] = (*ORDERS, "resume")
"""They are for the loop itself, whatever the agent does."""
VERBS: Final[tuple[Verb, ...]] = (*MESSAGES, *CONTROL)

StopWhen = Literal["iteration", "now"]
FollowupWhen = Literal["now", "next"]
Then = Literal["continue", "pause", "stop"]

CHOICES: Final[Mapping[Verb, tuple[Literal["when", "then"], tuple[str, ...]]]] = {
    "followup": ("when", get_args(FollowupWhen)),
    "stop": ("when", get_args(StopWhen)),
    "abort": ("then", get_args(Then)),
}
"""The member of the body that a verb has a choice in, and its values, the default first."""


class Steer(TypedDict):
    """Delivered between two turns of the running iteration, otherwise at the head of the next prompt."""

    type: NotRequired[Literal["steer"]]
    id: NotRequired[str]
    message: str
    ticket: NotRequired[str]
    """Ticket loops: the ticket whose agent gets it."""


class Followup(TypedDict):
    """`now` continues the running session when it would end; `next` waits for the next prompt."""

    type: NotRequired[Literal["followup"]]
    id: NotRequired[str]
    message: str
    when: NotRequired[FollowupWhen]
    ticket: NotRequired[str]
    """As for steer."""


class Abort(TypedDict):
    """Ends the current pi run at once; `then` says what follows (default: continue)."""

    type: NotRequired[Literal["abort"]]
    id: NotRequired[str]
    then: NotRequired[Then]


class Stop(TypedDict):
    """Ends the loop after this iteration (default) or now."""

    type: NotRequired[Literal["stop"]]
    id: NotRequired[str]
    when: NotRequired[StopWhen]


class Pause(TypedDict):
    """Holds the loop before its next iteration."""

    type: NotRequired[Literal["pause"]]
    id: NotRequired[str]


class Resume(TypedDict):
    """Ends a pause."""

    type: NotRequired[Literal["resume"]]
    id: NotRequired[str]


class Body(TypedDict):
    """A checked command, whatever its verb, with its defaults filled in."""

    message: NotRequired[str]
    when: NotRequired[StopWhen | FollowupWhen]
    then: NotRequired[Then]
    ticket: NotRequired[str]


JournalState = Literal["received", "sent", "queued", "delivered", "rejected", "expired"]
"""`queued`: pi has taken the message, and will give it to the model. `delivered`: the model has begun to answer with it."""


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
    """With `sent`, `queued`, `delivered`."""
    reason: NotRequired[str]
    """With `rejected` and `expired`."""
    redelivered: NotRequired[bool]
    """With `delivered`: pi may have had it once before, in a run that ended before the receipt was on disk."""
