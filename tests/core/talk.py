"""Conversations with the core: inputs in, effects out, time by hand."""

from collections.abc import Mapping
from typing import Any, TypeVar

from ralph_rpc.model.config import Config
from ralph_rpc.model.iteration import Iteration
from ralph_runner.core import effects as fx
from ralph_runner.core.inputs import (
    AgentEnd,
    AgentStart,
    AssistantEnd,
    AssistantStart,
    PiExited,
    Reply,
    Settled,
    ToolEnd,
    ToolStart,
    Usage,
    UserMessage,
)
from ralph_runner.core.results import Begin, CommandCame, Measure, Now, PiSpawned, TaskRead, Tick, WorkMeasured
from ralph_runner.core.snapshot import new_loop
from ralph_runner.core.state import Loop
from ralph_runner.core.step import Input, next_deadline, step
from tests.core import transcript
from tests.core.typed import check

MARKER = "<promise>COMPLETE</promise>"
E = TypeVar("E")


def config(**changes: Any) -> Config:
    base: Config = {
        "model": None,
        "provider": None,
        "thinking": None,
        "maxIterations": 50,
        "maxCost": None,
        "maxTokens": None,
        "maxTimeMs": None,
        "iterationTimeoutMs": 7_200_000,
        "idleTimeoutMs": 900_000,
        "toolTimeoutMs": 3_600_000,
        "maxFailures": 10,
        "stallAfter": 0,
        "verify": None,
        "marker": MARKER,
        "reflectEvery": 0,
        "worktree": None,
        "extensions": [],
        "skills": [],
        "approve": None,
        "uiAnswers": {},
        "logSize": 1 << 28,
        "logKeep": 4,
        "pi": ["/usr/bin/pi"],
        "piVersion": "1.5.2",
        "piArgs": [],
    }
    return {**base, **changes}  # type: ignore[typeddict-item]


