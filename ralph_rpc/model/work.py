"""What the head of a ticket loop and a job on an engine tell each other: `order.json` and `record.json` in notes on the hub.

The order lies below `refs/ralph/<loop>/orders/<ticket>` as long as its job is wanted, the record below
`refs/ralph/<loop>/records/<ticket>/<job>` until the head has adopted it.
"""

from typing import Literal, NotRequired, TypedDict

from ralph_rpc.model.config import Config
from ralph_rpc.model.iteration import Iteration
from ralph_rpc.model.state import StopReason
from ralph_rpc.model.ticket import TicketRecord, file_name
from ralph_rpc.model.version import SchemaVersion

ORDER, RECORD = "order.json", "record.json"


class Author(TypedDict):
    """Who commits."""

    name: str
    email: str


class WorkOrder(TypedDict):
    """What a job is to do. Its note's parents: the commit to work from, and the target branch's."""

    schemaVersion: NotRequired[SchemaVersion]
    loop: str
    ticket: str
    job: str
    """The job that may carry it out; no other one begins."""
    into: str
    """The target branch."""
    project: str
    """The project's folder from the root of the repository; empty: the root."""
    tickets: str
    """The folder of the tickets from the project's."""
    files: dict[str, str]
    """The ticket and what it depends on, as the head has them: path from the folder of the tickets, and text."""
    lessons: str
    """lessons.md, as the head has it."""
    messages: list[str]
    """For the agent: what the operator has sent, and why finished work could not be merged."""
    author: Author
    config: Config
    """The head's options, with what this job may use as its limits."""


class WorkRecord(TypedDict):
    """What a job has done. Its note's only parent: the tip of the ticket's branch."""

    schemaVersion: NotRequired[SchemaVersion]
    loop: str
    ticket: str
    job: str
    host: str
    startedAt: str
    endedAt: str
    outcome: Literal["done", "failed", "stopped", "error"]
    """done: verified, on its branch; failed: its attempts are used up; stopped: by somebody, or by a limit; error: a person
    is needed."""
    stopReason: StopReason | None
    error: str | None
    """One line."""
    record: TicketRecord | None
    """None: the job's runner came to no ticket."""
    iterations: list[Iteration]


def orders_of(loop: str) -> str:
    """Below it are the orders of a loop."""
    return f"refs/ralph/{loop}/orders"


def order_ref(loop: str, ticket: str) -> str:
    """One for each ticket: the job that is wanted last is the only one."""
    return f"{orders_of(loop)}/{file_name(ticket)}"


def records_of(loop: str) -> str:
    """Below it are the records of a loop's jobs."""
    return f"refs/ralph/{loop}/records"


def record_ref(loop: str, ticket: str, job: str) -> str:
    """One for each job: nothing that was spent is overwritten."""
    return f"{records_of(loop)}/{file_name(ticket)}/{job}"
