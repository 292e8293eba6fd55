"""The side list of a ticket loop: the tickets that run now; choosing one shows it alone.

Made of state.json, where `tickets.running` may be missing, or hold anything.
"""

from typing import Any, NamedTuple

from rich.text import Text
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from ralph_rpc.attach.headline import whole_seconds
from ralph_rpc.clock import parse_iso
from ralph_rpc.items import Event
from ralph_rpc.text import inert, line_of

COLUMNS = 24


class Running(NamedTuple):
    """A ticket that is worked on."""

    ticket: str
    status: str
    attempt: int
    since: int | None


def running_tickets(state: Event) -> list[Running]:
    """The running tickets of a state, in its order; what is no ticket is passed over."""
    tickets: Any = state.get("tickets")
    listed: Any = tickets.get("running") if isinstance(tickets, dict) else None
    found = []
    for entry in listed if isinstance(listed, list) else []:
        ticket = entry.get("ticket") if isinstance(entry, dict) else None
        if isinstance(ticket, str) and ticket:
            attempt = entry.get("attempt")
            status = entry.get("status")
            found.append(Running(
                ticket, status if isinstance(status, str) else "", attempt if isinstance(attempt, int) else 1,
                parse_iso(entry.get("since")),
            ))  # fmt: skip
    return found


class TicketList(OptionList):
    """Hidden until there is a ticket."""

    def __init__(self) -> None:
        super().__init__()
        self._told: list[Running] = []

    def tell(self, state: Event, now_ms: int) -> None:
        """Shows what runs now; the place in the list stays."""
        tickets = running_tickets(state)
        if tickets:
            self.display = True
        if [ticket.ticket for ticket in tickets] != [ticket.ticket for ticket in self._told]:
            place = self.highlighted
            self.clear_options()
            self.add_option(Option("all tickets", id=""))
            self.add_options([Option(_line(ticket, now_ms), id=ticket.ticket) for ticket in tickets])
            self.highlighted = min(place or 0, len(tickets))
        else:
            for index, ticket in enumerate(tickets, 1):
                self.replace_option_prompt_at_index(index, _line(ticket, now_ms))
        self._told = tickets


def _line(ticket: Running, now_ms: int) -> Text:
    since = "" if ticket.since is None else f" {whole_seconds(now_ms - ticket.since)}"
    again = f" #{ticket.attempt}" if ticket.attempt > 1 else ""
    text = Text(line_of(ticket.ticket, COLUMNS), style="bold", no_wrap=True)
    text.append(f"\n  {inert(ticket.status, keep_newlines=False)}{again}{since}", style="dim")
    return text
