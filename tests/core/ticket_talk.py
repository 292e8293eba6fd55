"""A ticket loop's core in a world made of values: pis that answer, git that merges, time by hand.

`World` answers what the shell answers by itself; what a test wants otherwise it sets before, or answers by hand.
"""

from pathlib import Path
from typing import Any

from ralph_rpc.model.ticket import TicketRecord
from ralph_rpc.tickets.ticket import Backlog, Ticket
from ralph_runner.core import effects as fx
from ralph_runner.core.inputs import (
    AgentEnd,
    AgentStart,
    AssistantEnd,
    AssistantStart,
    PiExited,
    Reply,
    Settled,
    Usage,
    UserMessage,
)  # fmt: skip
from ralph_runner.core.reports import (
    Begin,
    CommandCame,
    Measure,
    Now,
    PiSpawned,
    TaskRead,
    Tick,
    TicketRead,
    Verified,
    WorkMeasured,
)  # fmt: skip
from ralph_runner.core.state import Running
from ralph_runner.core.tickets import effects as tx
from ralph_runner.core.tickets import reports as rp
from ralph_runner.core.tickets.snapshot import new_tickets
from ralph_runner.core.tickets.step import next_deadline, step
from tests.core.talk import MARKER, config


def ticket(id: str, *components: str, deps: tuple[str, ...] = (), priority: int = 2, status: Any = "open") -> Ticket:
    return Ticket(
        id=id, status=status, deps=deps, links=(), tags=tuple(f"component:{c}" for c in components),
        priority=priority, title=f"Do {id}", path=Path(f"/t/{id}.md"),
    )  # fmt: skip


