"""state.json, config.json, iterations/NNN.json, tickets/<id>.json and pid: whole files, replaced atomically by their one writer.

The runner writes them, everyone reads them. If the machine dies here, each is old or new, never half. What
can't be read is never replaced by something empty: it is reported (`Unreadable`), set aside and rebuilt by
the runner.
"""

from pathlib import Path
from typing import TypeVar, cast

import orjson

from ralph_rpc.clock import iso, now_ms, parse_iso
from ralph_rpc.files.atomic import Unreadable, make_private_dir, read_json_object, write_atomic
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.files.shapes import misfit
from ralph_rpc.model.config import Config
from ralph_rpc.model.iteration import Iteration
from ralph_rpc.model.state import State
from ralph_rpc.model.ticket import TicketRecord

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
    make_private_dir(paths.iterations)
    write_atomic(paths.iterations / f"{record['iteration']:03d}.json", _json(record))


def read_iterations(paths: LoopPaths) -> list[Iteration]:
    """Return the records of all iterations by number; a broken one is left out."""
    try:
        files = list(paths.iterations.iterdir())
    except FileNotFoundError:
        return []
    records = []
    for file in files:
        if file.suffix != ".json" or not file.stem.isdecimal():
            continue
        try:
            record = _read(file, Iteration)
        except Unreadable:
            continue
        if record is not None:
            records.append(record)
    return sorted(records, key=lambda record: record["iteration"])


def write_ticket(paths: LoopPaths, record: TicketRecord) -> None:
    """Replace a ticket's dispatch record durably; raises OSError."""
    make_private_dir(paths.tickets)
    write_atomic(paths.tickets / f"{record['ticket']}.json", _json(record))


def read_tickets(paths: LoopPaths) -> dict[str, TicketRecord]:
    """Return the dispatch records of a ticket loop by ticket; a broken one is left out."""
    try:
        files = sorted(file for file in paths.tickets.iterdir() if file.suffix == ".json")
    except FileNotFoundError:
        return {}
    found: dict[str, TicketRecord] = {}
    for file in files:
        try:
            record = _read(file, TicketRecord)
        except Unreadable:
            continue
        if record is not None and record["ticket"] == file.stem:
            found[record["ticket"]] = record
    return found


def forget_old_tickets(paths: LoopPaths, now: int) -> None:
    """Remove the dispatch records of tickets that ended more than TICKET_TTL_MS before `now` (epoch milliseconds).

    Those that still need a person, or were under way, stay.
    """
    for record in read_tickets(paths).values():
        ended = parse_iso(record["endedAt"] or "")
        if record["status"] in ("closed", "failed", "orphaned") and ended is not None and now - ended > TICKET_TTL_MS:
            (paths.tickets / f"{record['ticket']}.json").unlink(missing_ok=True)


def write_pid(paths: LoopPaths, pid: int) -> None:
    """Write the runner's pid as a plain number, for people and scripts."""
    write_atomic(paths.pid, b"%d\n" % pid, durable=False)


def set_aside_broken(path: Path) -> Path:
    """Rename a file that can't be read to `<name>.broken-<time>`; return its new path."""
    aside = path.with_name(f"{path.name}.broken-{iso(now_ms()).replace(':', '')}")
    return path.rename(aside)


def _json(value: State | Config | Iteration | TicketRecord) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _read(path: Path, shape: type[Shape]) -> Shape | None:
    value = read_json_object(path)
    if value is None:
        return None
    problem = misfit(value, shape)
    if problem:
        raise Unreadable(path, problem)
    return cast(Shape, value)
