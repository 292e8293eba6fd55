"""A project with a backlog as `tk` keeps it, and a ticket loop that works it off, on the fake pi or on a real one."""

import json
import os
import shlex
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from ralph_rpc.model.ticket import file_name
from tests.rig import FAKE, Rig, alive, git, new_project, wait_for

MARKER = "<promise>COMPLETE</promise>"
When = Literal["before", "after"]
Gate = tuple[When, str]
"""A git command, by some of its words."""
UNDER_WAY = ("claimed", "running", "verifying", "merging", "merged")
AT_WORK = ("claimed", "running", "verifying")


def hold(at: str = "agent", ticket: str = "$RALPH_TICKET") -> str:
    """A shell command that waits until the test lets its ticket go."""
    place = f"$RALPH_LOOP_DIR/%s-{at}-{ticket}"
    return f"touch {place % 'held'}; while [ ! -e {place % 'go'} ]; do sleep 0.02; done"


HOLD = hold()


def ticket_text(id: str, *components: str, deps: Iterable[str] = (), priority: int = 2, text: str = "Text.") -> str:
    """A ticket's file, byte for byte as `tk create` writes it."""
    tags = ", ".join(f"component:{name}" for name in components)
    return (
        f"---\nid: {id}\nstatus: open\ndeps: [{', '.join(deps)}]\nlinks: []\ncreated: 2026-01-01T00:00:00Z\n"
        f"type: task\npriority: {priority}\nassignee: Test Person\n{f'tags: [{tags}]{chr(10)}' if tags else ''}---\n"
        f"# Do {id}\n\n{text}\n\n"
    )


@dataclass
class Seen:
    """What the events say of how tickets ran side by side."""

    most: int = 0
    """Tickets at work at one time."""
    pis: int = 0
    """pis of tickets at work that lived at one time: that of a finished ticket ends while the next one starts."""
    together: set[frozenset[str]] = field(default_factory=set)
    """Pairs of tickets that were under way at one time."""


