"""Conversations of the core with a pi that has queues, in any order of what the two of them do."""

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from ralph_runner.core import effects as fx
from ralph_runner.core.inputs import (
    AgentEnd,
    AgentStart,
    AssistantEnd,
    AssistantStart,
    PiInput,
    QueueUpdate,
    Reply,
    Settled,
    ToolEnd,
    ToolStart,
    Usage,
    UserMessage,
)
from ralph_runner.core.results import Begin, PiSpawned
from tests.core.talk import Talk

STEPS = 4_000
"""More than any of these conversations takes."""


class GapPi:
    """pi as far as its queues go: it accepts messages when idle too, and a new session drops them."""

    def __init__(self, new: bool, turns: int) -> None:
        self.new, self.turns = new, turns
        self.stdin: deque[fx.Send] = deque()
        self.stdout: deque[PiInput] = deque()
        self.steering: list[str] = []
        self.follow_up: list[str] = []
        self.streaming = False
        self.running: Iterator[None] | None = None
        self.seen: list[str] = []
        """What the model was shown."""

    def read(self) -> None:
        """Takes one request from stdin."""
        request = self.stdin.popleft()
        data: dict[str, Any] = {}
        known = self.new or request.command != "clear_queue"
        text = str(request.members.get("message", ""))
        match request.command:
            case "get_state":
                data = {"model": {"id": "m", "provider": "p"}, "isStreaming": self.streaming}
            case "new_session" | "clear_queue" if known:
                self.steering, self.follow_up = [], []
                data = {"cancelled": False}
            case "steer" | "follow_up":
                (self.steering if request.command == "steer" else self.follow_up).append(text)
                self._tell_queues()
            case "prompt":
                assert not self.streaming, "prompted while it works"
                self.streaming, self.running = True, self._run(text)
            case _:
                pass
        self.stdout.append(Reply(request.command, request.id, known, data, "" if known else "Unknown command"))

    def work(self) -> None:
        """Goes on by one step."""
        assert self.running is not None
        running = self.running
        if next(running, self) is self and self.running is running:
            self.running = None

    def _tell_queues(self) -> None:
        self.stdout.append(QueueUpdate(tuple(self.steering), tuple(self.follow_up)))

    def _take(self, queue: list[str]) -> list[str]:
        if not queue:
            return []
        text = queue.pop(0)
        self._tell_queues()
        return [text]

    def _run(self, prompt: str) -> Iterator[None]:
        say = self.stdout.append
        say(AgentStart())
        told, turn = [prompt], 0
        while True:
            yield
            for text in told:
                say(UserMessage(text))
            yield
            self.seen += told
            turn += 1
            tools = int(turn < self.turns)
            say(AssistantStart("stop"))
            yield
            say(AssistantEnd("did it", "toolUse" if tools else "stop", None, "m", "p", Usage(1, 1), tools))
            if tools:
                say(ToolStart("t", "bash"))
                yield
                say(ToolEnd("t", "bash", False))
            told = self._take(self.steering) or ([] if tools else self._take(self.follow_up))
            if not told and not tools:
                break
        say(AgentEnd(False))
        self.streaming = False
        if self.new:
            yield
            say(Settled(False))


class Conversation:
    """The core and a pi; `choose` says which of the things that can happen happens next."""

    def __init__(self, *, new: bool, turns: int, choose: Callable[[int], int], **config: Any) -> None:
        self.talk, self.pi, self.choose = Talk(maxIterations=0, **config), GapPi(new, turns), choose
        self.asked = 0
        self.pi_is_ended = False
        self._hear(self.talk.say(Begin()))

    def _hear(self, effects: list[fx.Effect]) -> None:
        for effect in effects:
            if isinstance(effect, fx.Send):
                self.pi.stdin.append(effect)
            self.pi_is_ended |= isinstance(effect, fx.EndPi)
        if any(isinstance(effect, fx.StartPi) for effect in effects):
            self._hear(self.talk.say(PiSpawned(5, "1.5.2", ("pi",))))

    def step(self) -> None:
        pi = self.pi
        can: list[Callable[[], None]] = []
        if pi.stdin:
            can.append(pi.read)
        if pi.running is not None:
            can.append(pi.work)
        if pi.stdout:
            can.append(lambda: self._hear(self.talk.say(pi.stdout.popleft())))
        if can:
            can[self.choose(len(can))]()
        else:
            self.wait()

    def wait(self) -> None:
        """Time passes, up to the core's next deadline."""
        self._hear(self.talk.due())

    def say(self, verb: str, **body: Any) -> None:
        self.asked += 1
        self._hear(self.talk.command(verb, id=f"word-{self.asked}", message=f"heed word-{self.asked} now", **body))

    def end(self) -> None:
        """Goes on until every message is delivered: each exactly once, and shown exactly once."""
        for _ in range(STEPS):
            if not self.talk.loop.mail:
                break
            self.step()
        assert not self.pi_is_ended
        for number in range(1, self.asked + 1):
            steps = self.talk.steps(f"word-{number}")
            assert steps.count("delivered") == 1 and steps[-1] == "delivered", (number, steps)
            assert sum(f"word-{number} " in text for text in self.pi.seen) == 1, (number, self.pi.seen)


def in_turn() -> Callable[[int], int]:
    """Everybody gets a turn, again and again: the same conversation every time."""
    numbers = itertools.count()
    return lambda choices: next(numbers) % choices
