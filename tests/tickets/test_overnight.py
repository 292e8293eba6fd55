"""A backlog of thirty tickets as people have them, run to its end while a person works beside it.

Odd heads and ids, epics in epics, somebody's tickets, words of other tools, no component tags, a key that is no `deps`;
meanwhile the person commits, amends, switches branches, adds notes to tickets, and clears up the one doubt. In the end
a fresh clone of main holds the work of every closed ticket, and verify is green there.
"""

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from tests.rig import git, wait_for
from tests.ticket_rig import MARKER, TicketRig, fake_tickets

pytestmark = [pytest.mark.usefixtures("no_leftovers"), pytest.mark.full]

MODULE = "$(printf %s \"$RALPH_TICKET\" | od -An -tx1 | tr -d ' \\n')"
WORK = (
    f"mkdir -p mods; printf 'from base import check\\nVALUE = check(1)\\n' > mods/m_{MODULE}.py",
    'git add -A && git commit -qm "work on $RALPH_TICKET"; echo more >> notes.tmp; rm notes.tmp',
)
CHECK = """import importlib, pathlib, sys
sys.path[:0] = ["mods", "."]
for path in sorted(pathlib.Path("mods").glob("m_*.py")):
    assert importlib.import_module(path.stem).VALUE == 1, path
"""
THEIRS = ("jd-theirs", "jd-review")
ODD = (
    "assignee: @joe\npriority: P1\n",
    "assignee: Jané Doe\npriority: 7\n",
    "estimate: 3d @ 8h\npriority: -1\n",
    "external-ref: #12\ntags: [ui, 'needs: design']\n",
    "title: 'Not: yet'\npriority: high\n",
    "created: yesterday: noon\nlinks: {a: b}\n",
)


def backlog(rig: TicketRig) -> set[str]:
    """Writes thirty tickets and a README; returns the ids of those that the loop is to close."""
    heads: dict[str, str] = {
        "jd-old1": "status: Done\nassignee: @ann\n",
        "jd-old2": "status: cancelled\ndeps: [gone]\n",
        "jd-theirs": "status: in_progress\nassignee: @ann\n",
        "jd-review": "status: in-review\nassignee: ann\n",
        "jd-epic": "type: epic\nstatus: open\n",
        "jd-inner": "type: epic\nstatus: open\nparent: jd-epic\nowner: @ann\n",
        "jd-empty": "type: epic\nstatus: todo\n",
        "jd-unclear": "status: open\nblocked_by: [jd-01]\n",
        "été-st3i": "status: open\ndeps:\n- jd-01\n",
        "jd two words": "status: to do\n",
    }
    for n in range(1, 21):
        parent = f"parent: {('jd-epic', 'jd-inner')[n % 2]}\n" if n % 3 else ""
        deps = f"deps: [jd-{n - 4:02}, jd-old1]\n" if n % 4 == 0 and n > 4 else "deps: []\n"
        after = "deps: [jd-epic]\n" if n == 3 else deps
        heads[f"jd-{n:02}"] = f"status: open\n{after}{parent}{ODD[n % len(ODD)]}"
    assert len(heads) == 30
    folder = rig.project / ".tickets"
    folder.mkdir()
    for id, head in heads.items():
        (folder / f"{id}.md").write_text(f"---\nid: {id}\n{head}---\n# Do {id}\n\nText.\n")
    (folder / "README.md").write_text("# Our tickets\n\n---\nnothing here\n")
    return heads.keys() - set(THEIRS)