class TicketRig(Rig):
    """A rig whose loop works on tickets; main is checked out."""

    def add(self, id: str, *components: str, **more: Any) -> None:
        """A ticket into the user's folder; not committed."""
        folder = self.project / ".tickets"
        folder.mkdir(exist_ok=True)
        (folder / f"{id}.md").write_text(ticket_text(id, *components, **more))

    def commit(self) -> None:
        git(self.project, "add", "-A")
        git(self.project, "commit", "-qm", "backlog")

    def begin(self, *args: str, check: int | None = 0) -> Any:
        """Starts the loop on the project's tickets."""
        return self.run("start", self.name, "--pi", self.pi, "--tickets", *self.model_args, *args, check=check)

    def kill_runner(self) -> None:
        """SIGKILL; returns when it is dead."""
        pid = self.state()["pid"]
        os.kill(pid, signal.SIGKILL)
        wait_for("the runner's death", lambda: not alive(pid))

    def resume(self, *args: str) -> None:
        """As soon as no runner is left."""
        pid = int(self.paths.pid.read_text())
        wait_for("the runner's end", lambda: not alive(pid))
        self.run("resume", self.name, *args)

    def ticket(self, id: str) -> str:
        """The text of the user's copy."""
        return (self.project / ".tickets" / f"{id}.md").read_text()

    def status_of(self, id: str) -> str:
        """By the user's copy."""
        return _status(self.ticket(id))

    def notes(self, id: str) -> str:
        """The notes on a ticket that is not merged: with its work where git keeps the tickets, else in the user's copy."""
        with_work = self.paths.worktrees() / id / ".tickets" / f"{id}.md"
        text = with_work.read_text() if with_work.exists() else self.ticket(id)
        return text.partition("## Notes")[2]

    def dispatch(self, id: str) -> dict[str, Any]:
        """The ticket's dispatch record; empty if there is none."""
        try:
            found: dict[str, Any] = json.loads((self.paths.tickets / f"{file_name(id)}.json").read_bytes())
        except FileNotFoundError:
            return {}
        return found

    def wait_dispatch(self, id: str, *statuses: str) -> dict[str, Any]:
        def reached() -> dict[str, Any] | None:
            record = self.dispatch(id)
            return record if record.get("status") in statuses else None

        return wait_for(f"{id} {statuses}, now {self.dispatch(id).get('status')}\n{self.log()}", reached)

    def wait_queued(self, id: str) -> None:
        wait_for(f"{id} in the merge queue\n{self.log()}", lambda: self.dispatch(id).get("queuedAt"))

    def wait_held(self, *ids: str, at: str = "agent") -> None:
        """They have come to `hold(at)`."""
        for id in ids:
            wait_for(f"{id} held at {at}\n{self.log()}", (self.paths.dir / f"held-{at}-{id}").exists)

    def let_go(self, *ids: str, at: str = "agent") -> None:
        for id in ids:
            (self.paths.dir / f"go-{at}-{id}").touch()

    def attempts(self, id: str) -> list[dict[str, Any]]:
        """The records of the iterations at this ticket."""
        return [record for record in self.records() if record["ticket"] == id]

    def merges(self) -> Counter[str]:
        """How often each ticket was merged into main."""
        told = git(
            self.project, "log", "--first-parent", "--merges", "--format=%(trailers:key=Ticket,valueonly)", "main"
        )
        return Counter(filter(None, told.splitlines()))

    def on_main(self, path: str) -> str:
        return git(self.project, "show", f"main:{path}")

    def branches(self) -> list[str]:
        return git(self.project, "for-each-ref", "--format=%(refname:lstrip=2)", "refs/heads/ralph").split()

    def worktrees(self) -> list[str]:
        """All but the user's own checkout."""
        told = git(self.project, "worktree", "list", "--porcelain")
        return [line.split(maxsplit=1)[1] for line in told.splitlines() if line.startswith("worktree ")][1:]

    def users_own(self) -> dict[str, Any]:
        """What the user has in their checkout and in no commit, staged or not."""
        diff = {how: git(self.project, "diff", *how.split()) for how in ("HEAD -- mine", "--cached")}
        own = (self.project / "mine").iterdir() if (self.project / "mine").is_dir() else ()
        return {**diff, **{path.name: path.read_bytes() for path in own}}

    def seen(self, components: Mapping[str, Iterable[str]] | None = None) -> Seen:
        """Who ran beside whom, under the last runner; with `components` fails where two of one component did."""
        stands: dict[str, str] = {}
        pis: dict[int, str | None] = {}
        seen = Seen()
        for event in self.events():
            if event["type"] == "ralph_loop_start":
                stands, pis, seen = {}, {}, Seen()
            elif event["type"] == "ralph_ticket":
                stands[event["ticket"]] = event["to"]
            elif event["type"] == "ralph_pi_start":
                pis[event["pid"]] = event.get("ticket")
            elif event["type"] == "ralph_pi_exit":
                pis.pop(event["pid"], None)
            else:
                continue
            busy = sorted(id for id, status in stands.items() if status in UNDER_WAY)
            seen.most = max(seen.most, sum(stands[id] in AT_WORK for id in busy))
            seen.pis = max(seen.pis, sum(of is None or stands.get(of) in AT_WORK for of in pis.values()))
            seen.together |= {frozenset((one, two)) for one in busy for two in busy if one < two}
        for one, two in map(sorted, seen.together if components else ()):
            assert components and not set(components[one]) & set(components[two]), f"{one} and {two} ran at one time"
        return seen

    def check_tidy(self) -> None:
        """Nothing of the loop is left but its folder; the repository is whole."""
        assert self.worktrees() == []
        assert self.branches() == []
        assert not self.paths.worktrees().exists() or not any(self.paths.worktrees().iterdir())
        wait_for("the end of the loop's processes", lambda: not self.of_mine(), timeout=20)
        self.check_whole()

    def check_whole(self) -> None:
        """git finds nothing wrong, and no commit of main ever held a conflict marker."""
        git(self.project, "fsck", "--strict", "--no-dangling")
        marked = git(self.project, "log", "-m", "--format=%h %s", "-G^(<<<<<<<|>>>>>>>)", "main")
        assert not marked, f"conflict markers in {marked}"

    def check_closed(self, id: str) -> None:
        """In main where git keeps the tickets, and in every checkout of it."""
        path = f".tickets/{id}.md"
        tracked = git(self.project, "ls-files", path)
        if tracked:
            assert _status(self.on_main(path)) == "closed"
        if not tracked or git(self.project, "branch", "--show-current").strip() == "main":
            assert self.status_of(id) == "closed", self.ticket(id)

    def check_done(self, *ids: str, worktrees: bool = True) -> None:
        """Every ticket is worked on, merged once and closed, and that is all that there is."""
        state = self.wait_end()
        assert (state["status"], state["stopReason"]) == ("completed", "tickets-done"), (state["error"], self.log())
        if worktrees:
            assert self.merges() == Counter(ids), self.log()
        for id in ids:
            assert self.dispatch(id)["status"] == "closed", self.dispatch(id)
            self.check_closed(id)
            assert f"work of {id}" in self.on_main(f"{id}.txt")
        assert (state["tickets"]["closed"], state["tickets"]["running"]) == (len(ids), []), state["tickets"]
        self.check_tidy()


