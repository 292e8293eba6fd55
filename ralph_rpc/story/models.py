"""Which model did what, and which one does not answer: the same words for `status`, `list`, `attach` and `report`.

Pure, over the shapes of state.json and the iteration records; texts are raw and made inert by those who show them. Light,
because everyday commands load it.
"""

from collections.abc import Iterable
from typing import NamedTuple

from ralph_rpc.clock import local_time, parse_iso
from ralph_rpc.model.iteration import Iteration
from ralph_rpc.model.state import ModelOutage, State
from ralph_rpc.terminal.units import number

_REASONS = {
    "rate-limit": "a rate limit",
    "quota": "a quota",
    "billing": "a payment",
    "overloaded": "an overloaded provider",
    "network": "the network",
    "restart": "a restart of pi",
    "disk": "free space",
    "merge": "a merge",
    "queued": "its turn in a queue",
    "lost": "a far side that is gone",
}
"""What a loop waits for, after "waiting for"; any other kind of failure is named as it is."""


class ModelUse(NamedTuple):
    """All iterations that ran on one model."""

    model: str
    """PROVIDER/ID."""
    iterations: tuple[int, ...]
    tokens: int
    """Read and written, without the cache."""
    cost: float


def by_model(records: Iterable[Iteration]) -> list[ModelUse]:
    """What each model did, in the order of their first iterations."""
    found: dict[str, ModelUse] = {}
    for record in records:
        name = model_name(record["provider"], record["model"]) or "unknown"
        before = found.get(name, ModelUse(name, (), 0, 0.0))
        found[name] = ModelUse(
            name,
            (*before.iterations, record["iteration"]),
            before.tokens + int(number(record["tokensIn"]) + number(record["tokensOut"])),
            before.cost + number(record["cost"]),
        )
    return list(found.values())


class HostUse(NamedTuple):
    """All iterations that ran on one machine, with `--launcher`."""

    host: str
    iterations: tuple[int, ...]
    lost: int
    """Of those: how many ended because the machine, or the way to it, was gone."""
    tokens: int
    cost: float


def by_host(records: Iterable[Iteration]) -> list[HostUse]:
    """What was done on each machine, in the order of their first iterations; nothing for those that ran here."""
    found: dict[str, HostUse] = {}
    for record in records:
        host = record.get("host")
        if not host:
            continue
        before = found.get(host, HostUse(host, (), 0, 0, 0.0))
        found[host] = HostUse(
            host,
            (*before.iterations, record["iteration"]),
            before.lost + (record.get("errorKind") == "lost"),
            before.tokens + int(number(record["tokensIn"]) + number(record["tokensOut"])),
            before.cost + number(record["cost"]),
        )
    return list(found.values())


def model_name(provider: str | None, model: str | None) -> str:
    """PROVIDER/ID, as far as it is known."""
    return "/".join(part for part in (provider, model) if part)


def spans(numbers: Iterable[int]) -> str:
    """`1-3, 7, 9-12`."""
    found: list[list[int]] = []
    for one in sorted(numbers):
        if found and one == found[-1][1] + 1:
            found[-1][1] = one
        else:
            found.append([one, one])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in found)


def waits_for(state: State) -> str:
    """What a waiting loop waits for, in a word or two; empty where that is not known."""
    kind = state.get("waitingFor")
    return "" if kind is None else _REASONS.get(kind, kind)


def wakes_at(state: State) -> str:
    """Local time at which a waiting loop tries again; empty where there is none."""
    wake = parse_iso(state["nextWakeAt"])
    return "" if wake is None else local_time(wake)


def outage_text(outage: ModelOutage) -> str:
    """`openai/gpt-5 until 2026-11-30 02:30 CET: quota: usage limit reached`."""
    until = parse_iso(outage["until"])
    when = "until it is fixed" if until is None else f"until {local_time(until)}"
    return f"{outage['model'] or 'its own model'} {when}: {outage['kind']}: {outage['words']}"
