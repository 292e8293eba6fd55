"""What a person should know of a backlog before a loop works on it, because it will not go as they may expect.

Called by `start` and `resume` through `preflight`. Pure: a line for each kind of thing, with the first few by name.
"""

from collections.abc import Iterator, Sequence

from ralph_rpc.model.config import Config
from ralph_rpc.terminal.inert import inert
from ralph_rpc.terminal.width import line_of
from ralph_rpc.tickets.choice import Choice, epics_of
from ralph_rpc.tickets.schedule import Rules
from ralph_rpc.tickets.ticket import Backlog, BadTicket, Ticket

SHOWN = 3


def news_of(backlog: Backlog, config: Config) -> Iterator[str]:
    """Each as one line."""
    epics = epics_of(backlog.tickets)
    choice = Choice.of(config).within(backlog.tickets, epics)
    todo = [one for id, one in backlog.tickets.items() if one.status != "closed" and id not in epics]
    outs = {one.id: choice.leaves_out(one, ()) for one in todo}
    mine = [one for one in todo if outs[one.id] is None]
    unread = [one for one in backlog.unread if choice.only is None or one.id in choice.only]
    if unread:
        yield f"{_tickets(unread)} cannot be read, so not all will be done: {_places(unread)}"
    ids = {one.id for one in mine}
    if held := [one for one in backlog.bad if one.id in ids]:
        yield f"{_tickets(held)} will not start before you have looked: {_places(held)}"
    if claimed := [one for one in todo if (out := outs[one.id]) is not None and out.is_claimed]:
        verb = "is" if len(claimed) == 1 else "are"
        yield (
            f"{_tickets(claimed)} {verb} in progress already and left to whoever works there: "
            f"{_some([_claim(one) for one in claimed])}; --take-in-progress takes {'it' if len(claimed) == 1 else 'them'}"
        )
    if config.get("parallel", 1) > 1:
        yield from _of_components(backlog, mine, config)


def _of_components(backlog: Backlog, mine: Sequence[Ticket], config: Config) -> Iterator[str]:
    """How tickets without a component run, where several could run at once."""
    untagged = sum(not one.components for one in mine)
    prefix = config.get("componentPrefix") or "component:"
    rules = Rules.of(config)
    if len(mine) < 2 or not untagged or rules.allow_untagged:
        return
    if rules.lets_untagged(backlog):
        yield (
            f"no ticket has a tag that begins with {prefix}, so any of them may run side by side; "
            "--component-prefix names other tags, --no-allow-untagged runs one at a time"
        )
    else:
        yield (
            f"{untagged} of {len(mine)} tickets have no tag that begins with {prefix} and run alone; "
            "--allow-untagged lets them run beside others"
        )


def _tickets(some: Sequence[object]) -> str:
    return f"{len(some)} ticket{'s'[: len(some) != 1]}"


def _places(bad: Sequence[BadTicket]) -> str:
    return _some([f"{one.place}: {one.reason}" for one in bad])


def _claim(ticket: Ticket) -> str:
    by = f" ({line_of(ticket.assignee, 40)})" if ticket.assignee else ""
    return f"{inert(ticket.id, keep_newlines=False)}{by}"


def _some(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - SHOWN} more" if len(texts) > SHOWN else ""
    return "; ".join(texts[:SHOWN]) + more
