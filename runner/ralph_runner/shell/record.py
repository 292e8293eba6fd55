"""The record of an iteration: first its event, then its file; both are on disk when `write_record` returns.

`one_pi` and the performer write it in two steps, so that a full disk between them repeats only the second; the runner
writes the records of lost iterations at once. If the machine dies between the two, the event is in the log and the file
is missing: the next recovery counts that iteration as lost and writes a record of its own.
"""

from dataclasses import dataclass

from ralph_rpc.clock import now_ms
from ralph_rpc.files import records
from ralph_rpc.files.eventlog import EventLog
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.model.events import IterationEnd
from ralph_rpc.model.iteration import Iteration


@dataclass(frozen=True)
class UnwrittenRecord:
    """What is left to do of EndIteration: the file of a record whose event is in the log."""

    record: Iteration


def write_record(paths: LoopPaths, log: EventLog, record: Iteration, events_from: int) -> None:
    """Both steps at once. Raises OSError."""
    write_record_file(paths, log, log_record(log, record, events_from))


def log_record(log: EventLog, record: Iteration, events_from: int) -> Iteration:
    """Append the record's event; gives the record as its file is to hold it.

    The range in the file includes the event itself; the event can only name where it starts. Raises OSError.
    """
    record = {**record, "eventsFrom": events_from, "eventsTo": log.offset}
    event: IterationEnd = {"type": "ralph_iteration_end", "at": now_ms(), **record}
    record["eventsTo"] = log.append_event(event)
    return record


def write_record_file(paths: LoopPaths, log: EventLog, record: Iteration) -> None:
    """Write the record's file once its event is on disk. Raises OSError; may be repeated then."""
    log.sync()
    records.write_iteration(paths, record)
