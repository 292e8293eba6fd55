"""The same backlogs before the real `tk` and before us: what is ready, blocked and closed, and what a change leaves."""

import re
from pathlib import Path
from random import Random

import pytest

from ralph_rpc.tickets.choice import Choice
from ralph_rpc.tickets.schedule import Rules, plan
from ralph_rpc.tickets.sources.markdown import MarkdownTickets
from tests.tickets.test_markdown import DECIDES_NOTHING
from tests.tickets.tk import tk

ALL = Rules(10_000, True, Choice(take_in_progress=True))
LISTED = re.compile(r"^(\S+)\s+\[", re.MULTILINE)
ODD = [head for head in DECIDES_NOTHING if not head.startswith(("priority", "- a"))]


def test_backlogs_are_read_as_tk_reads_them(tmp_path: Path) -> None:
    """Any field that decides nothing, in any form, before or after those that do."""
    for seed in range(6):
        project = tmp_path / f"p{seed}"
        made = _write(project, Random(seed))
        _compare(project, made)


def _write(project: Path, random: Random) -> list[str]:
    folder = project / ".tickets"
    folder.mkdir(parents=True)
    ids = [f"ab-{n:02}" for n in range(40)]
    for n, id in enumerate(ids):
        deps = random.sample(ids[:n], min(n, random.randrange(3))) if random.random() < 0.9 else ["gone"]
        status = random.choice(["open", "open", "open", "in_progress", "closed", "closed"])
        lines = [f"id: {id}", f"status: {status}", f"deps: [{', '.join(deps)}]", f"priority: {random.randrange(5)}"]
        for odd in random.sample(ODD, random.randrange(3)):
            # Where a value may reach into the next lines, tk and YAML agree only behind all that decides.
            lines.insert(len(lines), odd)
        (folder / f"{id}.md").write_text("---\n" + "\n".join(lines) + f"\n---\n# Title {n}\n\ntext\n")
    return ids


def _compare(project: Path, ids: list[str]) -> None:
    source = MarkdownTickets(project / ".tickets")
    backlog = source.scan()
    assert list(backlog.tickets) == ids and backlog.unread == ()
    made = plan(backlog, {}, ALL)
    assert sorted(made.start) == sorted(LISTED.findall(tk(project, "ready")))
    waiting = [row.id for row in made.rows if row.state in ("waiting", "blocked")]
    assert sorted(waiting) == sorted(LISTED.findall(tk(project, "blocked")))
    closed = [row.id for row in made.rows if row.state == "done"]
    assert sorted(closed) == sorted(LISTED.findall(tk(project, "closed", "--limit=1000")))
    id = made.start[0]
    path = project / ".tickets" / f"{id}.md"
    before = path.read_bytes()
    source.set_status(id, "closed")
    ours = path.read_bytes()
    path.write_bytes(before)
    tk(project, "close", id)
    assert path.read_bytes() == ours
    assert sorted(plan(source.scan(), {}, ALL).start) == sorted(LISTED.findall(tk(project, "ready")))


@pytest.mark.parametrize("words", [("st3i",), ("ab",), ("ab-1",), ("zz",), ("ab-12",)])
def test_a_part_of_an_id_means_what_it_means_to_tk(tmp_path: Path, words: tuple[str]) -> None:
    from ralph_rpc.tickets.ticket import named

    folder = tmp_path / ".tickets"
    folder.mkdir()
    ids = ["ab-1", "ab-12", "cd-st3i"]
    for id in ids:
        (folder / f"{id}.md").write_text(f"---\nid: {id}\nstatus: open\n---\n# T\n")
    shown = re.findall(r"^id: (\S+)", tk(tmp_path, "show", *words, check=False), re.MULTILINE)
    found = named(words[0], ids)
    assert shown == (found if len(found) == 1 else [])
