"""A night as people have it: an untidy backlog, four agents, and a person who goes on working on the same branch."""

import random
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import pytest

from tests.rig import git
from tests.ticket_rig import TicketRig, does, fake_tickets

pytestmark = [pytest.mark.usefixtures("no_leftovers"), pytest.mark.timeout(300)]

ACTS = 4
"""What a person does for each ticket."""

TESTS = "for t in tests/*.sh; do [ ! -e $t ] || sh $t || exit 1; done"
WORK = (
    "mkdir -p src tests; echo VALUE=1 > src/$RALPH_TICKET.sh; echo '. ./src/'$RALPH_TICKET.sh > tests/$RALPH_TICKET.sh"
)
IGNORED = (
    "mkdir -p lib tests; echo VALUE=1 > lib/$RALPH_TICKET.sh; echo '. ./lib/'$RALPH_TICKET.sh > tests/$RALPH_TICKET.sh"
)
HEADS = (
    "assignee: Test Person",
    "assignee: Test Person\npriority: P1",
    "assignee: Test Person\npriority: 7",
    "assignee: Test Person\nexternal-ref: gh-12",
    "assignee: Test Person\ncreated: yesterday",
)


def untidy(rig: TicketRig, count: int) -> list[str]:
    """Tickets as real backlogs have them; the ids of those that are work."""
    folder = rig.project / ".tickets"
    folder.mkdir()
    ids = [f"sh-{n:02}" for n in range(1, count + 1)]
    for n, id in enumerate(ids):
        head = HEADS[n % len(HEADS)]
        deps = f"[{ids[n - 7]}]" if n % 5 == 4 and n >= 7 else "[]"
        parent = "parent: ep-1\n" if n % 6 == 0 else ""
        text = f"---\nid: {id}\nstatus: open\ndeps: {deps}\nlinks: []\ntype: task\n{parent}{head}\n---\n# Do {id}\n\nText.\n"
        (folder / f"{id}.md").write_text(text)
    (folder / "ep-1.md").write_text("---\nid: ep-1\nstatus: open\ndeps: []\ntype: epic\n---\n# All of it\n")
    (folder / "README.md").write_text("How we write tickets.\n")
    claimed = "---\nid: co-1\nstatus: in_progress\nassignee: '@joe'\ndeps: []\n---\n# Joe's\n"
    (folder / "co-1.md").write_text(claimed)
    return ids


class Person(threading.Thread):
    """Commits, amends, switches, stashes, notes and tidies up, until the end of the `with`, or until it is done.

    On a busy machine no merge could ever be verified between two commits of one who never tires.
    """

    def __init__(self, project: Path, ids: list[str]) -> None:
        super().__init__(daemon=True)
        self.project, self.ids, self.over = project, ids, threading.Event()
        self.dice = random.Random(7)
        self.did: dict[str, int] = {}
        self.trouble: list[str] = []

    def run(self) -> None:
        acts: list[Callable[[], None]] = [self.commit, self.amend, self.switch, self.stash, self.note, self.gc]
        for act in self.dice.choices(acts, k=ACTS * len(self.ids)):
            if self.over.wait(0.3):
                return
            try:
                act()
                self.did[act.__name__] = self.did.get(act.__name__, 0) + 1
            except (OSError, subprocess.CalledProcessError) as error:  # git's locks: a person would try again
                self.trouble.append(f"{act.__name__}: {error}")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.join()

    def commit(self) -> None:
        (self.project / "person.txt").write_text(f"{time.monotonic_ns()}\n")
        git(self.project, "add", "person.txt")
        git(self.project, "commit", "-qm", "a person's", "person.txt")

    def amend(self) -> None:
        if git(self.project, "log", "-1", "--format=%s").startswith("a person's"):
            git(self.project, "commit", "-q", "--amend", "-m", f"a person's, amended {time.monotonic_ns()}")

    def switch(self) -> None:
        git(self.project, "switch", "-q", "side")
        time.sleep(0.5)
        git(self.project, "switch", "-q", "main")

    def stash(self) -> None:
        (self.project / "README").write_text("mine\n")
        git(self.project, "stash", "push", "-q", "README")
        git(self.project, "stash", "pop", "-q")
        git(self.project, "checkout", "-q", "README")

    def gc(self) -> None:
        git(self.project, "gc", "-q", "--prune=now")

    def note(self) -> None:
        path = self.project / ".tickets" / f"{self.dice.choice(self.ids)}.md"
        with path.open("a") as file:
            file.write(f"\n## Notes\n\n**2026-01-01T00:00:00Z**\n\nBy hand {time.monotonic_ns()}.\n")
        git(self.project, "commit", "-qm", "a person's note", "--", str(path))


@pytest.mark.parametrize("count", [pytest.param(30, marks=pytest.mark.full), 8])
def test_every_closed_ticket_of_an_untidy_backlog_is_in_a_fresh_clone_with_verify_green(
    tmp_path: Path, count: int, record_property: Callable[[str, object], None]
) -> None:
    slow = "sleep 0.$(($$ % 5 + 1))"
    scripts = {f"sh-{n:02}": [does(slow, WORK)] for n in range(1, count + 1)}
    scripts["sh-03"] = [does(IGNORED), does("git add -f lib")]
    scripts["sh-05"] = [
        does("true")[:-2] + ["done\n<promise>COMPLETE</promise>"],
        ["It is there.\n<promise>COMPLETE</promise>"],
    ]
    rig = fake_tickets(tmp_path, scripts)
    (rig.project / ".gitignore").write_text("lib/\n")
    (rig.project / "person.txt").write_text("first\n")
    git(rig.project, "add", "-A")
    git(rig.project, "commit", "-qm", "before")
    ids = untidy(rig, count)
    rig.commit()
    git(rig.project, "branch", "side")
    began = time.monotonic()
    rig.begin("--parallel", "4", "--verify", TESTS)
    with Person(rig.project, ids) as person:
        state = rig.wait_end(timeout=240)
    assert (state["status"], state["stopReason"]) == ("completed", "tickets-done"), (state["error"], rig.log())
    git(tmp_path, "clone", "-q", "--branch=main", str(rig.project), "clone")  # the person may be elsewhere
    git(tmp_path / "clone", "-c", f"alias.verify=!{TESTS}", "verify")
    for id in ids:
        assert rig.dispatch(id)["status"] == "closed", rig.dispatch(id)
        assert "status: closed" in rig.on_main(f".tickets/{id}.md")
        if not rig.dispatch(id).get("withoutChanges"):
            assert (tmp_path / "clone/tests" / f"{id}.sh").exists(), id
    assert rig.dispatch("sh-05")["withoutChanges"] is True
    assert "status: closed" in rig.on_main(".tickets/ep-1.md") and "in_progress" in rig.on_main(".tickets/co-1.md")
    assert rig.branches() == [] and rig.worktrees() == []
    rig.check_whole()
    record_property("figure", f"{count} tickets in {time.monotonic() - began:.0f} s beside {person.did}")
