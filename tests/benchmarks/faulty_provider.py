"""A provider that goes wrong by a plan, and keeps its own account of what it charged.

`plan` draws from a seed before which piece of work what goes wrong; `Provider.script` is the scripted model that does it,
and its `Bill` is what the loop's figures are held against. Used by `soak_faults`. Everything is in memory.
"""

import os
import random
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import cycle
from typing import Literal, get_args

from ralph_rpc.demo.model import PRICES, Reply, Request, Stream, Usage
from ralph_rpc.model.iteration import ErrorKind
from tests.real_pi.scripted_model import Fault, status
from tests.rig import user_texts

MARKER = "<promise>COMPLETE</promise>"
ITERATION = re.compile(r"Task \(iteration (\d+)\)")
PI_KILLS, PI_KILLS_S = 5, 600
"""One more within that time would end the loop, as promised: it is put off."""
ODD = (
    "422 Your request could not be processed for reasons of policy, see ticket 8812",
    "400 Unsupported combination of flux and capacitor",
    "451 Not here",
)
"""Refusals that say nothing known."""

Kind = Literal[
    "bill",
    "bill-wait",
    "rate",
    "rate-named",
    "server",
    "server-retried",
    "cut",
    "overloaded-midway",
    "empty",
    "thinking",
    "claim-then-thinking",
    "near-claim",
    "refused",
    "refused-twice",
    "kill-runner",
    "kill-pi",
]
Asked = Literal["first", "last"]
"""Of the two of an iteration: the one with the prompt, which is answered with a tool call, or the one with its result."""

Moment = Literal["asked", "streaming", "answered"]
"""Of a request, when a kill comes."""
MOMENTS: tuple[Moment, ...] = get_args(Moment)

OFTEN: dict[Kind, int] = {
    "bill": 25,
    "bill-wait": 3,
    "rate": 12,
    "rate-named": 15,
    "server": 12,
    "server-retried": 25,
    "cut": 20,
    "overloaded-midway": 10,
    "empty": 25,
    "thinking": 25,
    "claim-then-thinking": 20,
    "near-claim": 25,
    "refused": 15,
    "refused-twice": 10,
    "kill-runner": 24,
    "kill-pi": 8,
}
"""In 1,500 iterations; in fewer, as many fewer, but one of each, and a kill at each moment.

`bill-wait` takes up to a minute: there is none in a short run.
"""

MEANS: dict[Kind, ErrorKind] = {
    "bill": "billing",
    "bill-wait": "billing",
    "rate": "rate-limit",
    "rate-named": "rate-limit",
    "server": "overloaded",
    "cut": "network",
    "overloaded-midway": "overloaded",
    "empty": "empty",
    "thinking": "empty",
    "refused": "refused",
    "refused-twice": "refused",
    "kill-runner": "crash",
    "kill-pi": "crash",
}
"""The class of an iteration that this spoils; the others spoil none."""


@dataclass(frozen=True)
class Mishap:
    """What goes wrong at one piece of work. A kill comes at a `moment` of the request, `delay` seconds later."""

    kind: Kind
    at: Asked
    moment: Moment = "asked"
    delay: float = 0.0
    variant: int = 0

    @property
    def iterations(self) -> int:
        """How many in a row it spoils."""
        return 2 if self.kind == "refused-twice" or (self.kind == "bill" and self.variant == 0) else 1

    @property
    def requests(self) -> int | None:
        """How many it spoils at most; None: all of its iterations, pi's own retries included."""
        if self.kind in ("cut", "overloaded-midway"):
            return 1 if self.variant else None
        return None if self.kind in ("rate", "rate-named", "server", "refused-twice", "bill") else 1


def plan(seed: int, iterations: int) -> dict[int, Mishap]:
    """What goes wrong before which piece of work (from 1), the same for the same seed."""
    rand = random.Random(seed)
    kinds: list[Kind] = []
    for kind, often in OFTEN.items():
        number = often * iterations / 1500
        least = 0 if kind == "bill-wait" else len(MOMENTS) if kind in ("kill-runner", "kill-pi") else 1
        kinds.extend(kind for _ in range(max(least, int(number))))
    rand.shuffle(kinds)
    works = sorted(rand.sample(range(1, iterations + 1), len(kinds)))
    moments = {kind: cycle(rand.sample(MOMENTS, len(MOMENTS))) for kind in OFTEN}
    return {work: _mishap(kind, next(moments[kind]), rand) for work, kind in zip(works, kinds, strict=True)}


