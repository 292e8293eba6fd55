"""A ticket loop's core in a world made of values: pis that answer, git that merges, time by hand.

`World` answers what the shell answers by itself; what a test wants otherwise it sets before, or answers by hand.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ralph_rpc.model.ticket import TicketRecord
from ralph_rpc.tickets.ticket import Backlog, BadTicket, Ticket
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
)
from ralph_runner.core.phases import Running
from ralph_runner.core.results import (
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
)
from ralph_runner.core.snapshot import Facts
from ralph_runner.core.tickets import effects as tx
from ralph_runner.core.tickets import results
from ralph_runner.core.tickets.batch import Link
from ralph_runner.core.tickets.snapshot import new_tickets
from ralph_runner.core.tickets.state import TicketLoop
from ralph_runner.core.tickets.step import next_deadline, step
from tests.core import transcript
from tests.core.talk import MARKER, config
from tests.core.typed import check


def ticket(
    id: str,
    *components: str,
    deps: tuple[str, ...] = (),
    priority: int = 2,
    status: Any = "open",
    type: str = "task",
    parent: str = "",
) -> Ticket:
    return Ticket(
        type=type,
        parent=parent,
        id=id,
        status=status,
        deps=deps,
        links=(),
        tags=tuple(f"component:{c}" for c in components),
        priority=priority,
        title=f"Do {id}",
        path=Path(f"/t/{id}.md"),
    )


BASE = "base"
"""The target's commit before anything has landed."""


