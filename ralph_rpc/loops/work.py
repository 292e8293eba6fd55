"""One ticket in a clone of a hub, as a job of an engine does it: an ordinary one-ticket loop, whose work and record are pushed.

The loop's runner is tied to this process: where a job ends without warning, nothing of it works on. Told to end, it ends the
loop at once and pushes what there is, so that what was spent is counted; told so while it pushes, it pushes on. The record is
one ref, whose commit has the
work for its parent: it arrives whole or not at all. If the machine dies here, the hub has no record, and the head takes
the job for lost; begun again on the same machine, the loop in the clone is resumed.
"""

import os
import platform
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import orjson

from ralph_rpc import git
from ralph_rpc.clock import iso, now_ms
from ralph_rpc.errors import RalphError
from ralph_rpc.files import records
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.git import hub as hubs
from ralph_rpc.git.calls import GitError, head
from ralph_rpc.git.repository import branch_head
from ralph_rpc.git.uncommitted import commit_leftovers
from ralph_rpc.loops import start as starting
from ralph_rpc.loops.handle import Loop
from ralph_rpc.loops.restart import restart
from ralph_rpc.loops.status import read_state
from ralph_rpc.loops.ticket_loops import loop_name, whole_id
from ralph_rpc.loops.ticket_run import TicketRun
from ralph_rpc.loops.workplace import (
    Errand,
    Workplace,
    furnish,
    is_wanted,
    open_clone,
    project_of,
    read_order,
    workplace,
)
from ralph_rpc.model.state import State
from ralph_rpc.model.work import RECORD, WorkRecord, record_ref
from ralph_rpc.options.resolve import override
from ralph_rpc.tickets.ticket import branch_of

LOOK_S = 0.5
ASK_S = 3.0
"""Between two looks at a hub that is a folder, whether the job is still wanted; at one that is reached by a network ten
times that.
"""
PUSHES = 12
LONGEST_GAP_S = 60.0
CALLED_OFF = "the job was called off"
TOLD_TO_END = "the job was told to end"


class Ending:
    """Whether this process was told to end: by a signal, for which its caller calls `ask`."""

    def __init__(self) -> None:
        self.asked = False
        self._noted = False

    def ask(self, insists: bool) -> None:
        """KeyboardInterrupt while there is nothing to record yet, and for a person who `insists` on a second one."""
        if not self._noted or (self.asked and insists):
            raise KeyboardInterrupt
        self.asked = True

    def is_noted(self) -> None:
        """From now on it is looked at in turn, and interrupts no step."""
        self._noted = True


class Done(NamedTuple):
    """What became of the errand."""

    record: WorkRecord
    branch: str
    commit: str


def work(
    ticket: str,
    hub: str,
    loop: str | None,
    job: str | None,
    folder: Path | None,
    given: Mapping[str, object],
    tickets: str,
    told: Callable[[str], None],
    ending: Ending,
) -> Done | None:
    """Does the ticket and pushes what came of it; None where nobody wants it done any more.

    `ending` ends it early, with a record all the same. RalphError where nothing could be begun, or pushed.
    """
    errand = Errand(ticket, hub, loop or loop_name(ticket), job)
    place = workplace(errand, folder)
    with place.held():
        os.environ["RALPH_HOME"] = str(place.home)
        git.allow_fetching()
        again = place.is_begun()
        wanted = is_wanted(place)
        if wanted and not again:
            place.clear()
            wanted = open_clone(place)
        if not wanted:
            place.leave(LoopPaths.of(place.clone, errand.loop))
            told(f"nobody waits for job {job} of {ticket} any more")
            return None
        ending.is_noted()
        place.begin()
        return _Work(place, given, tickets, told, ending).do(again)


