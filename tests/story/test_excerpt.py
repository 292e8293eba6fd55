"""One iteration, or one ticket, out of a log in which several are worked on side by side."""

from pathlib import Path

import orjson
import pytest

from ralph_rpc.errors import RalphError
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.story.excerpt import Excerpt, IterationExcerpt, TicketExcerpt, excerpt_of_iteration, excerpt_of_ticket
from tests.cli import forged


def border(kind: str, iteration: int, ticket: str | None = None) -> bytes:
    return orjson.dumps(
        {"type": f"ralph_iteration_{kind}", "iteration": iteration} | ({"ticket": ticket} if ticket else {})
    )


def pi(iteration: int, ticket: str | None = None) -> bytes:
    stamp = {"at": 1, "iteration": iteration} | ({"ticket": ticket} if ticket else {})
    return orjson.dumps({"type": "x", "ralph": stamp})


def picked(excerpt: Excerpt, lines: list[bytes]) -> list[int]:
    """Which of the lines it takes, up to where it is done."""
    taken = []
    for number, line in enumerate(lines):
        if excerpt.takes(number, line):
            taken.append(number)
        if excerpt.done:
            break
    return taken


def test_an_iteration_is_its_borders_and_what_is_between_them() -> None:
    lines = [border("end", 1), border("start", 2), pi(2), border("end", 2), border("start", 3), pi(3)]
    excerpt = IterationExcerpt(2, 0, None, began=False)
    assert picked(excerpt, lines) == [1, 2, 3] and excerpt.found and excerpt.done
    assert picked(IterationExcerpt(4, 0, None, began=False), lines) == []


def test_an_iteration_of_a_ticket_leaves_out_the_one_beside_it() -> None:
    verify = orjson.dumps({"type": "ralph_verify", "ticket": "a"})
    other = orjson.dumps({"type": "ralph_verify", "ticket": "b"})
    lines = [border("start", 1, "a"), border("start", 2, "b"), pi(1, "a"), pi(2, "b"), verify, other]
    assert picked(IterationExcerpt(1, 0, None, began=False), lines) == [0, 2, 4]


def test_an_iteration_ends_where_its_record_says() -> None:
    notice = b'{"type":"ralph_notice"}'
    excerpt = IterationExcerpt(1, 0, 2, began=True)
    assert picked(excerpt, [pi(1), notice, notice, notice]) == [0, 1, 2] and excerpt.done


def test_a_ticket_is_every_line_that_names_it() -> None:
    excerpt = TicketExcerpt("b", 0)
    assert picked(excerpt, [border("start", 1, "a"), border("start", 2, "b"), pi(1, "a"), pi(2, "b")]) == [1, 3]


def test_where_an_iteration_begins_is_found_by_records_and_what_never_began_is_refused(tmp_path: Path) -> None:
    paths: LoopPaths = forged.loop(tmp_path, iteration=3)
    forged.write_record(paths, 1, 10, 200)
    assert excerpt_of_iteration(paths, 1).start == 10
    assert excerpt_of_iteration(paths, 3).start == 200
    with pytest.raises(RalphError, match="has no iteration 4"):
        excerpt_of_iteration(paths, 4)
    with pytest.raises(RalphError, match="has not worked on a ticket 'x'"):
        excerpt_of_ticket(paths, "x")
