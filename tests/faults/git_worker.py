"""One of several runners: `git_worker.py PROJECT WORKER TICKETS` merges so many tickets of a file each."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2])]

from ralph_rpc.git.merge import Landed
from tests.git.ticketing import Ticket


def main() -> None:
    project, worker, count = sys.argv[1:]
    for number in range(int(count)):
        ticket = Ticket(Path(project), f"{worker}-{number}")
        landed = ticket.run(f"by/{ticket.id}", f"{ticket.id}\n")
        assert isinstance(landed, Landed), landed
        why = ticket.remove()
        assert why is None, why


if __name__ == "__main__":
    main()