class _Work:
    """One errand under way."""

    def __init__(
        self, place: Workplace, given: Mapping[str, object], tickets: str, told: Callable[[str], None], ending: Ending
    ) -> None:
        self._place, self._given, self._tickets, self._told, self._ending = place, given, tickets, told, ending
        self._paths = LoopPaths.of(place.clone, place.errand.loop)
        self._ticket = place.errand.ticket
        self._began = now_ms()

    def do(self, again: bool) -> Done:
        run: TicketRun | None = None
        error: str | None = None
        try:
            run = self._resumed() if again else self._started()
            self._told(f"working on {self._ticket} in {self._paths.project}")
            self._watch(run)
        except RalphError as failure:
            error = f"{failure.message} ({failure.hint})" if failure.hint else failure.message
        if run is not None and run.poll() is None:
            _end(run, TOLD_TO_END)
        return self._push(self._record(error))

    def _started(self) -> TicketRun:
        place, errand = self._place, self._place.errand
        if errand.job is None:
            self._ticket = whole_id(place.clone, self._tickets, errand.ticket)
            given = {**self._given, "only": (self._ticket,), "worktrees": True, "merge": False}
            given |= {"worktrees_dir": str(place.worktrees)}
            plan = starting.check(errand.loop, place.clone, given, self._tickets)
        else:
            order = read_order(place.clone)
            self._paths = LoopPaths.of(project_of(place, order).resolve(), errand.loop)
            config = furnish(place, order)
            plan = starting.plan_of(self._paths, override(config, {}), config.get("tickets"))
        starting.start(plan, None, tied=True)
        return TicketRun(Loop(plan.paths), self._ticket)

    def _resumed(self) -> TicketRun:
        """The job was begun again, and its clone is still there."""
        if self._place.errand.job is not None:
            self._paths = LoopPaths.of(project_of(self._place, read_order(self._place.clone)), self._place.errand.loop)
        loop = Loop(self._paths)
        if records.read_config(self._paths) is None:
            return self._started()
        found = loop.status()
        if found.shown != "completed":
            restart(self._paths, found.state, {}, tied=True)
        return TicketRun(loop, self._ticket)

    def _watch(self, run: TicketRun) -> None:
        gap = ASK_S if hubs.is_near(self._place.errand.hub) else ASK_S * 10
        asked = time.monotonic()
        while run.poll() is None and not self._ending.asked:
            time.sleep(LOOK_S)
            if time.monotonic() - asked < gap:
                continue
            asked = time.monotonic()
            with suppress(GitError):  # a hub that is away says nothing
                if not is_wanted(self._place):
                    _end(run, CALLED_OFF)

    def _record(self, error: str | None) -> WorkRecord:
        state = read_state(self._paths)
        ticket = records.read_tickets(self._paths).get(self._ticket)
        outcome: WorkRecord = {
            "loop": self._place.errand.loop,
            "ticket": self._ticket,
            "job": self._place.errand.job or f"by-hand-{self._began}",
            "host": platform.node(),
            "startedAt": iso(self._began),
            "endedAt": iso(now_ms()),
            "outcome": "error",
            "stopReason": state["stopReason"] if state is not None else None,
            "error": error,
            "record": ticket,
            "iterations": records.read_iterations(self._paths),
        }
        if error is not None:
            return outcome
        if ticket is not None and ticket["status"] == "needs-merge" and state and state["status"] == "completed":
            return {**outcome, "outcome": "done"}
        if ticket is not None and ticket["status"] == "failed":
            return {**outcome, "outcome": "failed", "error": ticket["error"]}
        if state is None or state["status"] != "error":
            why = TOLD_TO_END if self._ending.asked else _why(state)
            return {**outcome, "outcome": "stopped", "error": why}
        return {**outcome, "error": state["error"]}

    def _push(self, record: WorkRecord) -> Done:
        place, errand = self._place, self._place.errand
        branch = branch_of(errand.loop, self._ticket)
        kept = record["record"]
        if record["outcome"] != "done" and kept is not None and kept["worktreePath"] is not None:
            with suppress(GitError, OSError):
                commit_leftovers(Path(kept["worktreePath"]), branch, f"{self._ticket}: unfinished\n")
        attempt = 0
        while True:
            attempt += 1
            try:
                tip = self._push_once(record, branch)
                break
            except GitError as error:
                if attempt == PUSHES or (errand.job is None and not error.is_passing):
                    hint = f"the work is in {place.clone}, on branch {branch}"
                    raise RalphError(f"nothing could be pushed to {errand.hub}: {error.reason}", hint) from error
                self._told(f"the push failed, and is tried again: {error.reason}")
                time.sleep(min(2.0**attempt, LONGEST_GAP_S))
        place.leave(self._paths)
        return Done(record, branch, tip)

    def _push_once(self, record: WorkRecord, branch: str) -> str:
        """From the first step on, as what ends a job may have ended one of its gits. Returns the work's commit."""
        place, errand = self._place, self._place.errand
        tip = branch_head(place.clone, branch) or head(place.clone)
        assert tip is not None
        subject = f"{self._ticket}: job {record['job']} of {errand.loop}"
        note = hubs.write_note(place.clone, {RECORD: orjson.dumps(record)}, [tip], subject)
        updates: dict[str, str | None] = {record_ref(errand.loop, self._ticket, record["job"]): note}
        if errand.job is None:
            updates[f"refs/heads/{branch}"] = tip
        hubs.publish(place.clone, errand.hub, updates)
        return tip


def _end(run: TicketRun, reason: str) -> None:
    with suppress(RalphError):  # what outlives this ends with the job; the record has to be pushed
        run.end(reason)


def _why(state: State | None) -> str:
    return (state and state["error"]) or (f"stopped: {state['stopReason']}" if state else "the runner is gone")
