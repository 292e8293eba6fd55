"""What a loop has spent, and which limit that reaches. Pure; asked by the task core and the ticket core.

The sums and the comparison are in `ralph_rpc/model/usage.py`, which `resume` shares; here is what only the runner
knows: the run under way, the other workers, the attempts at a ticket. A limit that is reached forbids another
iteration; all but that of iterations also end the run that reaches it.
"""

from collections.abc import Iterable
from functools import reduce

from ralph_rpc.model.config import Config
from ralph_rpc.model.iteration import Iteration
from ralph_rpc.model.state import RunFigures, Stats
from ralph_rpc.model.usage import NO_STATS, Limit, RunLimit, Spent, add, limits_reached, spent, tokens
from ralph_runner.core.inputs import Usage
from ralph_runner.core.run import Run
from ralph_runner.core.state import Loop
from ralph_runner.core.verdict import Verdict


def figures(usage: Usage, turns: int = 0, tool_calls: int = 0, unpriced: int = 0) -> RunFigures:
    """pi's figures in the shape that state.json and the records have."""
    return {
        "turns": turns,
        "toolCalls": tool_calls,
        "tokensIn": usage.input,
        "tokensOut": usage.output,
        "cacheRead": usage.cache_read,
        "cacheWrite": usage.cache_write,
        "cost": usage.cost,
        "unpricedRequests": unpriced,
    }


def figures_of(run: Run) -> RunFigures:
    """What a run has used so far."""
    return figures(run.usage, run.turns, run.tool_calls, run.unpriced)


def tokens_of(usage: Usage) -> int:
    """All tokens of one answer or run."""
    return tokens(figures(usage))


def counts(record: Iteration) -> bool:
    """True if the iteration is work: an iteration, an attempt at a ticket. One that failed, whoever is at fault, is none."""
    if record["outcome"] == "timeout":
        return record["turns"] > 0 or record["toolCalls"] > 0
    return record["outcome"] not in ("failed", "crashed")


def with_iteration(totals: Stats, record: Iteration) -> Stats:
    """The totals with an iteration that has ended."""
    return add(totals, record, iterations=counts(record), duration_ms=record["durationMs"])


def total(records: Iterable[Iteration]) -> Stats:
    """What all these iterations add up to."""
    return reduce(with_iteration, records, NO_STATS)


def with_runs(totals: Stats, runs: Iterable[Run]) -> Stats:
    """The totals with runs that are still under way."""
    return reduce(add, map(figures_of, runs), totals)


def allows_iteration(config: Config, used: int) -> bool:
    """True if --max-iterations leaves room for one more after `used`."""
    return "max-iterations" not in limits_reached(config, Spent(iterations=used), 0)


def forbids_iteration(loop: Loop, after: Run | None = None) -> Verdict | None:
    """The limit that forbids another iteration, if one does; `after` is a run that has ended and is not counted yet."""
    totals = loop.stats if after is None else add(loop.stats, figures_of(after), iterations=1)
    used = spent(totals).plus(loop.elsewhere)
    for limit in limits_reached(loop.config, used, loop.elapsed_ms):
        return verdict(limit, loop.config, used, loop.elapsed_ms)
    duty = loop.duty
    if duty is not None:
        attempts = duty.tried + totals["iterations"]
        if attempts >= duty.attempts:
            return Verdict("stopped", "limit", f"not done after {attempts} attempts")
    return None


def ends_run(loop: Loop, run: Run) -> RunLimit | None:
    """The limit that the run under way reaches, together with all that was spent before and beside it."""
    used = spent(with_runs(loop.stats, [run])).plus(loop.elsewhere)
    reached = limits_reached(loop.config, used, loop.elapsed_ms)
    # Iterations are counted when they end: this run was allowed to begin.
    return next((limit for limit in reached if limit != "max-iterations"), None)


def cap_is_blind(config: Config) -> bool:
    """True if --max-cost is the only cap on what is spent: a model without prices would never reach it."""
    return config["maxCost"] is not None and config["maxTokens"] is None


def no_prices(model: str) -> str:
    """What to do about a model without prices under --max-cost, as one line."""
    return (
        f"--max-cost cannot work: pi knows no prices for {model}. Give --max-tokens too, or set the model's `cost` "
        "in pi's models.json"
    )


def time_is_up(loop: Loop) -> bool:
    """True if --max-time is used up."""
    return "max-time" in limits_reached(loop.config, Spent(), loop.elapsed_ms)


def deadline(loop: Loop) -> int | None:
    """Monotonic milliseconds at which --max-time is used up; None: no such limit."""
    most = loop.config["maxTimeMs"]
    return None if most is None else loop.last_mono + max(0, most - loop.elapsed_ms)


def verdict(limit: Limit, config: Config, used: Spent, elapsed_ms: int) -> Verdict:
    """How a loop ends that has reached the limit."""
    match limit:
        case "max-cost":
            most = config["maxCost"] or 0.0
            digits = 2 if most >= 0.01 else 4  # where cents would say that nothing was spent, and nothing allowed
            told = f"${used.cost:.{digits}f} spent, the limit is ${most:.{digits}f}"
        case "max-tokens":
            told = f"{used.tokens} tokens used, the limit is {config['maxTokens']}"
        case "max-time":
            told = f"ran for {elapsed_ms // 1000} s, the limit is reached"
        case "max-iterations":
            told = f"{used.iterations} iteration{'s'[: used.iterations != 1]} done, the limit is reached"
    return Verdict("stopped", limit, told)
