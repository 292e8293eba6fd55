"""`Loop`: one loop in the hand of a program, and all that can be done to it or asked of it.

A thin face of the operations beside it, for loops of this machine. It holds no file and no lock, only a path: any
number of them may be there for one loop, in any number of processes, and none of them keeps it alive or ends it by
going away.
"""

from pathlib import Path
from typing import Self

from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.loops.find import find
from ralph_rpc.loops.kill import kill
from ralph_rpc.loops.resume import wake
from ralph_rpc.loops.send import Receipt, Sent, await_receipt, send
from ralph_rpc.loops.status import LoopStatus, loop_status, read_state
from ralph_rpc.loops.tail import EventStream
from ralph_rpc.loops.wait import await_end, deadline_of, settled_status
from ralph_rpc.model.commands import Body, FollowupWhen, StopWhen, Then, Verb
from ralph_rpc.model.state import State
from ralph_rpc.options.python import OptionValue, as_given


class Loop:
    """A loop, living or ended. Two of them are equal if they are the same loop."""

    def __init__(self, paths: LoopPaths) -> None:
        self.paths = paths
        """Where its files are."""

    @classmethod
    def find(cls, name: str, project: Path | None = None) -> Self:
        """The loop of that name; see `ralph_rpc.loops.find.find`."""
        return cls(find(name, project))

    @property
    def name(self) -> str:
        return self.paths.name

    @property
    def project(self) -> Path:
        """The folder that holds .ralph."""
        return self.paths.project

    @property
    def state(self) -> State | None:
        """state.json as it is now; None where it was not written yet or cannot be read."""
        return read_state(self.paths)

    def status(self) -> LoopStatus:
        """How it really is: `shown`, `ended`, whether its `runner` lives, and its `state`."""
        return loop_status(self.paths)

    def events(self, offset: int = 0, follow: bool = True) -> EventStream:
        """Its events from an offset on, as dicts; ends when the loop has ended, without `follow` at the present end."""
        return EventStream(self.paths, offset, follow)

    def send(self, verb: Verb, body: Body) -> Sent:
        """Puts a command into its inbox and returns at once. RalphError where nothing could take it."""
        return send(self.paths, verb, body)

    def receipt(self, sent: Sent, timeout: float | None = None) -> Receipt:
        """Waits until a command has had its effect, was rejected, or has expired.

        Raises TimedOut after `timeout` seconds, RalphError where the runner goes away first.
        """
        return await_receipt(self.paths, sent, timeout)

    def steer(self, message: str, ticket: str | None = None) -> Sent:
        """Tells the agent something between two turns; if none works just now, in its next prompt."""
        return self.send("steer", _message(message, ticket))

    def followup(self, message: str, when: FollowupWhen = "now", ticket: str | None = None) -> Sent:
        """Tells the agent something when it would end its turn, or (`next`) in the next iteration's prompt."""
        return self.send("followup", {**_message(message, ticket), "when": when})

    def stop(self, when: StopWhen = "iteration") -> Sent:
        """Ends it after the iteration that runs, or at once."""
        return self.send("stop", {"when": when})

    def abort(self, then: Then = "continue") -> Sent:
        """Ends the current pi run at once."""
        return self.send("abort", {"then": then})

    def pause(self) -> Sent:
        """Holds it before its next iteration."""
        return self.send("pause", {})

    def resume(self, **options: OptionValue) -> None:
        """Continues it: ends its pause, or launches a new runner, with these options changed.

        Returns when that is done, not when a model has answered. Raises UsageError where it would end again at once,
        AlreadyRunning where it neither pauses nor waits, or where options are given while it runs.
        """
        given = as_given(options)
        found = settled_status(self.paths)
        if found.runner != "dead":
            wake(self.paths, found, list(given))
            return
        from ralph_rpc.loops.restart import restart  # needs git, tickets and a look for pi

        restart(self.paths, found.state, given)

    def wait(self, timeout: float | None = None) -> LoopStatus:
        """Its status once it has ended and its runner is gone, or has crashed. TimedOut after `timeout` seconds."""
        return await_end(self.paths, deadline_of(timeout))

    def kill(self) -> bool:
        """Ends its runner and everything below it; tells whether that took SIGKILL. RalphError where none is there."""
        return kill(self.paths)

    def __repr__(self) -> str:
        return f"Loop({str(self.paths.dir)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Loop) and self.paths == other.paths

    def __hash__(self) -> int:
        return hash(self.paths)


def _message(message: str, ticket: str | None) -> Body:
    return {"message": message} if ticket is None else {"message": message, "ticket": ticket}
