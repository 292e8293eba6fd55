"""Which model the next iteration may use, and from when: outages of providers, fallback models, probes. Pure.

A loop has its own model (index 0) and those of `--fallback-model`, in order. An outage of one lasts from its first
failure until it answers again; its `until` is the reset that the provider named, or a gap that grows with every failure.
The first model of the list that may be asked is the one to use: so the loop returns to its own as soon as it can.

In a ticket loop all workers share this: while a model is out, one worker asks whether it is back, the others wait for
what it hears. Called by `core/policy.py`, `core/flow.py` and the ticket core. If the machine dies, outages are
forgotten; the first request after a restart finds them again.
"""

from dataclasses import dataclass, replace

from ralph_rpc.clock import iso, local_time
from ralph_rpc.model.config import Config
from ralph_rpc.model.iteration import ErrorKind
from ralph_rpc.model.state import ModelOutage
from ralph_runner.core import failures
from ralph_runner.core.failures import Failure
from ralph_runner.core.resets import named_reset
from ralph_runner.core.results import Now

MAX_WAIT_MS = 8 * 86_400_000
"""A weekly limit and a day, where --max-wait says nothing else."""
WORTH_A_SWITCH_MS = 300_000
"""A shorter wait than this is no reason to continue with another model; how long an account stays empty is not known."""
PROBE_HOLD_MS = 900_000
"""How long the others wait for the one that asks; it may be lost before it hears anything."""
NEVER_MS = 1 << 53
_UNITS = ((86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1_000, "s"), (1, "ms"))


@dataclass(frozen=True, slots=True)
class Outage:
    """A model that does not answer. Times are epoch milliseconds, for people, and monotonic ones, which nobody can set."""

    kind: ErrorKind
    since: int
    """The first failure."""
    since_mono: int
    """What --max-wait counts from: the first failure, or the last time that a person wanted it tried."""
    until: int
    """No request before; it is over when either clock says so, as the machine may sleep and its clock may be set."""
    until_mono: int
    failures: int
    words: str
    """The provider's, as one line."""
    named: bool = False
    """The provider said when it ends."""
    long: bool = False
    """It lasts long enough to continue with another model."""
    probe: str | None = None
    """The worker that asks now whether it is over."""


Outages = tuple[Outage | None, ...]
"""By model: the loop's own, then the fallback models in their order; None: it answers, for all that is known."""


@dataclass(frozen=True, slots=True)
class Use:
    """The model with this index may be asked."""

    index: int


@dataclass(frozen=True, slots=True)
class Wait:
    """No model may be asked before this outage's `until`."""

    index: int
    outage: Outage


def names(config: Config) -> tuple[str | None, ...]:
    """The loop's models by index: None is the one that pi is started with, the others are PROVIDER/ID."""
    return (None, *config.get("fallbackModels", []))


def choose(config: Config, outages: Outages, now: Now, worker: str = "") -> Use | Wait:
    """The model for the worker's next iteration, or what to wait for."""
    soonest: Wait | None = None
    for index in range(len(names(config))):
        outage = _of(outages, index)
        if outage is None or _is_over(outage, now) or outage.probe == worker:
            return Use(index)
        if not outage.long:
            return Wait(index, outage)
        if soonest is None or outage.until_mono < soonest.outage.until_mono:
            soonest = Wait(index, outage)
    assert soonest is not None
    return soonest


def asking(config: Config, outages: Outages, index: int, now: Now, worker: str = "") -> Outages:
    """The worker's next iteration uses the model; if it has been out, the others wait for what the worker hears."""
    outage = _of(outages, index)
    if outage is None:
        return outages
    held = replace(outage, probe=worker, until=now.wall + PROBE_HOLD_MS, until_mono=now.mono + PROBE_HOLD_MS)
    return _with(config, outages, index, held)


def answered(config: Config, outages: Outages, index: int) -> Outages:
    """The model has answered."""
    return outages if _of(outages, index) is None else _with(config, outages, index, None)


def failed(config: Config, outages: Outages, index: int, failure: Failure, now: Now) -> Outages:
    """The model did not answer, and asking again later can help."""
    before = _of(outages, index)
    count = 1 if before is None else before.failures + 1
    since, since_mono = (now.wall, now.mono) if before is None else (before.since, before.since_mono)
    reset = named_reset(failure.message, now.wall)
    named = reset is not None
    if reset is None:
        wait = failures.backoff(count, failure.kind, now.rand)
    else:
        wait = reset - now.wall
        if count > 1:  # a limit of a day that says "retry in 6 ms" all day long
            wait = max(wait, failures.backoff(count - 1, failure.kind, now.rand))
    long = wait > WORTH_A_SWITCH_MS or (not named and failure.kind in ("quota", "billing"))
    outage = Outage(
        kind=failure.kind,
        since=since,
        since_mono=since_mono,
        until=now.wall + wait,
        until_mono=now.mono + wait,
        failures=count,
        words=" ".join(failure.message.split())[:300],
        named=named,
        long=long,
    )
    return _with(config, outages, index, outage)


def unusable(config: Config, outages: Outages, index: int, failure: Failure, now: Now) -> Outages:
    """A fallback model will not be asked again under this runner: its key or its name is wrong."""
    outage = Outage(
        kind=failure.kind,
        since=now.wall,
        since_mono=now.mono,
        until=NEVER_MS,
        until_mono=NEVER_MS,
        failures=1,
        words=" ".join(failure.message.split())[:300],
        long=True,
    )
    return _with(config, outages, index, outage)


def tried_anew(outages: Outages, now: Now) -> Outages:
    """A person wants every model to be asked now, as if it had just failed; what is being asked already stays."""
    return tuple(
        outage
        if outage is None or outage.probe is not None
        else replace(outage, since_mono=now.mono, until=now.wall, until_mono=now.mono, failures=0)
        for outage in outages
    )


def waits_too_long(config: Config, wait: Wait, now: Now) -> str | None:
    """Why the loop should not wait for that, as one line; None: it may."""
    outage, most = wait.outage, config.get("maxWaitMs", MAX_WAIT_MS)
    if not most:
        return None
    limit = f"--max-wait ({most // 3_600_000} h)" if most >= 3_600_000 else f"--max-wait ({most // 1000} s)"
    if outage.named and outage.until_mono - outage.since_mono > most:
        return f"{outage.kind}: {outage.words}; that is until {local_time(outage.until)}, longer than {limit} allows"
    if now.mono - outage.since_mono >= most:
        return f"{outage.kind}: {outage.words}; no answer since {local_time(outage.since)}, longer than {limit} allows"
    return None


def told(config: Config, outages: Outages) -> list[ModelOutage]:
    """The models that do not answer, as state.json has them."""
    return [
        {
            "model": name,
            "kind": outage.kind,
            "since": iso(outage.since),
            "until": None if outage.until >= NEVER_MS else iso(outage.until),
            "words": outage.words,
        }
        for name, outage in zip(names(config), outages, strict=False)
        if outage is not None
    ]


def _is_over(outage: Outage, now: Now) -> bool:
    return outage.until <= now.wall or outage.until_mono <= now.mono


def _of(outages: Outages, index: int) -> Outage | None:
    return outages[index] if index < len(outages) else None


def _with(config: Config, outages: Outages, index: int, outage: Outage | None) -> Outages:
    every = [_of(outages, other) for other in range(len(names(config)))]
    every[index] = outage
    return tuple(every)