class World:
    """The core, its tickets and what has become of them."""

    def __init__(self, *tickets: Ticket, records: dict[str, TicketRecord] | None = None, **options: Any) -> None:
        defaults: dict[str, Any] = {"tickets": "/t", "worktrees": True, "parallel": 3, "into": "main", "attempts": 2}
        settings = config(**{**defaults, **options})
        self.loop = new_tickets("x", settings, records or {})
        self.tickets = {one.id: one for one in tickets}
        self.mono, self.wall = 1_000, 1_700_000_000_000
        self.all: list[Any] = []
        self.sent: dict[str, list[fx.Send]] = {}
        self.pids = 100
        self.hold: set[type] = set()
        """Effects that the world leaves to the test to answer."""
        self.standing: dict[str, list[rp.Looked]] = {}
        """Answers to come for LookAtTarget, by ticket; then: ready."""
        self.updates: dict[str, list[str | None]] = {}
        self.lands: dict[str, list[rp.Landed]] = {}
        self.commits: dict[str, list[str | None]] = {}
        self.verifies: dict[str, list[int]] = {}
        """Exit codes to come of verify, by ticket; then: 0."""
        self.merge_verifies: dict[str, list[int]] = {}
        self.merged: list[str] = []
        self.closed_in_file: set[str] = set()

    def begin(self) -> None:
        self.say(Begin())

    def say(self, *inputs: Any) -> None:
        queue = list(inputs)
        while queue:
            self.loop, effects = step(self.loop, queue.pop(0), Now(self.mono, self.wall, 0.5))
            self.all += effects
            for effect in effects:
                queue += self._answer(effect)

    def later(self, ms: int) -> None:
        self.mono += ms
        self.wall += ms
        self.say(Tick())

    def due(self) -> None:
        deadline = next_deadline(self.loop)
        assert deadline is not None
        self.later(max(0, deadline - self.mono))

    def command(self, verb: Any, id: str = "c1", **body: Any) -> None:
        defaults: dict[str, Any] = {
            "followup": {"when": "now"}, "stop": {"when": "iteration"}, "abort": {"then": "continue"},
        }.get(verb, {})  # fmt: skip
        self.say(CommandCame(id, verb, {**defaults, **body}))  # type: ignore[typeddict-item]

    def works(self, key: str) -> bool:
        """Tell whether that worker waits for the model."""
        return isinstance(self.loop.workers[key].phase, Running)

    def attempt(self, key: str, text: str = f"done\n{MARKER}", stop: str = "stop", cost: float = 0.01) -> None:
        """The model answers once, and pi settles."""
        prompt = next(send for send in reversed(self.sent[key]) if send.command == "prompt")
        self._from(key, Reply("prompt", prompt.id, True), AgentStart(), UserMessage(str(prompt.members["message"])))
        error = None if stop == "stop" else "boom"
        usage = Usage(100, 10, 0, 0, cost)
        self._from(key, AssistantStart(stop), AssistantEnd(text, stop, error, "m1", "fake", usage, 0))
        self._from(key, AgentEnd(False), Settled(False))

    def prompts(self, key: str) -> list[str]:
        return [str(send.members["message"]) for send in self.sent.get(key, []) if send.command == "prompt"]

    @property
    def statuses(self) -> dict[str, str]:
        records = {id: record["status"] for id, record in self.loop.settled.items()}
        return {**records, **{id: job.record["status"] for id, job in self.loop.jobs.items()}}

    def events(self, kind: str) -> list[Any]:
        return [e.event for e in self.all if isinstance(e, fx.Emit) and e.event["type"] == kind]

    def _from(self, key: str, *inputs: Any) -> None:
        self.say(*(rp.From(key, one) for one in inputs))

    def _answer(self, effect: Any) -> list[Any]:
        if type(effect) in self.hold:
            return []
        match effect:
            case tx.To(key, inner):
                return [rp.From(key, one) for one in self._pi(key, inner)]
            case tx.Hire(key):
                self.sent[key] = []
            case tx.Scan():
                return [rp.Scanned(Backlog(dict(self.tickets), ()))]
            case tx.OpenWorktree(id):
                return [rp.Opened(id, "base", f"/w/{id}", False)]
            case tx.Commit(id):
                return [rp.Committed(id, _next(self.commits, id, None))]
            case tx.LookAtTarget(id):
                return [_next(self.standing, id, rp.Looked(id, "ready", "head"))]
            case tx.Update(id):
                return [rp.Updated(id, _next(self.updates, id, None))]
            case tx.VerifyMerge(id, command):
                return [rp.MergeVerified(id, _verify(command, _next(self.merge_verifies, id, 0)))]
            case tx.Land(id):
                report = _next(self.lands, id, rp.Landed(id, f"merge-{id}"))
                if report.commit is not None:
                    self.merged.append(id)
                return [report]
            case tx.CloseTicket(id):
                return [rp.TicketClosed(id)]
            case tx.RemoveWorktree(id):
                return [rp.Removed(id)]
            case tx.LookAtRest(id):
                return [rp.RestSeen(id, None)]
            case tx.SetUp(id, command):
                return [rp.WasSetUp(id, _verify(command, 0))]
            case _:
                pass
        return []

    def _pi(self, key: str, effect: Any) -> list[Any]:
        if type(effect) in self.hold:
            return []
        match effect:
            case fx.StartPi():
                self.pids += 1
                return [PiSpawned(self.pids, "1.5.2", ("pi",), 1.0)]
            case fx.EndPi():
                return [PiExited(0, "eof", "")]
            case fx.ReadTask():
                id = key or next(id for id, job in self.loop.jobs.items())
                return [TaskRead(f"# Do {id}\n", ticket=TicketRead(f".tickets/{id}.md", id in self.closed_in_file))]
            case fx.MeasureWork():
                return [WorkMeasured(Measure("head", "tree"))]
            case fx.RunVerify(command):
                return [Verified(_verify(command, _next(self.verifies, key, 0)))]
            case fx.CancelVerify():
                return [Verified(None)]
            case fx.Send(name, id):
                self.sent[key].append(effect)
                data: dict[str, Any] = {"model": {"id": "m1", "provider": "fake"}} if name == "get_state" else {}
                return [] if name in ("prompt", "steer", "follow_up", "abort") else [Reply(name, id, True, data)]
            case _:
                return []


def _next(answers: dict[str, Any], id: str, usual: Any) -> Any:
    return answers[id].pop(0) if answers.get(id) else usual


def _verify(command: str, code: int) -> Any:
    return {"command": command, "exitCode": code, "durationMs": 1, "tail": f"exit {code}"}
