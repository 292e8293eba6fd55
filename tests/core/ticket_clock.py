"""A `World` in which every step takes its time, by a clock that no machine can slow down."""

import heapq
from collections.abc import Sequence
from typing import Any

from ralph_runner.core import effects as fx
from ralph_runner.core.tickets import effects as tx
from ralph_runner.core.tickets import results
from ralph_runner.core.tickets.step import next_deadline
from tests.core.ticket_talk import World, tree_of

STEP_MS = 50
"""What git takes for a step, or the guard to end a process."""
SLOW = (tx.OpenWorktree, tx.Commit, tx.Update, tx.BuildBatch, tx.CheckOutBatch, tx.LandBatch, tx.CloseTicket)


class ClockedWorld(World):
    """Verify runs for `verify_ms`; the agents' runs of pi take what `works` says, one after the other, and again from
    the start.
    """

    def __init__(self, *tickets: Any, works: Sequence[int], verify_ms: int, **options: Any) -> None:
        super().__init__(*tickets, **options)
        self.verify_ms, self._works = verify_ms, works
        self.begun: list[int] = []
        """When each run of the queue's verify began."""
        self.restarted: list[int] = []
        """When one was told to end."""
        self.unverified: list[str] = []
        """Trees that landed though no run of verify that was left to end has seen them."""
        self._prompted = 0
        self._asked = 0
        self._to_come: list[tuple[int, int, Any]] = []

    def run(self, most_ms: int) -> int:
        """From the beginning to the end of the loop; how long it took."""
        began = self.mono
        self.begin()
        while not self.loop.ended:
            due = self._to_come[0][0] if self._to_come else None
            tick = next_deadline(self.loop)
            at = min(one for one in (due, tick) if one is not None)
            assert at - began <= most_ms, f"it is not over after {most_ms} ms: {self.statuses}"
            passed = max(0, at - self.mono)
            if due is None or at < due:
                self.later(passed)
                continue
            self.mono, self.wall = self.mono + passed, self.wall + passed
            what = heapq.heappop(self._to_come)[2]
            if isinstance(what, str):
                self.attempt(what)
            else:
                self.say(*([what] if isinstance(what, results.BatchVerified) else super()._answer(what)))
        return self.mono - began

    def _answer(self, effect: Any) -> list[Any]:
        match effect:
            case tx.To(key, fx.Send(command="prompt")):
                self._later(key, self._works[self._prompted % len(self._works)])
                self._prompted += 1
                return super()._answer(effect)
            case tx.To(_, fx.RunVerify(str())):
                self._later(effect, self.verify_ms)
            case tx.VerifyBatch():
                self.begun.append(self.mono)
                self._later(effect, self.verify_ms)
            case tx.CancelVerifyBatch():
                self.restarted.append(self.mono)
                self._to_come = [one for one in self._to_come if not isinstance(one[2], tx.VerifyBatch)]
                heapq.heapify(self._to_come)
                self._later(results.BatchVerified(None), STEP_MS)
            case _ if isinstance(effect, SLOW):
                self._later(effect, STEP_MS)
            case _:
                return super()._answer(effect)
        return []

    def _land(self, target: str, commit: str, ids: tuple[str, ...]) -> results.BatchLanded:
        report = super()._land(target, commit, ids)
        own = {tree_of((*self.began[id], id)) for id in ids}
        if report.commit is not None and tree_of(self.target) not in self.trees | own:
            self.unverified.append(tree_of(self.target))
        return report

    def _later(self, what: Any, ms: int) -> None:
        self._asked += 1
        heapq.heappush(self._to_come, (self.mono + ms, self._asked, what))
