"""Jobs on an engine that a dead runner has left: which there may be, and their end.

The records of the tickets name them. Called by `kill`, `clean` and `doctor --fix`, under the loop's lock or when its
runner is gone; `resume` takes them up instead. First their orders go, by which every job that runs ends itself with its
record; then the engine is told. May be done again.
"""

from contextlib import suppress
from typing import cast

from ralph_rpc.errors import RalphError
from ralph_rpc.files import records, trust
from ralph_rpc.files.atomic import Unreadable
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.git import hub as hubs
from ralph_rpc.git.calls import GitError
from ralph_rpc.launchers import engine_link, engines, presets
from ralph_rpc.machine import nofollow
from ralph_rpc.model.ticket import EngineJob, TicketRecord
from ralph_rpc.model.work import order_ref, orders_of, records_of


def jobs_left(paths: LoopPaths) -> list[TicketRecord]:
    """The records of the tickets whose jobs may be queued or running."""
    return [record for record in records.read_tickets(paths).values() if record.get("job") is not None]


def call_off(paths: LoopPaths) -> list[str]:
    """Ends them; a line for each. RalphError where the engine does not say that they are over."""
    left = jobs_left(paths)
    with suppress(Unreadable):
        config = records.read_config(paths)
        if left and config is not None and config.get("engine"):
            if not trust.was_made_here(paths, config):
                raise RalphError(f"the jobs of {paths.name!r} were not started here", "end them where they were")
            try:
                engine = engines.parse(config.get("engine") or "")
            except ValueError as error:
                raise RalphError(f"its engine is not known: {error}") from None
            if (missing := engines.lacks(engine)) is not None:
                raise RalphError(f"the jobs of {paths.name!r} on {engine.kind} are left: {missing[0]}", missing[1])
            with suppress(GitError):  # the engine ends them all the same
                orders: dict[str, str | None] = {order_ref(paths.name, record["ticket"]): None for record in left}
                hubs.publish(paths.project, config.get("hub"), orders)
            ids = {_name(paths, record): id for record in left if (id := _job(record)["id"]) is not None}
            over = engine_link.end_all(engine, ids, paths.dir / "engine") if ids else []
            for record in left:
                if _name(paths, record) in over or _job(record)["id"] is None:
                    records.write_ticket(paths, {**record, "status": "orphaned", "job": None})
            if missed := [id for name, id in ids.items() if name not in over]:
                raise RalphError(f"{engine.kind} has not ended job {', '.join(missed)} yet", "ralph-rpc doctor --fix")
            return [f"ended job {id} of {paths.name} on {engine.kind}" for id in ids.values()]
    return []


def unadopted(paths: LoopPaths) -> int:
    """How many records of its jobs wait in the project's own repository."""
    with suppress(GitError):
        return (
            len(hubs.refs(paths.project, None, records_of(paths.name))) if nofollow.exists(paths.dir / "engine") else 0
        )
    return 0


def forget_hub(paths: LoopPaths) -> None:
    """Removes what a loop that is removed has left in the project's own repository for its jobs, and they for it."""
    if nofollow.exists(paths.dir / "engine"):
        with suppress(GitError):
            refs = (orders_of(paths.name), records_of(paths.name))
            if here := [name for prefix in refs for name in hubs.refs(paths.project, None, prefix)]:
                hubs.publish(paths.project, None, dict.fromkeys(here))


def _job(record: TicketRecord) -> EngineJob:
    return cast(EngineJob, record.get("job"))


def _name(paths: LoopPaths, record: TicketRecord) -> str:
    return f"{presets.job_name(paths.dir, record['ticket'])}-{_job(record)['number']}"
