"""Two tickets of a project taken from worktrees to merges, by a process that dies, or whose git does.

    git_victim.py PROJECT [line N | git N SECONDS | end N]

Says at its end how many lines of ours and how many gits that took. `line N` dies with SIGKILL at the N-th
line of our code, so that a git that it has just started goes on alone; `git N S` kills its N-th git S seconds
after its start, `end N` when it has done its work, of which nobody hears. Done again, without an order, it goes on
as a runner that takes the loop up again: it adds what is missing, writes what the agents write, commits, merges and
removes.
"""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT)]

from ralph_rpc.git.calls import GitError
from ralph_rpc.git.merge import Landed
from ralph_rpc.git.uncommitted import Refused
from tests.git.ticketing import Ticket

OURS = str(ROOT / "ralph_rpc" / "git")
FILES = 15
BIG = "a line that makes the file longer\n" * 2000
OFTEN = 12
"""A line that runs more often is in a loop over files, which are all alike."""

lines = gits = 0


def work(project: Path) -> None:
    """All steps of both tickets; the second one is behind when the first has been merged."""
    tickets = [Ticket(project, "ab-1"), Ticket(project, "ab-2")]
    for ticket in tickets:
        ticket.add()
    for ticket in tickets:
        write(ticket)
        committed = ticket.commit()
        assert not isinstance(committed, Refused), committed
        landed = ticket.land()
        assert isinstance(landed, Landed), landed
    for ticket in tickets:
        why = ticket.remove()
        assert why is None, why


def write(ticket: Ticket) -> None:
    """Its own files changed, new and removed, the same whenever it is done."""
    for number in range(FILES):
        ticket.write(f"{ticket.id}/old{number}", f"changed by {ticket.id}\n{BIG}")
        ticket.write(f"{ticket.id}/new/{number}", f"made by {ticket.id}\n{BIG}")
        (ticket.path / ticket.id / f"gone{number}").unlink(missing_ok=True)


def trace_to(fatal: int) -> Any:
    seen: dict[tuple[object, int], int] = {}

    def trace(frame: FrameType, event: str, _: object) -> Any:
        global lines
        if not frame.f_code.co_filename.startswith(OURS):
            return None
        place = frame.f_code, frame.f_lineno
        seen[place] = seen.get(place, 0) + (event == "line")
        if event == "line" and seen[place] <= OFTEN:
            lines += 1
            if lines == fatal:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    return trace


class Mortal(subprocess.Popen[bytes]):
    """Of these, the N-th is killed soon after its start, with all that it has started, or at its very end."""

    fatal = 0
    after: float | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        global gits
        super().__init__(*args, **kwargs)
        gits += 1
        self._number = gits
        if gits == self.fatal and self.after is not None:
            threading.Timer(self.after, self._die).start()

    def communicate(self, *args: Any, **kwargs: Any) -> tuple[bytes, bytes]:
        told = super().communicate(*args, **kwargs)
        if self._number != self.fatal or self.after is not None:
            return told
        self.returncode = -signal.SIGKILL
        return b"", b""

    def _die(self) -> None:
        try:
            os.killpg(self.pid, signal.SIGKILL)  # not reaped yet, or it is no more
        except ProcessLookupError:
            pass


def main() -> None:
    project, *order = sys.argv[1:]
    subprocess.Popen = Mortal  # type: ignore[assignment, misc]
    if order[:1] in (["git"], ["end"]):
        Mortal.fatal, Mortal.after = int(order[1]), float(order[2]) if order[0] == "git" else None
    sys.settrace(trace_to(int(order[1]) if order[:1] == ["line"] else 0))
    try:
        work(Path(project))
    except GitError as error:
        sys.settrace(None)
        print(error, file=sys.stderr)
        sys.exit(1)
    sys.settrace(None)
    print(lines, gits)


if __name__ == "__main__":
    main()