def _status(text: str) -> str:
    return next(line for line in text.splitlines() if line.startswith("status:")).split()[1]


def backlog_project(folder: Path, tracked: bool = True) -> Path:
    """A repository, whose git keeps the tickets or ignores them."""
    project = new_project(folder)
    if not tracked:
        (project / ".gitignore").write_text(".tickets/\n")
    return project


def fake_tickets(tmp_path: Path, scripts: Mapping[str, Any] | None = None, tracked: bool = True) -> TicketRig:
    """Its pi follows the script of its ticket (`prompts` of the fake one), or does the work and says so."""
    folder = tmp_path / "scripts"
    folder.mkdir()
    for id, prompts in {"usual": [does()], **(scripts or {})}.items():
        (folder / f"{id}.json").write_text(json.dumps({"prompts": prompts}))
    pi = tmp_path / "pi"
    pi.write_text(
        f"#!/bin/sh\nscript={shlex.quote(str(folder))}/$RALPH_TICKET.json\n"
        f"[ -e $script ] || script={shlex.quote(str(folder))}/usual.json\n"
        f'FAKE_PI_SCRIPT=$script exec {sys.executable} -S {FAKE} "$@"\n'
    )
    pi.chmod(0o755)
    return TicketRig(backlog_project(tmp_path / "project", tracked), str(pi), tmp_path / "agent", [])


def does(*before: str) -> list[Any]:
    """The steps of a fake agent that does its ticket, after these shell commands."""
    runs = [*before, "echo work of $RALPH_TICKET >> $RALPH_TICKET.txt"]
    return [*({"tool": "bash", "run": run} for run in runs), f"done\n{MARKER}"]


def with_own_edits(project: Path) -> None:
    """Commits all that is there, then leaves lying about what a person may have: an edit, a staged file, a new one."""
    folder = project / "mine"
    folder.mkdir()
    (folder / "edited.txt").write_text("one\ntwo\n")
    (folder / "staged.txt").write_text("one\n")
    git(project, "add", "-A")
    git(project, "commit", "-qm", "mine")
    (folder / "edited.txt").write_text("one\ntwo, but better\r\n")
    (folder / "staged.txt").write_text("two\n")
    git(project, "add", "mine/staged.txt")
    (folder / "new.txt").write_bytes(b"\x00not even text")


class GitGate:
    """A `git` first on the PATH of a rig that holds one command, before it begins or when it has ended."""

    def __init__(self, folder: Path, rig: TicketRig) -> None:
        self._folder, self._rig, self._count = folder, rig, 0
        real = shutil.which("git")
        assert real
        wrapper = folder / "bin" / "git"
        wrapper.parent.mkdir(parents=True)
        wrapper.write_text(
            f"""#!/bin/sh
gate={shlex.quote(str(folder))}
if [ -e $gate/armed ] && read -r n when words < $gate/armed 2>/dev/null; then
    case " $* " in
    *" $words "*)
        # Of several at once only one is held.
        if mv $gate/armed $gate/taken-$n 2>/dev/null; then
            if [ $when = after ]; then {real} "$@"; code=$?; fi
            echo $$ > $gate/held.new
            mv $gate/held.new $gate/held-$n
            while [ ! -e $gate/open-$n ]; do sleep 0.02; done
            [ $when = before ] || exit $code
        fi ;;
    esac
fi
exec {real} "$@"
"""
        )
        wrapper.chmod(0o755)
        rig.env["PATH"] = f"{wrapper.parent}:{os.environ['PATH']}"

    def arm(self, when: When, words: str) -> None:
        """The next git command with these words in a row will be held; it may be armed while another is held."""
        self._count += 1
        new = self._folder / "new"
        new.write_text(f"{self._count} {when} {words}\n")
        new.rename(self._folder / "armed")

    def wait_held(self) -> None:
        wait_for(f"git at the gate\n{self._rig.log()}", (self._folder / f"held-{self._count}").exists)

    def kill(self) -> None:
        """SIGKILL to the git that is held."""
        os.kill(int((self._folder / f"held-{self._count}").read_text()), signal.SIGKILL)

    def open(self, but_last: bool = False) -> None:
        """Lets go what is held, and holds nothing more."""
        if not but_last:
            (self._folder / "armed").unlink(missing_ok=True)
        for n in range(1, self._count + (not but_last)):
            (self._folder / f"open-{n}").touch()


