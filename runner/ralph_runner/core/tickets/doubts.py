"""A ticket's own red verify where nobody knows whether it was green before the ticket began. Pure; called by the step.

On a target that is red by itself every ticket's verify is red, and every attempt in vain. So the first red run on a commit
that no run has seen green is held back until the merge queue has verified that very commit (once). Green: it counts, as
any other. Red: the claim goes to the merge queue unverified, which merges it as soon as the target is repaired, verifies
what comes out, and only then sends it back. The agent's attempt is not used up.
"""

from ralph_runner.core.results import Verified
from ralph_runner.core.tickets import workers
from ralph_runner.core.tickets.state import Working
from ralph_runner.core.tickets.turn import TicketTurn, job_at


def holds(t: TicketTurn, key: str, told: Verified) -> bool:
    """Whether this result is kept back, or was made a claim for the queue; the worker waits for it as before."""
    options, job = t.loop.options, job_at(t, key, Working)
    if job is None or job.conflict or not (options.worktrees and options.merge):
        return False
    base = job.record["baseCommit"]
    red = told.verify is not None and told.verify["exitCode"] != 0
    if not red or base is None or base in t.loop.verified or t.loop.at_once:
        return False
    t.set(doubts={**t.loop.doubts, key: told})
    if t.loop.red_target is not None and t.loop.red_target.commit == base:
        settle(t, base, is_red=True)
    return True


def first_base(t: TicketTurn) -> str | None:
    """The commit that the queue is to verify for a result that is held back."""
    bases = (t.loop.jobs[key].record["baseCommit"] for key in t.loop.doubts if key in t.loop.jobs)
    return next((base for base in bases if base is not None), None)


def settle(t: TicketTurn, base: str, is_red: bool) -> None:
    """It is known how that commit stands."""
    for key, told in list(t.loop.doubts.items()):
        job = job_at(t, key, Working)
        if job is not None and job.record["baseCommit"] != base:
            continue
        t.set(doubts={other: one for other, one in t.loop.doubts.items() if other != key})
        if job is None:
            continue
        if is_red:
            t.put(key, doubted=True)
            t.notice(
                "warning",
                f"verify of {key} is red, and so is {t.loop.options.into} without it: nobody is to blame",
                key,
            )
            told = Verified(None, passed=True)
        workers.drive(t, key, told)


def let_go(t: TicketTurn) -> None:
    """The queue could not verify it: the results that were held back count as they are."""
    doubts = t.loop.doubts
    t.set(doubts={})
    for key, told in doubts.items():
        workers.drive(t, key, told)
