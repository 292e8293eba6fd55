"""What each of pi's events adds to the figures of a run: turns, tools, tokens, money, and requests that nobody prices.

Pure. `core/running.py` and `core/late.py` count live with it, `shell/unrecorded.py` counts again from the log what a
killed runner had not recorded: both come to the same sum.

A request is *unpriced* when it was taken up and its usage is never told: its answer was aborted or cut, pi or the
runner was killed before it ended, or pi does not say (the summaries of pi 0.73.1). A provider's refusal is none.
"""

from dataclasses import replace

from ralph_runner.core import failures
from ralph_runner.core.inputs import (
    AgentEnd,
    AgentStart,
    AssistantEnd,
    AssistantStart,
    Charged,
    CompactionEnd,
    CompactionStart,
    PiInput,
    Settled,
    ToolStart,
    TurnStart,
    Usage,
)
from ralph_runner.core.run import NOTHING, Run


def usage_of(event: object) -> Usage:
    """What the event says was used; NOTHING where it says nothing of that."""
    match event:
        case AssistantEnd(usage=usage) | Charged(usage):
            return usage
        case CompactionEnd(usage=usage):
            return usage or NOTHING
        case _:
            return NOTHING


def counted(run: Run, event: PiInput) -> Run:
    """The run with the event's share in its figures."""
    match event:
        case AgentStart() | TurnStart():
            # After our abort pi begins one more turn, for which it asks nobody.
            return replace(run, asking=run.ending is None, begun=False)
        case AssistantStart(stop_reason):
            return run if stop_reason in ("error", "aborted") else replace(run, asking=True, begun=True)
        case AssistantEnd():
            unpriced = run.unpriced + _is_unpriced(run, event)
            return replace(run.over(event), unpriced=unpriced, asking=False, begun=False)
        case ToolStart():
            return replace(run, tool_calls=run.tool_calls + 1)
        case Charged(usage):
            return replace(run, usage=run.usage.plus(usage))
        case CompactionStart():
            return replace(run, summarising=True)
        case CompactionEnd(error=error, usage=usage):
            untold = usage is None and run.summarising and not _was_refused(error)
            used = run.usage.plus(usage or NOTHING)
            return replace(run, usage=used, unpriced=run.unpriced + untold, summarising=False)
        case AgentEnd() | Settled():
            return replace(run, asking=False)
        case _:
            return run


def answered(run: Run) -> Run:
    """What was asked for was answered, as its usage says; nothing else is known of the answer."""
    return replace(run, turns=run.turns + 1, asking=False, begun=False)


def cut(run: Run) -> Run:
    """The run is over, and what it still asked for will not be answered."""
    return replace(run, unpriced=run.unpriced + (run.asking or run.summarising), asking=False, summarising=False)


def _is_unpriced(run: Run, answer: AssistantEnd) -> bool:
    untold = answer.usage == NOTHING
    match answer.stop_reason:
        case "aborted":
            return run.asking
        case "error":
            error = answer.error or ""
            if run.begun:
                return not _was_refused(error) and (untold or failures.classify(error).kind == "network")
            return "request timed out" in error.lower()  # the provider had it for minutes
        case _:
            return untold


def _was_refused(error: str) -> bool:
    """True if the provider said no, instead of answering."""
    return bool(error) and failures.classify(error).kind not in ("network", "other")