@dataclass(frozen=True)
class Step:
    """Where a loop is held: at a `hold`, or where git does what `gates` say, one after the other."""

    gates: Sequence[Gate] = ()
    agent: bool = False
    setup: bool = False
    verify: str = ""
    """A shell condition: which of t-2's verifications."""
    committed: bool = False
    """No agent may be asked for t-2's work again."""
    elsewhere: bool = False
    """The user has another branch checked out than the one that is merged into."""


_LOOK: Gate = ("before", "merge-tree --write-tree")
STEPS = {
    "before its worktree": Step([("before", "worktree add")]),
    "after its worktree": Step([("after", "worktree add")]),
    "setting up": Step(setup=True),
    "running": Step(agent=True),
    "before its files are added": Step([("before", "update-index --add")]),
    "before its commit": Step([("before", "commit --quiet")]),
    "after its commit": Step([("after", "commit --quiet")]),
    "verifying": Step(verify="true"),
    "before the commit that closes it": Step(
        [("after", "commit --quiet"), ("before", "commit --quiet")], committed=True
    ),
    "after the commit that closes it": Step(
        [("before", "commit --quiet"), ("after", "commit --quiet")], committed=True
    ),
    "looking": Step([_LOOK], committed=True),
    "before it is checked out to be verified": Step([_LOOK, ("before", "reset --quiet --hard")], committed=True),
    "after it was checked out to be verified": Step([_LOOK, ("after", "clean --quiet")], committed=True),
    "verifying the merge": Step(verify="grep -q '\"merging\"' $RALPH_LOOP_DIR/tickets/t-2.json", committed=True),
    "before its merge commit": Step([("before", "commit-tree")], committed=True),
    "after its merge commit": Step([("after", "commit-tree")], committed=True),
    "before the checkout moves": Step([("before", "read-tree -m -u")], committed=True),
    "after the checkout moved": Step([("after", "read-tree -m -u")], committed=True),
    "before it lands": Step([("before", "update-ref -m")], committed=True),
    "after it landed": Step([("after", "update-ref -m")], committed=True),
    "before it lands elsewhere": Step([("before", "update-ref -m")], committed=True, elsewhere=True),
    "after it landed elsewhere": Step([("after", "update-ref -m")], committed=True, elsewhere=True),
    "merged, not closed": Step(
        [("after", "update-ref -m"), ("before", "ls-tree -z --full-tree refs/heads/main")], committed=True
    ),
    "before its worktree goes": Step([("before", "worktree remove")], committed=True),
    "after its worktree went": Step([("after", "worktree remove")], committed=True),
    "before its branch goes": Step([("before", "update-ref -d")], committed=True),
    "after its branch went": Step([("after", "update-ref -d")], committed=True),
}


