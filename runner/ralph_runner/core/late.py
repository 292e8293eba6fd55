"""What pi charges while no run is under way: between two iterations, during a verification, in a pause. Pure; called by
the step.

It belongs to the iteration whose session caused it. Before the record is written it goes into that, afterwards the
record is amended. Limits are checked on it wherever something could still be spent.
"""

from dataclasses import replace

from ralph_rpc.model.usage import add, plus, with_figures
from ralph_runner.core import budget, policy
from ralph_runner.core.effects import AmendRecord, Save
from ralph_runner.core.inputs import Usage
from ralph_runner.core.phases import Closing, Paused, Preparing, Verifying, Waiting
from ralph_runner.core.turn import Turn


def charged(t: Turn, usage: Usage) -> None:
    """pi has used this outside of a run."""
    phase = t.loop.phase
    match phase:
        case Closing():
            t.go(_with(phase, usage))
        case Verifying(closing):
            t.go(replace(phase, closing=_with(closing, usage)))
        case _:
            _amend(t, usage)
            if isinstance(phase, Paused | Waiting | Preparing):
                policy.end_by_limit(t)
    t.do(Save(lazy=True))


def _with(closing: Closing, usage: Usage) -> Closing:
    run = closing.result.run
    return replace(closing, result=replace(closing.result, run=replace(run, usage=run.usage.plus(usage))))


def _amend(t: Turn, usage: Usage) -> None:
    added, record = budget.figures(usage), t.loop.last_record
    t.set(stats=add(t.loop.stats, added))
    if record is not None:
        amended = with_figures(record, plus(record, added))
        t.set(last_record=amended)
        t.do(AmendRecord(amended, added))
