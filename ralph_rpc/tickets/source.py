"""Where tickets come from: all that a loop needs of a tracker.

Implemented by `markdown.MarkdownTickets`; another tracker needs these four methods and nothing else. The
scheduler sees only the `Backlog`.
"""

from typing import Protocol

from ralph_rpc.tickets.ticket import Backlog, Status


class TicketSource(Protocol):
    """A backlog that can be read again and again, and the two things that a loop writes into it.

    Every method raises RalphError for what a person must mend. None is safe to call from two threads at once.
    """

    def scan(self) -> Backlog:
        """The backlog as it is now; at little cost the very same object, if nothing changed."""
        ...

    def text(self, id: str) -> str:
        """The whole text of a ticket, as its agent gets it."""
        ...

    def set_status(self, id: str, status: Status) -> None:
        """Change the status and nothing else; on disk when this returns. No effect if it is that already."""
        ...

    def add_note(self, id: str, text: str) -> None:
        """Append a note with the time of now; on disk when this returns."""
        ...
