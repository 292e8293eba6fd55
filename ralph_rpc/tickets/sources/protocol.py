"""Where tickets come from: all that a loop needs of a tracker.

Implemented by `markdown.MarkdownTickets`. Another tracker is one more module beside it and one more line in `opening`.
The scheduler sees only the `Backlog`.
"""

from pathlib import Path
from typing import Protocol

from ralph_rpc.tickets.ticket import Backlog, Status, Ticket


class TicketSource(Protocol):
    """A backlog that can be read again and again, and the two things that a loop writes into it.

    Every method raises RalphError for what a person must fix. None is safe to call from two threads at once.
    """

    @property
    def where(self) -> str:
        """What `--tickets` calls this source, absolute; for people and for config.json."""
        ...

    def scan(self) -> Backlog:
        """The backlog as it is now; if nothing changed, the very same object, at little cost."""
        ...

    def read(self, id: str) -> tuple[Ticket, str]:
        """A ticket and its whole text, as its agent gets it."""
        ...

    def locate(self, id: str) -> Path:
        """The ticket's file, whether or not its content makes sense right now."""
        ...

    def set_status(self, id: str, status: Status) -> None:
        """Change the status and nothing else; on disk when this returns. No effect if it is that already."""
        ...

    def add_note(self, id: str, text: str) -> None:
        """Append a note with the current time; on disk when this returns."""
        ...

    def holds(self, path: Path) -> bool:
        """Whether a file is one of the source's own, which it may change at any time."""
        ...

    def in_checkout(self, top: Path, other: Path) -> "TicketSource | None":
        """The same tickets as they are in another checkout of the repository whose root is `top`.

        None where they do not lie in the repository, so that git can bring them nowhere.
        """
        ...
