"""The side list of a ticket loop: the tickets that are being worked on; choosing one shows it alone."""

from rich.text import Text
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from ralph_rpc.clock import parse_iso
from ralph_rpc.model.state import RunningTicket, State
from ralph_rpc.terminal.units import whole_seconds
from ralph_rpc.terminal.width import line_of

COLUMNS = 24


class TicketList(OptionList):
    """Hidden until there is a ticket."""

    def __init__(self) -> None:
        super().__init__()
        self._listed: list[str] = []

    def show_running(self, state: State | None, now_ms: int) -> None:
        """Shows what runs now; the place in the list stays."""
        tickets = state["tickets"]["running"] if state is not None and "tickets" in state else []
        if tickets:
            self.display = True
        ids = [ticket["ticket"] for ticket in tickets]
        if ids != self._listed:
            place = self.highlighted
            self.clear_options()
            self.add_option(Option("all tickets", id=""))
            self.add_options([Option(_line(ticket, now_ms), id=ticket["ticket"]) for ticket in tickets])
            self.highlighted = min(place or 0, len(tickets))
        else:
            for index, ticket in enumerate(tickets, 1):
                self.replace_option_prompt_at_index(index, _line(ticket, now_ms))
        self._listed = ids


def _line(ticket: RunningTicket, now_ms: int) -> Text:
    queued = ticket.get("queuedAt")
    since = parse_iso(queued or ticket["since"])
    passed = "" if since is None else f" {whole_seconds(now_ms - since)}"
    again = f" #{ticket['attempt']}" if ticket["attempt"] > 1 else ""
    text = Text(line_of(ticket["ticket"], COLUMNS), style="bold", no_wrap=True)
    text.append(f"\n  {'in the queue' if queued else ticket['status']}{again}{passed}", style="dim")
    if (far := ticket.get("far")) is not None and not queued:
        text.append(f"\n  on {line_of(far['host'], COLUMNS - 5)}", style="dim")
    if (job := ticket.get("job")) is not None and job["id"] is not None:
        what = "queued as" if job["state"] == "queued" else "job"
        text.append(f"\n  {what} {line_of(job['id'], COLUMNS - 12)}", style="dim")
    return text