class Held:
    """A loop of three tickets that is brought to a step, and has the end that it would have had without a fault.

    It is t-2's step. t-1 is merged by then, so that t-2 is behind; t-3, which depends on t-1, is at HOLD. The steps
    that make a worktree are t-3's, while t-1's is about to be removed. Its agents are those of AGENTS.
    """

    AGENTS: ClassVar[dict[str, tuple[str, ...]]] = dict.fromkeys(("t-1", "t-2", "t-3"), (HOLD,))
    """What each of them runs before its work."""

    def __init__(self, folder: Path, rig: TicketRig, step: Step) -> None:
        self.rig, self.step, self.gate = rig, step, GitGate(folder, rig)
        rig.add("t-1", "one")
        rig.add("t-2", "two")
        rig.add("t-3", "one", deps=("t-1",))
        with_own_edits(rig.project)
        if step.elsewhere:
            git(rig.project, "checkout", "-q", "-b", "mine")
        self._own = rig.users_own()

    def reach(self) -> None:
        step, rig = self.step, self.rig
        verify = "test -e $RALPH_TICKET.txt"
        if step.verify:
            verify = f"if [ $RALPH_TICKET = t-2 ] && {step.verify}; then {hold('verify')}; fi; {verify}"
        setup = f"if [ $RALPH_TICKET = t-2 ]; then {hold('setup')}; fi; touch $RALPH_LOOP_DIR/prepared-$RALPH_TICKET"
        options = ["--parallel", "2", "--into", "main", "--verify", verify]
        if step.setup:
            rig.begin(*options, "--worktree-setup", setup)
            rig.wait_held("t-2", at="setup")
            return
        rig.begin(*options)
        rig.wait_held("t-1", "t-2")
        if step.gates and step.gates[0][1] == "worktree add":
            self._pass_gates("t-1")
            return
        rig.let_go("t-1")
        rig.wait_held("t-3")
        wait_for("t-1's removal", lambda: "ralph/x/t-1" not in rig.branches())
        self._pass_gates("t-2")
        if step.verify:
            rig.let_go("t-2")
            rig.wait_held("t-2", at="verify")

    def _pass_gates(self, ticket: str) -> None:
        """With what comes when this ticket's agent goes on."""
        for one in self.step.gates:
            self.gate.arm(*one)
            self.rig.let_go(ticket)
            self.gate.open(but_last=True)
            self.gate.wait_held()

    def open(self) -> None:
        """Nobody is held any more, now or later."""
        self.gate.open()
        for at in ("agent", "setup", "verify"):
            self.rig.let_go("t-1", "t-2", "t-3", at=at)

    def check(self) -> None:
        """All is as if nothing had happened."""
        rig = self.rig
        rig.check_done("t-1", "t-2", "t-3")
        assert rig.users_own() == self._own
        rig.seen({"t-1": ("one",), "t-2": ("two",), "t-3": ("one",)})
        if self.step.committed:
            assert [record["outcome"] for record in rig.attempts("t-2")] == ["ok"]
            assert rig.on_main("t-2.txt") == "work of t-2\n"
        if self.step.setup:
            assert (rig.paths.dir / "prepared-t-2").exists(), "what was not set up is worked in"


_OTHER: Gate = ("before", "update-ref -m")
"""The batch before lands."""
BATCH_STEPS = {
    "before a batch is looked at": Step([_OTHER, ("before", "rev-list --parents --stdin")]),
    "before its second merge": Step([_OTHER, _LOOK, _LOOK]),
    "after its last merge commit": Step(
        [_OTHER, ("after", "commit-tree"), ("after", "commit-tree"), ("after", "commit-tree")]
    ),
    "before it is checked out": Step([_OTHER, ("before", "reset --quiet --hard")]),
    "after it was checked out": Step([_OTHER, ("after", "clean --quiet")]),
    "verifying all of it": Step(verify='[ "$RALPH_TICKETS" = "t-3 t-4" ]'),
    "verifying its first half": Step(verify='[ "$RALPH_TICKETS" = t-3 ]'),
    "before the checkout moves to its first half": Step([_OTHER, ("before", "read-tree -m -u")]),
    "after the checkout moved to its first half": Step([_OTHER, ("after", "read-tree -m -u")]),
    "before its first half lands": Step([_OTHER, ("before", "update-ref -m")]),
    "after its first half landed": Step([_OTHER, ("after", "update-ref -m")]),
    "before the one at fault is brought up to the target": Step(
        [_OTHER, ("before", "update-ref -m"), ("before", "reset --quiet --hard")]
    ),
}
"""Where a batch of two is held, of which the second breaks with the first."""


GROWTH_STEPS = {
    "ending the verify that is started over": Step(),
    "before the batch that has grown is built": Step([("before", "rev-list --parents --stdin")]),
    "after the batch that has grown was checked out": Step([("after", "clean --quiet")]),
    "verifying the batch that has grown": Step(verify='[ "$RALPH_TICKETS" = "t-2 t-3" ]'),
}
"""Where a batch of one is held that grows by another, while its verify runs."""