def _mishap(kind: Kind, moment: Moment, rand: random.Random) -> Mishap:
    at: Asked = rand.choice(("first", "last"))
    if kind in ("near-claim", "claim-then-thinking"):
        at = "last"
    return Mishap(kind, at, moment, rand.uniform(0, 0.4) if moment == "answered" else 0.0, rand.randrange(3))


@dataclass
class Account:
    """What one iteration of the loop has cost at the provider."""

    charges: list[float] = field(default_factory=list)
    """US dollars, one for each request that was answered to its end."""
    cut: int = 0
    """Requests that were taken up and not answered to the end: nobody tells their usage."""
    refused_midway: int = 0
    """Requests that got an error in the middle of their answer: providers charge nothing for these, or a part."""
    kills: int = 0
    """Runner or pi were killed in it."""
    works: list[int] = field(default_factory=list)
    """Pieces of work whose last answer was sent."""
    says: str = ""
    """The words of that answer."""
    mishap: Kind | None = None
    """What went wrong in it."""


def price(usage: Usage) -> float:
    """In US dollars, as the provider charges it."""
    new = usage.input - usage.cached
    return (new * PRICES["input"] + usage.cached * PRICES["cacheRead"] + usage.output * PRICES["output"]) / 1e6


class Provider:
    """Answers two requests an iteration, but for what goes wrong. `pid_of` gives the process that a kill is for."""

    def __init__(self, seed: int, iterations: int, pid_of: Callable[[Literal["runner", "pi"]], int | None]) -> None:
        self.planned = plan(seed, iterations)
        self.accounts: dict[int, Account] = {}
        """By the iteration that the prompt names."""
        self.done = 0
        """Pieces of work whose last answer was sent."""
        self.happened: Counter[Kind] = Counter()
        self.strange: list[str] = []
        """Requests that are neither of the two."""
        self.pays_at_once = True
        """The bill that is open now is paid as soon as somebody looks."""
        self._pid_of = pid_of
        self._rand = random.Random(seed + 1)
        self._lock = threading.Lock()
        self._now: tuple[Mishap, int] | None = None
        """What goes wrong now, and the iteration that it began in."""
        self._hits = 0
        self._pi_kills: list[float] = []

    def script(self, request: Request, number: int) -> Reply:
        with self._lock:
            return self._answer(request, number)

    def _answer(self, request: Request, number: int) -> Reply:
        named = [int(found[1]) for text in user_texts(request) if (found := ITERATION.search(text))]
        iteration = named[-1] if named else 0
        account = self.accounts.setdefault(iteration, Account())
        usage = self._usage(number)
        roles = [message["role"] for message in request["messages"]]
        at: Asked = "last" if roles[-1] == "tool" else "first"
        if not named or (at == "first" and "assistant" in roles):
            self.strange.append(f"iteration {iteration}: {roles}")
            return self._charged(account, Reply("What do you mean?", usage=usage))
        mishap = self._due(at, iteration)
        return self._work(account, at, usage, None) if mishap is None else self._goes_wrong(mishap, account, at, usage)

    def _usage(self, number: int) -> Usage:
        tokens = 10_000 + number
        return Usage(tokens, self._rand.randrange(20, 900), self._rand.randrange(tokens))

    def _due(self, at: Asked, iteration: int) -> Mishap | None:
        """What is to go wrong with this request."""
        if self._now is not None:
            mishap, began = self._now
            if iteration < began + mishap.iterations and (mishap.requests is None or self._hits < mishap.requests):
                self._hits += mishap.at == at
                return mishap if mishap.at == at else None
            self._now = None
        mishap_now = self.planned.get(self.done + 1)
        if mishap_now is None or mishap_now.at != at:
            return None
        del self.planned[self.done + 1]
        if mishap_now.kind == "kill-pi" and not self._may_kill_pi():
            self._put_off(mishap_now)
            return None
        self._now, self._hits = (mishap_now, iteration), 1
        self.happened[mishap_now.kind] += 1
        return mishap_now

    def _may_kill_pi(self) -> bool:
        return sum(time.monotonic() - at < PI_KILLS_S + 30 for at in self._pi_kills) < PI_KILLS

    def _put_off(self, mishap: Mishap) -> None:
        later = self.done + 20
        while later in self.planned:
            later += 1
        self.planned[later] = mishap

    def _work(self, account: Account, at: Asked, usage: Usage, then: Callable[[], None] | None) -> Reply:
        """The answer as it should be."""
        if at == "first":
            command = f"echo {self.done + 1} >> work.txt; sleep 0.05"
            return self._charged(
                account, Reply("on with it ", tool_calls=[("bash", {"command": command})], usage=usage), then
            )
        return self._finished(account, "", usage, then)

    def _finished(self, account: Account, tail: str, usage: Usage, then: Callable[[], None] | None = None) -> Reply:
        self._worked(account)
        account.says = f"did work {self.done}"
        return self._charged(account, Reply(account.says + tail, usage=usage), then)

    def _worked(self, account: Account) -> None:
        self.done += 1
        account.works.append(self.done)

    def _charged(self, account: Account, reply: Reply, then: Callable[[], None] | None = None) -> Reply:
        """The answer, which is charged when it has been sent to its end; `then` happens after it."""

        def act(stream: Stream, fault: Fault) -> None:
            try:
                stream.begin()
                stream.body(fault)
                # Charged before the last words are out: whoever has read them finds it in the account.
                account.charges.append(price(fault.usage))
                stream.end(fault)
            finally:
                if then is not None:
                    then()

        return Fault(reply.text, reply.tool_calls, reply.usage, act=act)

    def _goes_wrong(self, mishap: Mishap, account: Account, at: Asked, usage: Usage) -> Reply:
        account.mishap = mishap.kind
        if at == "last" and mishap.kind in ("empty", "thinking", "claim-then-thinking"):
            self._worked(account)  # the tool has done it; the answer has nothing to add
        match mishap.kind:
            case "bill" | "bill-wait":
                self.pays_at_once = mishap.kind == "bill"
                return status(402, "Insufficient Balance")
            case "rate":
                return status(429, "Too many requests, slow down")
            case "rate-named":
                return status(429, "Rate limit reached for requests. Please try again in 1s.")
            case "server" | "server-retried":
                return status((500, 503, 529)[mishap.variant])
            case "cut":
                account.cut += 1
                return self._stops_midway("Everything is fi")
            case "overloaded-midway":
                account.refused_midway += 1
                return self._stops_midway(
                    "Everything is fi", b'data: {"error": {"message": "Overloaded", "code": 529}}\n\n'
                )
            case "empty":
                return self._charged(account, Reply("", usage=replace(usage, output=1)))
            case "thinking":
                return self._thinking(account, "I wonder.", usage)
            case "claim-then-thinking":
                return self._thinking(account, f"All done.\n{MARKER}", usage)
            case "near-claim":
                tails = (f"; nearly {MARKER}", f"\n{MARKER}\nNo, something is left.", f"\n> {MARKER} comes later")
                return self._finished(account, tails[mishap.variant], usage)
            case "refused" | "refused-twice":
                code, _, words = ODD[mishap.variant].partition(" ")
                return status(int(code), words)
            case "kill-runner" | "kill-pi":
                return self._kill(mishap, account, at, usage)

    def _thinking(self, account: Account, thought: str, usage: Usage) -> Reply:
        """An answer of thinking alone."""

        def act(stream: Stream, fault: Fault) -> None:
            stream.begin()
            stream.chunk({"reasoning_content": thought})
            account.charges.append(price(fault.usage))
            stream.end(fault)

        return Fault(usage=usage, act=act)

    def _stops_midway(self, text: str, last: bytes = b"", then: Callable[[], None] = lambda: None) -> Reply:
        def act(stream: Stream, fault: Fault) -> None:
            with suppress(OSError):
                stream.begin()
                stream.body(fault)
                if last:
                    stream.raw(last)
            then()
            with suppress(OSError):
                stream.finish()

        return Fault(text, act=act)

    def _kill(self, mishap: Mishap, account: Account, at: Asked, usage: Usage) -> Reply:
        account.kills += 1
        victim: Literal["runner", "pi"] = "pi" if mishap.kind == "kill-pi" else "runner"
        if victim == "pi":
            self._pi_kills.append(time.monotonic())

        def kill() -> None:
            pid = self._pid_of(victim)
            if pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

        if mishap.moment == "answered":
            later = threading.Timer(mishap.delay, kill)
            later.daemon = True
            return self._work(account, at, usage, later.start)
        account.cut += 1
        if mishap.moment == "streaming":
            return self._stops_midway("Everything is fi", then=kill)
        return Fault(act=lambda stream, fault: kill())