class Talk:
    """A core, a clock, and a project that changes whenever `tree` does."""

    def __init__(self, new_pi: bool = True, **changes: Any) -> None:
        self.loop: Loop = new_loop(config(**changes), ".ralph/x/task.md")
        self.mono, self.wall = 1_000, 1_700_000_000_000
        self.rand = 0.5
        self.new_pi = new_pi
        self.tree = 0
        self.slow_measure = False
        """Measures are answered by `measured`, not at once."""
        self.task = "# Goals\n\nmake it work\n"
        self.effects: list[fx.Effect] = []
        self.all: list[fx.Effect] = []
        self._transcript = transcript.begin()

    def say(self, *inputs: Input) -> list[fx.Effect]:
        """Feeds inputs; answers what the shell answers by itself (task and measures)."""
        self.effects = []
        queue = list(inputs)
        while queue:
            event = queue.pop(0)
            self._transcript.heard(self.mono, event)
            self.loop, effects = step(self.loop, event, Now(self.mono, self.wall, self.rand))
            self._transcript.asked(effects)
            check(self.loop, Loop)
            check(effects, list[fx.Effect])
            self.effects += effects
            self.all += effects
            for effect in effects:
                match effect:
                    case fx.ReadTask():
                        queue.append(TaskRead(self.task, "look back"))
                    case fx.MeasureWork() if not self.slow_measure:
                        queue.append(WorkMeasured(Measure("head", str(self.tree))))
                    case _:
                        pass
        return self.effects

    def measured(self) -> list[fx.Effect]:
        return self.say(WorkMeasured(Measure("head", str(self.tree))))

    def later(self, ms: int) -> list[fx.Effect]:
        self.mono += ms
        self.wall += ms
        return self.say(Tick())

    def due(self) -> list[fx.Effect]:
        """Lets time pass up to the next deadline."""
        deadline = next_deadline(self.loop)
        assert deadline is not None, "nothing is due"
        return self.later(max(0, deadline - self.mono))

    def reply(self, command: str, data: Mapping[str, Any] | None = None, success: bool = True, error: str = "") -> None:
        sent = [e for e in self.all if isinstance(e, fx.Send) and e.command == command]
        self.say(Reply(command, sent[-1].id, success, data or {}, error))

    def boot(self) -> None:
        """Until the first prompt is out."""
        self.say(Begin())
        self.greet()

    def greet(self) -> None:
        self.say(PiSpawned(77, "1.5.2", ("pi",)))
        self.reply("get_state", {"model": {"id": "m1", "provider": "fake"}})
        self.reply("clear_queue", success=self.new_pi, error="" if self.new_pi else "Unknown command: clear_queue")
        self.reply("new_session", {"cancelled": False})

    def accept(self) -> None:
        """pi takes the prompt and begins."""
        self.reply("prompt")
        self.say(AgentStart(), UserMessage(self.prompt))

    def turn(
        self,
        text: str = "did something",
        stop: str = "stop",
        tools: int = 0,
        cost: float = 0.01,
        error: str | None = None,
    ) -> None:
        self.say(AssistantStart("stop" if stop not in ("error", "aborted") else stop))
        usage = Usage(100, 10, 0, 0, cost) if stop not in ("error", "aborted") else Usage()
        self.say(AssistantEnd(text, stop, error, "m1", "fake", usage, tools))
        for i in range(tools):
            self.say(ToolStart(f"t{i}", "bash"), ToolEnd(f"t{i}", "bash", False))

    def settle(self) -> None:
        self.say(AgentEnd(False), Settled(False))
        if any(isinstance(e, fx.Send) and e.command == "get_session_stats" for e in self.effects):
            self.reply("get_session_stats", {"sessionId": "s", "sessionFile": "/s.jsonl"})

    def iterate(self, text: str = "did something", change: bool = True, **turn: Any) -> Iteration:
        """One whole iteration, up to what the core does after it."""
        self.accept()
        self.turn(text, **turn)
        if change:
            self.tree += 1
        self.settle()
        if any(isinstance(e, fx.Send) and e.command == "new_session" for e in self.effects):
            self.reply("new_session", {"cancelled": False})
        return self.records[-1]

    def command(self, verb: Any, id: str = "c1", **body: Any) -> list[fx.Effect]:
        defaults: dict[str, Any] = {
            "followup": {"when": "now"},
            "stop": {"when": "iteration"},
            "abort": {"then": "continue"},
        }.get(verb, {})
        return self.say(CommandCame(id, verb, {**defaults, **body}))  # type: ignore[typeddict-item]

    def exit(self, code: int | None = 0, stderr: str = "") -> None:
        self.say(PiExited(code, "natural", stderr))

    def wait_over(self) -> None:
        assert self.status == "waiting"
        self.due()
        self.greet() if self.loop.pi is None else self.reply("new_session", {"cancelled": False})

    @property
    def prompt(self) -> str:
        """The last prompt."""
        return str([e for e in self.all if isinstance(e, fx.Send) and e.command == "prompt"][-1].members["message"])

    @property
    def records(self) -> list[Iteration]:
        return [e.record for e in self.all if isinstance(e, fx.EndIteration)]

    @property
    def status(self) -> str:
        return self.loop.status

    def sent(self, command: str) -> list[fx.Send]:
        """What the last `say` sent to pi."""
        return [e for e in self.effects if isinstance(e, fx.Send) and e.command == command]

    def ever_sent(self, command: str) -> list[fx.Send]:
        """What was sent to pi from the beginning."""
        return [e for e in self.all if isinstance(e, fx.Send) and e.command == command]

    def did(self, kind: type[E]) -> list[E]:
        """The last `say`'s effects of a kind."""
        return [e for e in self.effects if isinstance(e, kind)]

    def steps(self, id: str) -> list[str]:
        """All steps of a command, as its events tell them."""
        found: list[str] = []
        for e in self.all:
            if isinstance(e, fx.Emit) and e.event["type"] == "ralph_command" and e.event["id"] == id:
                found.append(e.event["state"])
        return found

    def events(self, kind: str) -> list[dict[str, Any]]:
        """The events of a kind, without their type and time."""
        found: list[dict[str, Any]] = [dict(e.event) for e in self.all if isinstance(e, fx.Emit)]
        return [{k: v for k, v in one.items() if k not in ("type", "at")} for one in found if one["type"] == kind]

    def notices(self) -> list[str]:
        return [e.event["message"] for e in self.all if isinstance(e, fx.Emit) and e.event["type"] == "ralph_notice"]


def done(talk: Talk) -> tuple[str, str | None]:
    """Lets pi go where it is being ended; how the loop ended."""
    if talk.status == "stopping":
        talk.say(PiExited(0, "eof", ""))
    return talk.status, talk.loop.stop_reason
