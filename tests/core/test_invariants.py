"""Whatever happens in whatever order: no message lost or doubled, no budget overrun, no impossible status."""

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ralph_runner.core import effects as fx
from ralph_runner.core.inputs import (
    AgentEnd,
    AgentStart,
    AssistantEnd,
    AssistantStart,
    PiExited,
    QueueUpdate,
    Reply,
    Settled,
    ToolEnd,
    ToolStart,
    Usage,
    UserMessage,
)
from ralph_runner.core.phases import Ended, Running
from ralph_runner.core.results import Begin, PiSpawned, Terminate, Verified
from tests.core.talk import MARKER, Talk
from tests.effort import examples

CHANGES = {
    "starting": {"running", "waiting", "paused", "stopping", "stopped", "error"},
    "running": {"waiting", "paused", "stopping", "stopped", "completed", "error"},
    "waiting": {"running", "paused", "stopping", "stopped", "error"},
    "paused": {"running", "waiting", "stopping", "stopped", "error"},
    "stopping": {"stopped", "completed", "error"},
}
TURN_COST = 0.25


class World(RuleBasedStateMachine):
    """pi, an operator and a clock that do anything; pi keeps to its protocol as far as a living process can."""

    def __init__(self) -> None:
        super().__init__()
        self.talk = Talk(maxCost=5.0, maxIterations=30, verify="make", maxFailures=0)
        self.talk.slow_measure = True
        self.measured = 0
        self.alive = False
        self.asked = 0
        self.messages = 0
        self.working = False
        self.in_pi: list[str] = []
        self.tool = False
        self.statuses = ["starting"]
        self.talk.say(Begin())

    @property
    def requests(self) -> list[fx.Send]:
        return [e for e in self.talk.all if isinstance(e, fx.Send)]

    @precondition(lambda self: not self.alive and self._wants_pi())
    @rule()
    def pi_spawns(self) -> None:
        self.alive, self.working, self.tool, self.in_pi = True, False, False, []
        self.asked = len(self.requests)
        self.talk.say(PiSpawned(5, "1.5.2", ("pi",)))

    def _wants_pi(self) -> bool:
        starts = sum(isinstance(e, fx.StartPi) for e in self.talk.all)
        gone = sum(isinstance(e, _Gone) for e in self.talk.all)
        return starts > gone

    @precondition(lambda self: self.alive and self.asked < len(self.requests))
    @rule(success=st.integers(0, 9).map(bool))
    def pi_answers(self, success: bool) -> None:
        request = self.requests[self.asked]
        self.asked += 1
        data: dict[str, object] = {}
        text = str(request.members.get("message", ""))
        if request.command == "get_state":
            data, success = {"model": {"id": "m", "provider": "p"}, "isStreaming": self.working}, True
        if request.command == "clear_queue":
            self.in_pi, success = [], True
        if request.command == "new_session":
            self.in_pi = []
        if success and request.command in ("steer", "follow_up"):
            self.in_pi.append(text)
            self.talk.say(QueueUpdate(tuple(self.in_pi), ()))
        self.talk.say(Reply(request.command, request.id, success, data, "" if success else "no"))
        if success and request.command == "prompt" and self.alive:
            self.working = True
            self.talk.say(AgentStart(), UserMessage(text))
        if request.command == "abort" and self.working:
            self.working = False
            self.talk.say(AssistantEnd("", "aborted", None, "m", "p", Usage(), 0), AgentEnd(False), Settled(True))

    @precondition(lambda self: self.alive and self.working and not self._abort_asked())
    @rule(tools=st.integers(0, 1))
    def the_model_answers(self, tools: int) -> None:
        if self.in_pi:
            text = self.in_pi.pop(0)
            self.talk.say(QueueUpdate(tuple(self.in_pi), ()), UserMessage(text))
        self.talk.say(AssistantStart("stop"))
        stop = "toolUse" if tools else "stop"
        self.talk.say(AssistantEnd("text", stop, None, "m", "p", Usage(1, 1, 0, 0, TURN_COST), tools))
        if tools:
            self.talk.say(ToolStart("t", "bash"), ToolEnd("t", "bash", False))

    @precondition(lambda self: self.alive and self.working and not self._abort_asked())
    @rule(how=st.sampled_from(["stop", "marker", "429 try again in 60s", "500 oops", "503 no"]))
    def the_run_settles(self, how: str) -> None:
        self.working = False
        if how in ("stop", "marker"):
            text = MARKER if how == "marker" else "ok"
            self.talk.say(AssistantStart("stop"))
            self.talk.say(AssistantEnd(text, "stop", None, "m", "p", Usage(1, 1, 0, 0, TURN_COST), 0))
        else:
            self.talk.say(AssistantStart("error"), AssistantEnd("", "error", how, "m", "p", Usage(), 0))
        self.talk.say(AgentEnd(False), Settled(False))

    @precondition(lambda self: self._measures_wanted() > self.measured)
    @rule()
    def the_project_is_measured(self) -> None:
        self.measured += 1
        self.talk.measured()

    def _measures_wanted(self) -> int:
        return sum(isinstance(e, fx.MeasureWork) for e in self.talk.all)

    @precondition(lambda self: self.alive)
    @rule()
    def pi_dies(self) -> None:
        self.alive = self.working = False
        self.talk.all.append(_Gone())  # type: ignore[arg-type]
        self.talk.say(PiExited(-9, "sigkill", ""))

    @rule(verb=st.sampled_from(["steer", "followup"]), when=st.sampled_from(["now", "next"]))
    def the_operator_writes(self, verb: str, when: str) -> None:
        self.messages += 1
        body = {"message": f"words {self.messages}"} | ({"when": when} if verb == "followup" else {})
        self.talk.command(verb, id=f"m{self.messages}", **body)

    @rule(verb=st.sampled_from(["pause", "resume", "abort"]), then=st.sampled_from(["continue", "pause"]))
    def the_operator_orders(self, verb: str, then: str) -> None:
        self.messages += 1
        self.talk.command(verb, id=f"o{self.messages}", **({"then": then} if verb == "abort" else {}))

    @rule(ms=st.sampled_from([1, 5_000, 61_000, 1_000_000]))
    def time_passes(self, ms: int) -> None:
        self.talk.later(ms)

    @precondition(lambda self: self._verifies())
    @rule(code=st.sampled_from([0, 1]))
    def verify_ends(self, code: int) -> None:
        self.talk.say(Verified({"command": "make", "exitCode": code, "durationMs": 1, "tail": ""}))

    def _verifies(self) -> bool:
        asked = sum(isinstance(e, fx.RunVerify) for e in self.talk.all)
        return asked > sum("verify" in r for r in self.talk.records)

    @precondition(lambda self: self.messages > 20)
    @rule(verb=st.sampled_from(["stop", "sigterm"]))
    def it_is_ended(self, verb: str) -> None:
        self.talk.say(Terminate()) if verb == "sigterm" else self.talk.command("stop", id="end", when="now")

    @invariant()
    def every_message_is_held_or_delivered_never_both_never_neither(self) -> None:
        ended = isinstance(self.talk.loop.phase, Ended)
        for i in range(1, self.messages + 1):
            steps = self.talk.steps(f"m{i}")
            if not steps:
                continue
            here = sum(m.id == f"m{i}" for m in self.talk.loop.mail)
            assert steps[0] == "accepted" and steps.count("delivered") <= 1
            if not ended:
                assert here + steps.count("delivered") == 1, steps
            elif "delivered" not in steps:
                assert here == 1

    @invariant()
    def a_delivered_message_has_its_receipt_in_the_journal(self) -> None:
        journaled = {e.id for e in self.talk.all if isinstance(e, fx.Journal) and e.state == "delivered"}
        told = {
            e.event["id"]
            for e in self.talk.all
            if isinstance(e, fx.Emit) and e.event["type"] == "ralph_command" and e.event["state"] == "delivered"
        }
        assert told == journaled

    @invariant()
    def no_budget_is_overrun_by_more_than_a_turn(self) -> None:
        # One turn crosses the limit; one more is the last word of a run that was about to end by itself.
        assert self.talk.loop.stats["cost"] < 5.0 + 2 * TURN_COST

    def _abort_asked(self) -> bool:
        return any(request.command == "abort" for request in self.requests[self.asked :])

    @invariant()
    def every_change_of_status_is_a_possible_one(self) -> None:
        for e in self.talk.all:
            if isinstance(e, fx.Emit) and e.event["type"] == "ralph_status":
                assert e.event["to"] in CHANGES[e.event["from"]], e.event

    @invariant()
    def no_prompt_goes_out_before_its_session_is_open(self) -> None:
        unanswered = [request.command for request in self.requests[self.asked :]]
        assert "prompt" not in unanswered or "new_session" not in unanswered[: unanswered.index("prompt")]

    @invariant()
    def nothing_is_sent_to_a_pi_that_is_not_running(self) -> None:
        if isinstance(self.talk.loop.phase, Running):
            assert self.talk.loop.pi is not None

    @invariant()
    def records_are_numbered_without_gaps(self) -> None:
        numbers = [r["iteration"] for r in self.talk.records]
        assert numbers == list(range(1, len(numbers) + 1))


class _Gone:
    """Marks in the list of effects that a pi has ended."""


World.TestCase.settings = settings(
    max_examples=examples(80),
    stateful_step_count=50,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
test_invariants = World.TestCase
