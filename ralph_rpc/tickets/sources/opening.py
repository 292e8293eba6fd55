"""Which tickets are meant, and how they are opened: the only place that knows what kinds of sources there are.

Called by the runner, by `start`, and by `ralph-rpc tickets`. It only looks.
"""

from pathlib import Path

from ralph_rpc.tickets.sources import markdown
from ralph_rpc.tickets.sources.protocol import TicketSource
from ralph_rpc.tickets.ticket import COMPONENT


def find_source(project: Path, given: str = "") -> str:
    """What `--tickets GIVEN` means, as config.json keeps it; by default the tickets that the project has.

    Raises UsageError where there are none.
    """
    return str(markdown.find_tickets(project, given))


def open_source(project: Path, where: str, prefix: str = COMPONENT) -> TicketSource:
    """The source that `find_source` found, or that a person wrote into config.json; `prefix` begins component tags."""
    return markdown.MarkdownTickets(project / where, prefix)
