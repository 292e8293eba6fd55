"""Records the files of two real loops on the fake pi: `python -m tests.data.record_files` in the checkout's root.

Both runners are killed in the middle of their work, so that everything is there that a loop ever has. What they leave is
copied to `tests/data/files-<version>/`; only paths, the boot id and the pids are replaced. Tests read it with today's
readers and resume the task loop, so it is recorded anew only before a release, under the new version's name; what
earlier versions wrote stays as it is.
"""

import os
import re
import shutil
import signal
import tempfile
from pathlib import Path

from ralph_rpc.files import inbox
from ralph_rpc.files.paths import LoopPaths, registry_dir
from ralph_rpc.model.commands import VERBS, Body, Verb
from tests.conftest import GITCONFIG
from tests.rig import Rig, alive, fake_rig, git, wait_for
from tests.ticket_rig import MARKER, TicketRig, does, fake_tickets

HERE = Path(__file__).parent / "files-0.1"
ROOT = "/tmp/ralph-0.1"
"""Stands for the folder in which the loops ran."""
BOOT = "00000000-0000-0000-0000-000000000000"
NAMES = ("config.json", "state.json", "pid", "commands.jsonl", "task.md", "reflect.md", "progress.md", "lessons.md")
FOLDERS = ("iterations", "tickets", "inbox")

BODIES: dict[Verb, Body] = {
    "steer": {"message": "Use the other parser."},
    "followup": {"message": "And then the docs.", "when": "next"},
    "abort": {"then": "pause"},
    "stop": {"when": "now"},
    "pause": {},
    "resume": {},
}
WAIT = {"tool": "bash", "run": "while [ ! -e heard ]; do sleep 0.02; done"}
PROMPTS = [
    [{"raw": "this is no JSON"}, {"tool": "bash", "run": "echo a > a", "output": "written"}, "The first step is done."],
    f"All is done.\n{MARKER}",  # --verify does not agree
    [{"error": "529: Overloaded"}],
    [{"hang": True}],  # aborted
    [{"hang": True}],  # takes too long
    [{"exit": 3}],
    [WAIT, "I have read it."],
    [{"hang": True}],  # stopped
    ["On with it.", {"hang": True}],  # killed
]


def record_task(root: Path) -> Rig:
    """A task loop with an iteration of every outcome and a command in every state."""
    rig = fake_rig(root, PROMPTS)
    reflect = root / "reflect.md"
    reflect.write_text("Look back: what goes well, what does not?\n")
    limits = [
        "--max-cost",
        "5",
        "--max-time",
        "1h",
        "--iteration-timeout",
        "5s",
        "--log-size",
        "8k",
        "--log-keep",
        "20",
    ]
    rig.start(
        "--verify", "test -e done", "--reflect-every", "2", "--reflect", str(reflect), *limits, task="Do all steps."
    )
    rig.drop("stop-1.json", '{"when": "never"}')
    began(rig, 4)
    rig.run("abort", "x", "--wait")
    began(rig, 7)
    rig.wait_event("tool_execution_start", toolName="bash", args={"command": WAIT["run"]})
    rig.drop("steer.json", '{"id": "mine", "message": "Use the other parser."}')
    rig.run("followup", "x", "And then the docs.")
    wait_for("both to be with pi", lambda: rig.steps("mine") == ["accepted", "queued"])
    (rig.project / "heard").touch()
    rig.wait_step("mine", "delivered")
    began(rig, 8)
    rig.run("stop", "x", "--now")
    rig.wait_end()
    rig.run("resume", "x")
    began(rig, 9)
    rig.drop("followup-later.json", '{"message": "Last, the changelog.", "when": "next"}')
    wait_for("the message to be held", lambda: rig.state()["held"])
    kill(rig)
    return rig


