"""What `start` and `resume` say of a backlog before a loop works on it, and where there is nothing to do."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ralph_rpc.errors import UsageError
from ralph_rpc.loops.backlog import check_work, with_whole_ids
from ralph_rpc.loops.backlog_news import news_of
from ralph_rpc.tickets.ticket import Backlog, BadTicket, Doubt, Ticket
from tests.core.talk import config
from tests.tickets.test_schedule import backlog, epic, ticket

LATIN = BadTicket(Path("/t/l.md"), 3, "it is not UTF-8", "l")


def news(*tickets: Ticket, bad: tuple[BadTicket, ...] = (), **options: Any) -> list[str]:
    return list(news_of(backlog(*tickets, bad=bad), config(tickets="/t", **options)))


def test_of_a_plain_backlog_there_is_nothing_to_say() -> None:
    tickets = ticket("a", "x"), ticket("b", "y", deps="a"), ticket("c", status="closed")
    assert news(*tickets) == news(*tickets, parallel=4) == news() == []


def test_what_cannot_be_read_is_named_with_its_place_up_to_three() -> None:
    many = tuple(replace(LATIN, path=Path(f"/t/l{n}.md"), id=f"l{n}") for n in range(5))
    assert news(ticket("a"), bad=(LATIN,)) == [
        "1 ticket cannot be read, so not all will be done: l.md:3: it is not UTF-8"
    ]
    (line,) = news(ticket("a"), bad=many)
    assert line.startswith("5 tickets cannot be read") and line.endswith("l2.md:3: it is not UTF-8 and 2 more")
    assert news(ticket("a"), bad=(LATIN,), only=["a"]) == []
    assert len(news(ticket("a"), bad=(LATIN,), only=["l"])) == 1


def test_what_is_held_back_is_named() -> None:
    held = replace(ticket("a"), doubt=Doubt("who knows", 3))
    bad = (BadTicket(Path("/t/a.md"), 3, "who knows", "a"),)
    assert news(held, ticket("b", deps="gone"), bad=bad) == [
        "2 tickets will not start before you have looked: a.md:3: who knows; b.md:4: dep gone does not exist"
    ]
    assert news(held, ticket("b"), bad=bad, only=["b"]) == []


def test_what_others_work_on_is_named_with_its_assignee() -> None:
    theirs = replace(ticket("a", status="in_progress"), assignee="@joe")
    assert news(theirs, ticket("b")) == [
        "1 ticket is in progress already and left to whoever works there: a (@joe); --take-in-progress takes it"
    ]
    (line,) = news(theirs, ticket("b", status="in_progress"))
    assert line.startswith("2 tickets are in progress") and "a (@joe); b; --take-in-progress takes them" in line
    assert news(theirs, takeInProgress=True) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "no ticket has a tag that begins with component:, so any of them may run side by side"),
        ({"componentPrefix": "area:"}, "no ticket has a tag that begins with area:"),
        ({"allowUntagged": True}, None),
        ({"allowUntagged": False}, "2 of 2 tickets have no tag that begins with component: and run alone"),
        ({"parallel": 1}, None),
    ],
)
def test_how_tickets_without_a_component_run_is_said_where_several_could(
    options: dict[str, Any], said: str | None
) -> None:
    tickets = epic("e"), replace(ticket("a"), parent="e"), ticket("b")
    found = news(*tickets, **{"parallel": 4, **options})
    assert [line.startswith(said or "?") for line in found] == ([True] if said else [])


def test_some_without_a_component_are_counted() -> None:
    (line,) = news(ticket("a", "x"), ticket("b"), ticket("c"), parallel=2)
    assert line.startswith("2 of 3 tickets have no tag that begins with component: and run alone; --allow-untagged")
    assert news(ticket("a"), parallel=4) == [], "one alone runs alone in any case"


def found(*tickets: Ticket, bad: tuple[BadTicket, ...] = ()) -> Backlog:
    return backlog(*tickets, bad=bad)


@pytest.mark.parametrize(
    ("tickets", "options", "why"),
    [
        ([], {}, "there is no open ticket in /t"),
        ([ticket("a", status="closed")], {}, "there is no open ticket in /t"),
        ([ticket("a")], {"tags": ["ui"]}, "no open ticket in /t is chosen: a has no tag ui"),
        ([ticket("a")], {"assignees": ["joe"]}, "no open ticket in /t is chosen: a is not assigned to joe"),
        (
            [ticket("a", status="in_progress")],
            {},
            "there is no ticket to start in /t: others work on those that are open",
        ),
    ],
)
def test_where_there_is_nothing_to_do_the_reason_is_said(
    tickets: list[Ticket], options: dict[str, Any], why: str
) -> None:
    with pytest.raises(UsageError) as caught:
        check_work(found(*tickets), config(tickets="/t", **options))
    assert caught.value.message == why
    with pytest.raises(UsageError, match="; 1 cannot be read"):
        check_work(found(*tickets, bad=(LATIN,)), config(tickets="/t", **options))
    check_work(found(*tickets, replace(ticket("b"), tags=("ui",), assignee="joe")), config(tickets="/t", **options))


def test_only_takes_parts_of_ids_and_says_what_is_wrong_with_them() -> None:
    tickets = found(ticket("ab-1"), ticket("ab-2"), bad=(LATIN,))

    def only(*parts: str) -> list[str]:
        return with_whole_ids(config(only=list(parts)), tickets).get("only", [])

    assert only("1", "ab-1", "-2") == ["ab-1", "ab-2"]
    assert only() == []
    for part, why in (
        ("ab", "2 tickets have that"),
        ("zz", "no such ticket"),
        ("l", r"l\.md, line 3: it is not UTF-8"),
    ):
        with pytest.raises(UsageError, match=rf"--only {part}: .*{why}"):
            only(part)