class World:
    """The core, its tickets and what has become of them."""

    def __init__(self, *tickets: Ticket, records: dict[str, TicketRecord] | None = None, **options: Any) -> None:
        defaults: dict[str, Any] = {"tickets": "/t", "worktrees": True, "parallel": 3, "into": "main", "attempts": 2}
        settings = config(**{**defaults, **options})
        self.loop = new_tickets("x", settings, records or {})
        self.tickets = {one.id: one for one in tickets}
        self.bad: tuple[BadTicket, ...] = ()
        self.epics_travel = False
        """Git brings the files of epics."""
        self.mono, self.wall = 1_000, 1_700_000_000_000
        self.all: list[Any] = []
        self.sent: dict[str, list[fx.Send]] = {}
        self.pids = 100
        self.hold: set[type] = set()
        """Effects that the world leaves to the test to answer."""
        self.held: list[Any] = []
        self.target: tuple[str, ...] = ()
        """What has landed, in order: the target's commit and tree are made of it."""
        self.conflicts: dict[str, list[str]] = {}
        """Conflicts to come with the target, by ticket; then: none."""
        self.behind: dict[str, list[str]] = {}
        """Tickets with which this one conflicts while they are in one batch with it."""
        self.waits: dict[str, list[str]] = {}
        """What is in a person's checkout where this one would go, to be seen when a batch is built."""
        self.updates: dict[str, list[str | None]] = {}
        self.lands: list[results.BatchLanded] = []
        """Answers to come for LandBatch; then: it landed."""
        self.commits: dict[str, list[str | None]] = {}
        self.verifies: dict[str, list[int]] = {}
        """Exit codes to come of verify, by ticket; then: 0."""
        self.merge_verifies: list[int] = []
        """Exit codes to come of the queue's verify; then: what `red` says."""
        self.red: Callable[[tuple[str, ...]], bool] = lambda tickets: False
        """Whether a target with these tickets is red."""
        self.verify_ms = 0
        """How long each run says that it took; 0: too short to be worth starting over."""
        self.checked_out = ""
        self.trees: set[str] = set()
        """Those that were seen green by the queue's verify."""
        self.queue_verifies: list[tuple[str, ...]] = []
        self.merged: list[str] = []
        self.began: dict[str, tuple[str, ...]] = {}
        """Ticket -> what was in the target when its branch left it."""
        self.closed_in_file: set[str] = set()
        self._transcript = transcript.begin()

    def begin(self) -> None:
        self.say(Begin())

    def say(self, *inputs: Any) -> None:
        queue = list(inputs)
        while queue:
            event = queue.pop(0)
            self._transcript.heard(self.mono, event)
            self.loop, effects = step(self.loop, event, Now(self.mono, self.wall, 0.5))
            self._transcript.asked(effects)
            check(self.loop, TicketLoop)
            check(effects, list[tx.TicketEffect])
            self.all += effects
            for effect in effects:
                queue += self._answer(effect)

    def let_go(self) -> None:
        """Answers what was held, and holds nothing more."""
        held, self.hold, self.held = self.held, set(), []
        for effect in held:
            self.say(*self._answer(effect))

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
            "followup": {"when": "now"},
            "stop": {"when": "iteration"},
            "abort": {"then": "continue"},
        }.get(verb, {})
        self.say(CommandCame(id, verb, {**defaults, **body}))  # type: ignore[typeddict-item]

    def works(self, key: str) -> bool:
        """True if that worker waits for the model."""
        return isinstance(self.loop.workers[key].phase, Running)

    def attempt(self, key: str, text: str = f"done\n{MARKER}", stop: str = "stop", cost: float = 0.01) -> None:
        """The model answers once, and pi settles."""
        prompt = next(send for send in reversed(self.sent[key]) if send.command == "prompt")
        self._from(key, Reply("prompt", prompt.id, True), AgentStart(), UserMessage(str(prompt.members["message"])))
        error = None if stop == "stop" else "boom"
        usage = Usage(100, 10, 0, 0, cost)
        self._from(key, AssistantStart(stop), AssistantEnd(text, stop, error, "m1", "fake", usage, 0))
        self._from(key, AgentEnd(False), Settled(False))

    def turn(self, key: str, cost: float = 0.01) -> None:
        """The model answers with a tool call, and is not done: 110 tokens."""
        prompt = next(send for send in reversed(self.sent[key]) if send.command == "prompt")
        self._from(key, Reply("prompt", prompt.id, True), AgentStart(), UserMessage(str(prompt.members["message"])))
        usage = Usage(100, 10, 0, 0, cost)
        self._from(key, AssistantStart("toolUse"), AssistantEnd("", "toolUse", None, "m1", "fake", usage, 1))

    def prompts(self, key: str) -> list[str]:
        return [str(send.members["message"]) for send in self.sent.get(key, []) if send.command == "prompt"]

    @property
    def statuses(self) -> dict[str, str]:
        records = {id: record["status"] for id, record in self.loop.settled.items()}
        return {**records, **{id: job.record["status"] for id, job in self.loop.jobs.items()}}

    def events(self, kind: str) -> list[Any]:
        return [e.event for e in self.all if isinstance(e, fx.Emit) and e.event["type"] == kind]

    def _from(self, key: str, *inputs: Any) -> None:
        self.say(*(results.From(key, one) for one in inputs))

    def _answer(self, effect: Any) -> list[Any]:
        if type(effect) in self.hold:
            self.held.append(effect)
            return []
        match effect:
            case tx.To(key, inner):
                return [results.From(key, one) for one in self._pi(key, inner)]
            case tx.Hire(key):
                self.sent.setdefault(key, [])
            case tx.Scan():
                return [results.Scanned(Backlog(dict(self.tickets), self.bad))]
            case tx.CloseEpic(id):
                return [results.EpicTravels(id) if self.epics_travel else results.TicketClosed(id)]
            case tx.OpenWorktree(id):
                self.began[id] = self.target
                return [results.Opened(id, commit_of(self.target) if self.target else BASE, f"/w/{id}", False)]
            case tx.Commit(id):
                return [results.Committed(id, _next(self.commits, id, None), tree_of((*self.began.get(id, ()), id)))]
            case tx.Update(id):
                report = results.Updated(id, _next(self.updates, id, None))
                if report.conflict is None:
                    self.began[id] = self.target
                return [report]
            case tx.BuildBatch(merges):
                return [self._build([id for id, _ in merges])]
            case tx.CheckOutBatch(commit):
                self.checked_out = commit
                return [results.BatchCheckedOut(commit)]
            case tx.VerifyBatch(_, command):
                return [self._verify_batch(self.checked_out, command)]
            case tx.CancelVerifyBatch():
                runs = [one for one in self.held if isinstance(one, tx.VerifyBatch)]
                self.held = [one for one in self.held if one not in runs]
                return [results.BatchVerified(None) for _ in runs]
            case tx.LeaveQueue():
                return [results.QueueLeft()]
            case tx.LandBatch(target, commit, ids):
                return [self._land(target, commit, ids)]
            case tx.CloseTicket(id):
                return [results.TicketClosed(id)]
            case tx.RemoveWorktree(id):
                return [results.Removed(id)]
            case tx.LookAtRest(id):
                return [results.RestSeen(id, None)]
            case tx.TakeBranch(id):
                return [results.BranchTaken(id)]
            case tx.SetUp(id, command):
                return [results.WasSetUp(id, _verify(command, 0, self.verify_ms))]
            case _:
                pass
        return []

    def _build(self, ids: list[str]) -> results.BatchBuilt:
        conflicts = {id: self.conflicts[id].pop(0) for id in ids if self.conflicts.get(id)}
        waits = {id: self.waits[id].pop(0) for id in ids if self.waits.get(id) and id not in conflicts}
        links: list[Link] = []
        behind: set[str] = set()
        for id in ids:
            if id in conflicts or id in waits or id in self.merged:
                continue
            if any(other.ticket in self.behind.get(id, ()) for other in links):
                behind.add(id)
                continue
            content = (*self.target, *(link.ticket for link in links), id)
            links.append(Link(id, commit_of(content), tree_of(content)))
        landed = {id: f"merge-{id}" for id in ids if id in self.merged}
        return results.BatchBuilt(
            commit_of(self.target),
            tree_of(self.target),
            tuple(links),
            landed,
            conflicts,
            frozenset(behind),
            waits=waits,
        )

    def _verify_batch(self, commit: str, command: str) -> results.BatchVerified:
        content = content_of(commit)
        self.queue_verifies.append(content)
        red = self.red(content)
        code = self.merge_verifies.pop(0) if self.merge_verifies else int(red)
        if code == 0:
            self.trees.add(tree_of(content))
        return results.BatchVerified(_verify(command, code, self.verify_ms))

    def _land(self, target: str, commit: str, ids: tuple[str, ...]) -> results.BatchLanded:
        if self.lands:
            return self.lands.pop(0)
        if target != commit_of(self.target):
            return results.BatchLanded()
        self.target = content_of(commit)
        self.merged += ids
        return results.BatchLanded(commit)

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
            case fx.RunVerify(None):
                return [Verified(None, passed=True)]
            case fx.RunVerify(str(command)):
                code = _next(self.verifies, key, int(self.red((*self.began.get(key, ()), key))))
                return [Verified(_verify(command, code, self.verify_ms))]
            case fx.CancelVerify():
                return [Verified(None)]
            case fx.Send(name, id):
                self.sent[key].append(effect)
                data: dict[str, Any] = {"model": {"id": "m1", "provider": "fake"}} if name == "get_state" else {}
                return [] if name in ("prompt", "steer", "follow_up", "abort") else [Reply(name, id, True, data)]
            case _:
                return []


def commit_of(content: tuple[str, ...]) -> str:
    """The target's commit when these tickets are in it."""
    return f"commit:{' '.join(content)}"


def content_of(commit: str) -> tuple[str, ...]:
    return () if commit == BASE else tuple(commit.removeprefix("commit:").split())


def tree_of(content: tuple[str, ...]) -> str:
    """The same tickets make the same tree, in whatever order."""
    return f"tree:{' '.join(sorted(content))}"


def facts() -> Facts:
    """What state.json has of the runner."""
    return Facts("x", "/p", "/p/.ralph/x", 5, 1.0, "boot", "2024-01-01T00:00:00.000Z", None)


def verdict(world: World) -> tuple[str, str | None]:
    """Status and stop reason."""
    return world.loop.status, world.loop.stop_reason


def _next(answers: dict[str, Any], id: str, usual: Any) -> Any:
    return answers[id].pop(0) if answers.get(id) else usual


def _verify(command: str, code: int, ms: int) -> Any:
    return {"command": command, "exitCode": code, "durationMs": ms, "tail": f"exit {code}"}