class HeldBatch:
    """A loop of four tickets that is brought to a step of a batch: t-3 and t-4, which are red together.

    t-1 has landed, and t-2 is held in the queue's verification until the other two are queued. In the end t-4's agent has
    repaired it, unless the instant lets one of the two begin with the other.
    """

    IDS = ("t-1", "t-2", "t-3", "t-4")

    def __init__(self, tmp_path: Path, step: Step) -> None:
        repairs = [does(HOLD), does("touch repaired")]
        self.rig = fake_tickets(tmp_path, {id: repairs for id in self.IDS})
        self.step, self.gate = step, GitGate(tmp_path / "gate", self.rig)
        for id in self.IDS:
            self.rig.add(id, id)
        with_own_edits(self.rig.project)
        self._own = self.rig.users_own()

    def reach(self) -> None:
        rig = self.rig
        parts = (
            ['[ "$RALPH_TICKETS" != t-2 ]', hold("queue", "first")],
            [f"! {self.step.verify or 'false'}", hold("step", "x")],
        )
        held = "; ".join(f"{condition} || {{ {wait}; }}" for condition, wait in parts)
        apart = "test -e repaired || ! { test -e t-3.txt && test -e t-4.txt; }"
        rig.begin("--parallel", "4", "--verify", f"{held}; {apart}")
        rig.wait_held(*self.IDS)
        rig.let_go("t-1")
        rig.wait_dispatch("t-1", "closed")
        rig.let_go("t-2")
        rig.wait_held("first", at="queue")
        for id in ("t-3", "t-4"):
            rig.let_go(id)
            rig.wait_dispatch(id, "merging")
            rig.wait_queued(id)
        for one in self.step.gates:
            self.gate.arm(*one)
            rig.let_go("first", at="queue")
            self.gate.open(but_last=True)
            self.gate.wait_held()
        if self.step.verify:
            rig.let_go("first", at="queue")
            rig.wait_held("x", at="step")

    def open(self) -> None:
        """Nobody is held any more, now or later."""
        self.gate.open()
        self.rig.let_go("first", at="queue")
        self.rig.let_go("x", at="step")

    def check(self) -> None:
        """All is as if nothing had happened."""
        self.rig.check_done(*self.IDS)
        assert self.rig.users_own() == self._own
        for commit in git(self.rig.project, "rev-list", "--first-parent", "main").split():
            files = git(self.rig.project, "ls-tree", "--name-only", commit).split()
            assert "repaired" in files or not {"t-3.txt", "t-4.txt"} <= set(files), "main was red"


class GrowingBatch:
    """A loop of three tickets, of which t-3 is verified for so long, and comes so soon after t-2, that the queue starts over.

    t-1 has landed. The queue's verify of t-2 alone takes no notice of SIGTERM, so that it takes a while to end it.
    """

    IDS = ("t-1", "t-2", "t-3")

    def __init__(self, tmp_path: Path, step: Step) -> None:
        self.rig = fake_tickets(tmp_path, {id: [does(HOLD)] for id in self.IDS})
        self.step, self.gate = step, GitGate(tmp_path / "gate", self.rig)
        for id in self.IDS:
            self.rig.add(id, id)
        with_own_edits(self.rig.project)
        self._own = self.rig.users_own()

    def reach(self) -> None:
        rig = self.rig
        parts = (
            ['[ "$RALPH_TICKETS" != t-2 ]', f"trap '' TERM; {hold('queue', 'first')}"],
            ['[ "$RALPH_TICKETS$RALPH_TICKET" != t-3 ]', hold("own", "x")],
            [f"! {self.step.verify or 'false'}", hold("step", "x")],
        )
        held = "; ".join(f"{condition} || {{ {wait}; }}" for condition, wait in parts)
        rig.begin("--parallel", "3", "--verify", f"{held}; test -e $RALPH_TICKET.txt")
        rig.wait_held(*self.IDS)
        began = time.monotonic()
        rig.let_go("t-1")
        rig.wait_dispatch("t-1", "closed")
        usual = time.monotonic() - began
        rig.let_go("t-3")
        rig.wait_held("x", at="own")
        time.sleep(2 + 4 * usual)  # so long that t-2 takes far less: what is left of a verify has to be worth it
        rig.let_go("t-2")
        rig.wait_held("first", at="queue")
        for one in self.step.gates:
            self.gate.arm(*one)
        rig.let_go("x", at="own")
        rig.wait_event("ralph_batch", state="restarted")
        if self.step.gates:
            self.gate.wait_held()
        if self.step.verify:
            rig.wait_held("x", at="step")

    def open(self) -> None:
        """Nobody is held any more, now or later."""
        self.gate.open()
        self.rig.let_go("first", at="queue")
        self.rig.let_go("x", at="own")
        self.rig.let_go("x", at="step")

    def check(self) -> None:
        """All is as if nothing had happened."""
        self.rig.check_done(*self.IDS)
        assert self.rig.users_own() == self._own
        assert [len(self.rig.attempts(id)) for id in self.IDS] == [1, 1, 1]
        assert all(event["exitCode"] == 0 for event in self.rig.of("ralph_verify"))