class Person(threading.Thread):
    """Works in the checkout of main for as long as the loop runs."""

    def __init__(self, rig: TicketRig) -> None:
        super().__init__()
        self.rig, self.random, self.over = rig, Random(7), threading.Event()
        self.notes: dict[str, list[str]] = {}
        self.did: list[str] = []
        self.failed: Exception | None = None

    def run(self) -> None:
        try:
            self._clear_up()
            acts = [self._commits, self._amends, self._switches, self._notes]
            n = 0
            while not self.over.wait(self.random.uniform(0.5, 1.5)):
                acts[n % len(acts)](n)
                n += 1
        except (AssertionError, OSError) as error:
            self.failed = error

    def git(self, *args: str) -> None:
        """As a person does it: again, where the loop's git has its lock for the moment."""

        def done() -> bool:
            found = subprocess.run(["git", *args], cwd=self.rig.project, capture_output=True, text=True, check=False)
            # What looked changed may have been a merge on its way.
            is_done = found.returncode == 0 or "nothing to commit" in found.stdout
            assert is_done or ".lock" in found.stderr, (args, found.stdout, found.stderr)
            return is_done

        wait_for(f"git {args}", done)

    def _clear_up(self) -> None:
        path = self.rig.project / ".tickets" / "jd-unclear.md"
        path.write_text(path.read_text().replace("blocked_by", "deps"))
        self.git("commit", "-qm", "the doubt is cleared up", "--", ".tickets/jd-unclear.md")

    def _commits(self, n: int) -> None:
        (self.rig.project / f"mine-{n}.txt").write_text("mine\n")
        self.git("add", f"mine-{n}.txt")
        self.git("commit", "-qm", f"mine {n}", "--", f"mine-{n}.txt")
        self.did.append(f"mine-{n}.txt")

    def _amends(self, n: int) -> None:
        self._commits(n)
        if git(self.rig.project, "log", "-1", "--format=%s").strip() == f"mine {n}":
            self.git("commit", "-q", "--amend", "-m", f"mine {n}, amended")

    def _switches(self, _: int) -> None:
        if git(self.rig.project, "status", "--porcelain", "--", ".tickets"):
            self.git("commit", "-qm", "notes", "--", ".tickets")
        self.git("switch", "-q", "side")
        self.over.wait(0.7)
        self.git("switch", "-q", "main")

    def _notes(self, n: int) -> None:
        running = [one["ticket"] for one in self.rig.state().get("tickets", {}).get("running", [])]
        for id in running[:1]:
            path = self.rig.project / ".tickets" / f"{id}.md"
            with path.open("a") as file:
                file.write(f"\nA note of mine, {n}.\n")
            self.notes.setdefault(id, []).append(f"A note of mine, {n}.")
            if n % 8 < 4:
                self.git("commit", "-qm", f"note on {id}", "--", str(path))


def test_thirty_tickets_as_people_have_them_are_done_while_a_person_works_beside_them(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    steps = [*({"tool": "bash", "run": run} for run in WORK), f"done\n{MARKER}"]
    rig = fake_tickets(tmp_path, {"usual": [steps]})
    todo = backlog(rig)
    (rig.project / "base.py").write_text("def check(value):\n    return value\n")
    (rig.project / "check.py").write_text(CHECK)
    (rig.project / ".gitignore").write_text("__pycache__/\n")
    rig.commit()
    git(rig.project, "branch", "side")
    verify = f"{sys.executable} check.py"
    told = rig.begin("--parallel", "4", "--verify", verify).stderr
    assert "2 tickets are in progress already" in told and "no ticket has a tag" in told
    assert "jd-unclear.md:4: 'blocked_by' looks like dependencies" in told
    person = Person(rig)
    person.start()
    try:
        state = rig.wait_end(timeout=600)
    finally:
        person.over.set()
        person.join(60)
    assert person.failed is None, person.failed
    assert (state["status"], state["stopReason"]) == ("completed", "tickets-done"), (state["error"], rig.log())
    assert state["error"] == "all but what others work on: jd-review, jd-theirs"
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", "--branch", "main", str(rig.project), str(clone))
    for id in todo:
        assert "\nstatus: closed\n" in (clone / ".tickets" / f"{id}.md").read_text() or id.startswith("jd-old"), id
    worked = todo - {"jd-old1", "jd-old2", "jd-epic", "jd-inner"}
    modules = {f"m_{id.encode().hex()}.py" for id in worked}
    assert {path.name for path in (clone / "mods").glob("m_*.py")} == modules
    subprocess.run([sys.executable, "check.py"], cwd=clone, check=True)
    assert {id: rig.merges()[id] for id in worked} == dict.fromkeys(worked, 1)
    for id in THEIRS:
        assert rig.dispatch(id) == {} and "status: in" in rig.ticket(id)
    for name in person.did:
        assert (clone / name).read_text() == "mine\n"
    lost = [note for id, notes in person.notes.items() for note in notes if note not in rig.ticket(id)]
    assert lost == []
    rig.check_tidy()
    seen = rig.seen()
    assert seen.most > 1
    record_property(
        "figure",
        f"{len(worked)} tickets worked on, {len(todo)} closed, {len(person.did)} commits and "
        f"{sum(map(len, person.notes.values()))} notes by hand meanwhile, up to {seen.most} agents at once",
    )