def record_tickets(root: Path) -> TicketRig:
    """A ticket loop with a merge, a conflict, a failure, lessons, and a ticket under way."""
    mine = "echo $RALPH_TICKET > shared.txt"
    later = "while ! git cat-file -e main:shared.txt 2>/dev/null; do sleep 0.05; done"
    scripts = {
        "t-1": [[*does(mine)[:-1], f"Done.\n\n## Lessons\n\n- shared.txt has one line\n\n{MARKER}"]],
        "t-2": [does(mine, later), does("git merge -q --no-edit -X ours main")],
        "t-3": ["I cannot do this."],
        "t-4": [[{"hang": True}]],
    }
    rig = fake_tickets(root, scripts)
    for n in range(1, 5):
        rig.add(f"t-{n}", f"c{n}")
    rig.commit()
    rig.begin("--parallel", "4", "--attempts", "2", "--verify", "true")
    rig.wait_dispatch("t-2", "closed")
    rig.wait_dispatch("t-3", "failed")
    rig.wait_dispatch("t-4", "running")
    kill(rig)
    return rig


def began(rig: Rig, iteration: int) -> None:
    """Waits until pi is at work on it."""

    def at_work() -> bool:
        return any(e["ralph"]["iteration"] == iteration for e in rig.of("turn_start"))

    wait_for(f"iteration {iteration}\n{rig.log()}", at_work)


def kill(rig: Rig) -> None:
    """The runner dies as by a power loss, and its tree with it."""
    pids = rig.state()["pid"], *(pid for pid in (rig.state()["guardPid"], rig.state()["piPid"]) if pid)
    os.kill(pids[0], signal.SIGKILL)
    wait_for("the end of all processes", lambda: not any(map(alive, pids)) and not rig.of_mine())


def copy(rig: Rig, name: str, root: Path) -> None:
    """The files of one loop and its registry entry."""
    files = [rig.paths.dir / one for one in NAMES]
    files += [file for one in FOLDERS for file in (rig.paths.dir / one).rglob("*")]
    files += [*rig.paths.dir.glob("events.jsonl*"), *rig.paths.dir.glob("runner.log*")]
    pids = sorted(set(re.findall(rb'"(?:p|guardP|piP)id": ?(\d+)', b"".join(map(content, files)))))
    for file in files:
        if file.is_file():
            write(HERE / name / file.relative_to(rig.paths.dir), content(file), root, pids)
    (entry,) = registry_dir().glob(f"*--{rig.name}.json")
    write(HERE / "registry" / f"{name}.json", entry.read_bytes(), root, pids)
    entry.unlink()


def content(file: Path) -> bytes:
    return file.read_bytes() if file.is_file() else b""


def write(target: Path, text: bytes, root: Path, pids: list[bytes]) -> None:
    """The file without what says something of this machine."""
    text = text.replace(str(root).encode(), ROOT.encode()).replace(str(root.parent).encode(), ROOT.encode())
    boot = Path("/proc/sys/kernel/random/boot_id").read_bytes().strip()
    text = text.replace(boot, BOOT.encode())
    for n, pid in enumerate(pids):
        # Above any pid_max, so that no process ever has it.
        text = re.sub(rb"\b%b\b" % pid, b"%d" % (2**22 + 1 + n), text)
    found = [one for one in (str(Path.cwd()), str(root.parent)) if one.encode() in text]
    assert not found, f"{target} holds {found}"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(text)


def record_inbox() -> None:
    """A command file of every verb, as the program drops it."""
    paths = LoopPaths.of(HERE, "x")
    folder = HERE / "commands"
    folder.mkdir(parents=True)
    for verb in VERBS:
        inbox.drop(folder, verb, {**BODIES[verb]})
        (file,) = folder.glob(f"{verb}-*.json")
        file.rename(folder / f"{verb}.json")
    assert not paths.dir.exists()


def main() -> None:
    shutil.rmtree(HERE, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="record-") as temporary:
        home = Path(temporary) / "home"
        (home / "tmp").mkdir(parents=True)
        (home / ".gitconfig").write_text(GITCONFIG)
        os.environ |= {
            "HOME": str(home),
            "RALPH_HOME": str(home / ".ralph"),
            "TMPDIR": str(home / "tmp"),
            "LANG": "C.UTF-8",
        }
        for name in [name for name in os.environ if name.startswith("XDG_")]:
            del os.environ[name]
        task, tickets = Path(temporary) / "task", Path(temporary) / "tickets"
        task.mkdir()
        tickets.mkdir()
        copy(record_task(task), "task", task)
        copy(record_tickets(tickets), "tickets", tickets)
    record_inbox()
    print(f"{sum(file.is_file() for file in HERE.rglob('*'))} files, {git(Path.cwd(), 'status', '--short', str(HERE))}")


if __name__ == "__main__":
    main()
