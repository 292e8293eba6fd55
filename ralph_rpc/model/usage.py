"""What pi runs have used, and the limits of a loop: the one place where tokens and money are summed and compared.

Pure functions over the shapes of state.json and the iteration records. Called by the runner's core, by its recovery
and by `resume`.
"""

import operator
from collections.abc import Callable
from typing import Literal, NamedTuple, cast

from ralph_rpc.model.config import Config
from ralph_rpc.model.iteration import Iteration
from ralph_rpc.model.state import RunFigures, Stats

RunLimit = Literal["max-cost", "max-tokens", "max-time"]
"""What a run under way can use up."""
Limit = Literal[RunLimit, "max-iterations"]
"""Named as the option that sets it, and as the stop reason."""

NO_STATS: Stats = {
    "iterations": 0,
    "turns": 0,
    "toolCalls": 0,
    "durationMs": 0,
    "tokensIn": 0,
    "tokensOut": 0,
    "cacheRead": 0,
    "cacheWrite": 0,
    "cost": 0.0,
    "unpricedRequests": 0,
}


class Spent(NamedTuple):
    """What the limits are compared with."""

    cost: float = 0.0
    """US dollars."""
    tokens: int = 0
    iterations: int = 0

    def plus(self, other: "Spent") -> "Spent":
        """Both together."""
        return Spent(self.cost + other.cost, self.tokens + other.tokens, self.iterations + other.iterations)

    def minus(self, part: "Spent") -> "Spent":
        """What is left without a part of it."""
        return Spent(self.cost - part.cost, self.tokens - part.tokens, self.iterations - part.iterations)


def tokens(holder: RunFigures) -> int:
    """All tokens: input, output, cache reads and cache writes; what --max-tokens limits and every view shows.

    Takes totals, records and runs alike.
    """
    return holder["tokensIn"] + holder["tokensOut"] + holder["cacheRead"] + holder["cacheWrite"]


def spent(totals: Stats) -> Spent:
    """What totals come to, as the limits see it."""
    return Spent(totals["cost"], tokens(totals), totals["iterations"])


def figures(holder: RunFigures) -> RunFigures:
    """Only the figures of totals, a record or a run."""
    return {
        "turns": holder["turns"],
        "toolCalls": holder["toolCalls"],
        "tokensIn": holder["tokensIn"],
        "tokensOut": holder["tokensOut"],
        "cacheRead": holder["cacheRead"],
        "cacheWrite": holder["cacheWrite"],
        "cost": holder["cost"],
        "unpricedRequests": unpriced(holder),
    }


def unpriced(holder: RunFigures) -> int:
    """Requests whose usage nobody told; 0 in the files of versions that did not count them."""
    return holder.get("unpricedRequests", 0)


def plus(one: RunFigures, other: RunFigures) -> RunFigures:
    """Both together."""
    return _each(operator.add, one, other)


def at_least(one: RunFigures, other: RunFigures) -> RunFigures:
    """The larger of each figure: of two counts of the same requests, each of which may lack some."""
    return _each(max, one, other)


def at_least_totals(one: Stats, other: Stats) -> Stats:
    """As `at_least`, of totals."""
    return {
        **at_least(one, other),
        "iterations": max(one["iterations"], other["iterations"]),
        "durationMs": max(one["durationMs"], other["durationMs"]),
    }


def add(totals: Stats, run: RunFigures, *, iterations: int = 0, duration_ms: int = 0) -> Stats:
    """The totals with a run (or an iteration's record) added; `iterations` is how many it counts as."""
    return {
        **plus(totals, run),
        "iterations": totals["iterations"] + iterations,
        "durationMs": totals["durationMs"] + duration_ms,
    }


def subtract(whole: Stats, part: Stats) -> RunFigures:
    """The figures of what is in `whole` and not in `part`; never below zero."""
    return _each(lambda a, b: max(0, a - b), whole, part)


def with_figures(record: Iteration, new: RunFigures) -> Iteration:
    """The record with these figures in the place of its own."""
    return {**record, **new}


def limits_reached(config: Config, used: Spent, elapsed_ms: int) -> tuple[Limit, ...]:
    """Every limit that is used up; the first is the one to name. A limit is reached by meeting it exactly."""
    found: list[Limit] = []
    if config["maxCost"] is not None and used.cost >= config["maxCost"]:
        found.append("max-cost")
    if config["maxTokens"] is not None and used.tokens >= config["maxTokens"]:
        found.append("max-tokens")
    if config["maxTimeMs"] is not None and elapsed_ms >= config["maxTimeMs"]:
        found.append("max-time")
    if config["maxIterations"] and used.iterations >= config["maxIterations"]:
        found.append("max-iterations")
    return tuple(found)


def _each(how: Callable[[float, float], float], one: RunFigures, other: RunFigures) -> RunFigures:
    a, b = figures(one), figures(other)
    return cast(RunFigures, {name: how(a[name], b[name]) for name in a})  # type: ignore[literal-required]
