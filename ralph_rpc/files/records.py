"""state.json, config.json, the records of iterations, tickets/<id>.json and pid: whole files, replaced atomically by
their one writer.

The runner writes them, everyone reads them. If the machine dies here, each is old or new, never half. What can't be
read is never replaced by something empty: it is reported (`Unreadable`), set aside and rebuilt by the runner. What a
newer version of this program wrote (`Newer`) is left alone. Unknown keys are ignored.
"""

from pathlib import Path
from typing import Any, TypeVar, cast

import orjson

from ralph_rpc.clock import iso, now_ms, parse_iso
from ralph_rpc.files import iterations
from ralph_rpc.files.atomic import Newer, Unreadable, make_private_dir, read_json_object, write_atomic
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.files.shapes import misfit
from ralph_rpc.machine import nofollow
from ralph_rpc.model.config import Config
from ralph_rpc.model.iteration import Iteration
from ralph_rpc.model.state import State
from ralph_rpc.model.ticket import TicketRecord, file_name
from ralph_rpc.model.version import SCHEMA_VERSION

TICKET_TTL_MS = 7 * 24 * 3_600_000

Shape = TypeVar("Shape", State, Config, Iteration, TicketRecord)


def read_state(paths: LoopPaths) -> State | None:
    """Return the loop's state, None if it has none; raises Unreadable."""
    return _read(paths.state, State)


def write_state(paths: LoopPaths, state: State) -> None:
    """Replace state.json durably; raises OSError, and then the old state stands."""
    write_atomic(paths.state, _json(state))


def read_config(paths: LoopPaths) -> Config | None:
    """Return the options the loop was started with, None if there are none; raises Unreadable."""
    return _read(paths.config, Config)


def write_config(paths: LoopPaths, config: Config) -> None:
    """Replace config.json durably; raises OSError."""
    write_atomic(paths.config, _json(config))


def write_iteration(paths: LoopPaths, record: Iteration) -> None:
    """Write an iteration's record durably, under the iteration's number; raises OSError."""
    iterations.write(paths, record, _json(record))


def read_iterations(paths: LoopPaths) -> list[Iteration]:
    """Return the records of all iterations by number; one that cannot be read is left out."""
    found: dict[int, Iteration] = {}
    for _, value in iterations.stored(paths):
        if not isinstance(value, Unreadable) and misfit(value, Iteration) is None:
            found[value["iteration"]] = cast(Iteration, value)
    return [found[number] for number in sorted(found)]


def write_ticket(paths: LoopPaths, record: TicketRecord) -> None:
    """Replace a ticket's dispatch record durably; raises OSError."""
    make_private_dir(paths.tickets)
    write_atomic(_record_of(paths, record["ticket"]), _json(record))


def _record_of(paths: LoopPaths, ticket: str) -> Path:
    return paths.tickets / f"{file_name(ticket)}.json"


def read_tickets(paths: LoopPaths) -> dict[str, TicketRecord]:
    """Return the dispatch records of a ticket loop by ticket; one that cannot be read is left out."""
    found: dict[str, TicketRecord] = {}
    for file in _json_files(paths.tickets):
        try:
            record = _read(file, TicketRecord)
        except Unreadable:
            continue
        if record is not None and file_name(record["ticket"]) == file.stem:
            found[record["ticket"]] = record
    return found


def forget_old_tickets(paths: LoopPaths, now: int) -> None:
    """Remove the dispatch records of tickets that ended more than TICKET_TTL_MS before `now` (epoch milliseconds).

    Those that still need a person, or were under way, stay.
    """
    for record in read_tickets(paths).values():
        ended = parse_iso(record["endedAt"] or "")
        if record["status"] in ("closed", "failed", "orphaned") and ended is not None and now - ended > TICKET_TTL_MS:
            nofollow.unlink(_record_of(paths, record["ticket"]), missing_ok=True)


def unreadable_files(paths: LoopPaths) -> list[Unreadable]:
    """Return every file of the loop that is there and cannot be read, with the reason."""
    shapes: list[tuple[Path, type]] = [
        (paths.config, Config),
        (paths.state, State),
        *((file, TicketRecord) for file in _json_files(paths.tickets)),
    ]
    found: list[Unreadable] = []
    for file, value in iterations.stored(paths):
        if isinstance(value, Unreadable):
            found.append(value)
        elif (reason := misfit(value, Iteration)) is not None:
            found.append(Unreadable(file, reason))
    for file, shape in shapes:
        try:
            _object(file, shape)
        except Unreadable as problem:
            found.append(problem)
    return found


def refuse_newer(paths: LoopPaths) -> None:
    """Raise Newer where a newer version of this program wrote a file of the loop: to work on it would spoil it."""
    for problem in unreadable_files(paths):
        if isinstance(problem, Newer):
            raise problem


def write_pid(paths: LoopPaths, pid: int) -> None:
    """Write the runner's pid as a plain number, for people and scripts."""
    write_atomic(paths.pid, b"%d\n" % pid, durable=False)


def set_aside_broken(path: Path) -> Path:
    """Rename a file that can't be read to `<name>.broken-<time>`; return its new path."""
    aside = path.with_name(f"{path.name}.broken-{iso(now_ms()).replace(':', '')}")
    nofollow.rename(path, aside)
    return aside


def _json(value: State | Config | Iteration | TicketRecord) -> bytes:
    stamped = {"schemaVersion": SCHEMA_VERSION, **value}
    return orjson.dumps(stamped, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _json_files(folder: Path) -> list[Path]:
    return [file for file in nofollow.entries(folder) if file.suffix == ".json"]


def _read(path: Path, shape: type[Shape]) -> Shape | None:
    return cast("Shape | None", _object(path, shape))


def _object(path: Path, shape: type) -> dict[str, Any] | None:
    value = read_json_object(path)
    problem = None if value is None else misfit(value, shape)
    if problem is not None:
        raise Unreadable(path, problem)
    return value
