"""The verifications of a ticket loop, its workers' and the merge queue's: `gate.py` says which may run, and which counts.

Pure; called by the step. Each passes through here, from the request for it to its result.
"""

from ralph_rpc.model.iteration import Verify
from ralph_runner.core.effects import CancelVerify
from ralph_runner.core.tickets import gate as gt
from ralph_runner.core.tickets.effects import CancelVerifyBatch, TicketOnlyEffect, To
from ralph_runner.core.tickets.gate import QUEUE
from ralph_runner.core.tickets.turn import NotVerified, TicketTurn


def ask(t: TicketTurn, key: str, run: TicketOnlyEffect) -> None:
    """To be run as soon as it may; the result comes as if it had been asked for directly."""
    t.set(gate=gt.asked(t.loop.gate, key, run))
    _admit(t)


def counts(t: TicketTurn, key: str, verify: Verify | None) -> bool:
    """Whether this result of a run that has ended is the one to act on; if not, it is run once more."""
    gate, counts, disturbed = gt.ended(t.loop.gate, key, verify)
    learned = gate.alone and not t.loop.gate.alone
    t.set(gate=gate)
    if verify is not None and verify["exitCode"] == 0:
        t.set(verify_ms=verify["durationMs"])
    if disturbed:
        limit = t.loop.options.verify_parallel
        what = "the merge queue's verify" if key == QUEUE else f"verify of {key}"
        then = (
            "from now on one verify runs at a time (--verify-parallel N sets another number)"
            if learned and limit is None
            else f"with --verify-parallel {limit}, {limit} still run at a time"
            if limit is not None
            else "one verify runs at a time"
        )
        t.notice("warning", f"{what} was red beside another one and green alone, which is what counts: {then}")
    _admit(t)
    return counts


def cancel(t: TicketTurn, key: str) -> None:
    """End the run of this key, or forget it if it only waits; either way its result is None."""
    if gt.waits(t.loop.gate, key):
        t.set(gate=gt.dropped(t.loop.gate, key))
        t.news.append(NotVerified(key))
        _admit(t)
    elif key in t.loop.doubts:
        t.set(doubts={other: told for other, told in t.loop.doubts.items() if other != key})
        t.news.append(NotVerified(key))
    elif key == QUEUE:
        t.do(CancelVerifyBatch())
    else:
        t.do(To(key, CancelVerify()))


def may_start_over(t: TicketTurn, key: str) -> bool:
    """Whether the run of this key would have its place again at once: nobody else waits for it, or could come to have it."""
    gate = t.loop.gate
    return (
        gt.running(gate, key) is not None and not gate.waiting and not gt.is_full(gate, t.loop.options.verify_parallel)
    )


def forget(t: TicketTurn, key: str) -> None:
    """Nobody wants a result of this key any more."""
    t.set(doubts={other: told for other, told in t.loop.doubts.items() if other != key})
    if gt.waits(t.loop.gate, key):
        t.set(gate=gt.dropped(t.loop.gate, key))
        _admit(t)


def _admit(t: TicketTurn) -> None:
    while True:
        gate, run = gt.admit(t.loop.gate, t.loop.options.verify_parallel)
        if run is None:
            return
        t.set(gate=gate)
        t.do(run.run)
