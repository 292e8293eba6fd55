"""The working copy of one step of a task loop or a worker: what every step can do to its pi and to its own end.

Only `core` sees it.
"""

from dataclasses import replace
from typing import Any, Never

from ralph_runner.core.desk import Desk
from ralph_runner.core.effects import EndPi, Finish, HandBack, Save, Send
from ralph_runner.core.phases import Ended, Ending, Idle, Phase
from ralph_runner.core.state import Loop
from ralph_runner.core.verdict import Verdict


class Turn(Desk[Loop, Never]):
    """One step's state, time and effects."""

    def go(self, phase: Phase) -> None:
        """The loop is in this phase now."""
        self.loop = replace(self.loop, phase=phase)

    def send(self, command: str, mark: str = "", **members: Any) -> str:
        """Asks pi; the id of the request tells its reply apart from late ones."""
        self.set(seq=self.loop.seq + 1)
        request = f"{command}-{self.loop.seq}{mark}"
        self.do(Send(command, request, members))
        return request

    def new_session(self) -> str:
        """Asks pi for a fresh session; with that pi stops keeping the old one warm."""
        request = self.send("new_session")
        assert self.loop.pi is not None
        self.set(pi=replace(self.loop.pi, open=False))
        return request

    def leave_session(self) -> None:
        """No iteration follows at once: nothing is to be spent on the session of the last one meanwhile."""
        if self.loop.pi is not None and self.loop.pi.open:
            self.new_session()

    def receipt_iteration(self) -> int | None:
        """The iteration under way, or the last one."""
        return self.loop.iteration

    def conclude(self, verdict: Verdict) -> None:
        """The work at hand is over. A task loop ends with it; a worker hands its ticket back and keeps pi."""
        if self.loop.duty is None:
            self.end(verdict)
        else:
            self.leave_session()
            self.go(Idle(verdict))
            self.do(HandBack(verdict), Save())

    def end(self, verdict: Verdict, graceful: bool = True) -> None:
        """The loop ends like this, as soon as pi is gone."""
        if isinstance(self.loop.phase, Ending | Ended):
            return
        self.go(Ending(verdict))
        if self.loop.pi is None:
            self.finish(verdict)
        else:
            self.status("stopping", verdict.error)
            self.do(EndPi(graceful))

    def finish(self, verdict: Verdict) -> None:
        """pi is gone. A worker only leaves: commands and the last word are its loop's."""
        if self.loop.duty is None:
            self.close_books(verdict)
        else:
            self.set(stop_reason=verdict.stop_reason)
            self.status(verdict.status, verdict.error)
            self.do(Finish(verdict.status))
        self.go(Ended())
