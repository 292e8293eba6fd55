"""Files of ours with anything in them, names that lead elsewhere, entries that name the wrong process, folders that
are somebody else's, and an agent whose shell spoils what its own loop lives by. Nothing crashes, nobody else is
harmed, and every refusal is one line that says why."""

import json
import os
import random
import re
import resource
import shutil
import signal
import string
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ralph_rpc.cli.main import run
from ralph_rpc.errors import RalphError, UsageError
from ralph_rpc.files import atomic, records, registry
from ralph_rpc.files.atomic import Unreadable, read_json_object
from ralph_rpc.files.inbox import Inbox
from ralph_rpc.files.paths import LoopPaths, registry_dir
from ralph_rpc.loops import create, find, kill, status
from ralph_rpc.loops.remains.entries import dead_entries
from ralph_rpc.machine import identity, locks
from ralph_rpc.pi.argv import pi_argv
from ralph_runner.core.results import Now
from ralph_runner.core.snapshot import Facts
from ralph_runner.shell.orphans import sweep_orphans
from ralph_runner.shell.recover import recover
from tests.cli import forged
from tests.effort import examples
from tests.faults import hostile
from tests.faults.conftest import Note
from tests.faults.snapshot import snapshot as content_of
from tests.faults.test_identity import signals
from tests.faults.tiers import times
from tests.files.boxes import left, settle
from tests.process.trees import until
from tests.rig import Rig, fake_rig, wait_for

pytestmark = pytest.mark.usefixtures("no_leftovers")
MARKER = "<promise>COMPLETE</promise>"
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "web"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def memory_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / (1 << 20)


def one_line(reason: str) -> None:
    assert reason.strip() and "\n" not in reason and len(reason) < 1000, reason


# -- row 25: anything in the inbox, and in every other file that is read

COMMAND = {"type": "steer", "id": "mine", "message": "do this", "when": "now", "then": "stop", "more": [1, {"a": None}]}
TWICE = (
    b'{"message": "a", "message": "b"}',
    b'{"message": "a", "m\\u0065ssage": "b"}',
    b'{"id": "a", "id": "b", "message": "m"}',
)


@times(quick=400, full=20_000)
def test_row_25_no_content_of_a_command_is_lost_or_fatal(tmp_path: Path, count: int, figure: Note) -> None:
    (box := tmp_path / "inbox").mkdir()
    rng = random.Random(25)
    contents = [*TWICE, *hostile.mutants(25, count, COMMAND)]
    began, before, taken = time.process_time(), memory_mib(), 0
    for start in range(0, len(contents), 200):
        batch = contents[start : start + 200]
        for n, content in enumerate(batch):
            verb = rng.choice(["steer", "followup", "stop", "abort", "pause", "resume"])
            (box / f"{verb}-{start + n}.json").write_bytes(content)
        commands, rejected = settle(Inbox(box))
        assert len(commands) + len(rejected) == len(batch)
        assert left(box) == []
        for one in rejected:
            one_line(one.reason)
            assert (box / "rejected" / one.name).exists()
        for command in commands:
            orjson.dumps(command.body)
        taken += len(commands)
    each = (time.process_time() - began) / len(contents) * 1000
    grown = memory_mib() - before
    figure(
        f"{len(contents)} files: 0 crashes, {taken} taken, the rest rejected with a reason, {each:.1f} ms each, +{grown:.0f} MiB"
    )
    assert grown < 10 + len(contents) / 1000
    assert each < 50


@pytest.mark.parametrize("content", TWICE)
def test_row_25_of_two_members_of_one_name_none_is_dropped_silently(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "steer.json").write_bytes(content)
    commands, (rejected,) = settle(Inbox(tmp_path))
    assert commands == [] and "more than once" in rejected.reason


@settings(max_examples=examples(100))
@given(
    files=st.lists(st.tuples(st.sampled_from(["steer.json", "stop-1.json", "followup-x.json", "what"]), st.binary()))
)
def test_row_25_no_bytes_are_lost_or_fatal(
    tmp_path_factory: pytest.TempPathFactory, files: list[tuple[str, bytes]]
) -> None:
    box = tmp_path_factory.mktemp("inbox")
    for name, content in files:
        (box / name).write_bytes(content)
    commands, rejected = settle(Inbox(box))
    assert len(commands) + len(rejected) == len(dict(files))
    assert left(box) == []


def readable_or_said_why(read: Callable[[], object]) -> bool:
    try:
        read()
    except Unreadable as problem:
        one_line(problem.reason)
        return False
    return True


NOW = Now(5_000, 1_795_248_532_885, 0.5)


def taken_up(paths: LoopPaths) -> None:
    """What a next runner makes of the state; one of a newer version is refused."""
    try:
        found = recover(paths, forged.CONFIG, "task.md", True, NOW.wall)  # type: ignore[arg-type]
    except atomic.Newer:
        return
    facts = Facts(paths.name, str(paths.project), str(paths.dir), 1, 1.0, "", found.started_at, None, None)
    orjson.dumps(found.core.state(facts, NOW, waits_for_room=False))
    for path in paths.dir.glob("state.json.broken-*"):
        path.unlink()


def calm(*args: str) -> None:
    """The command ends with an exit code, and not by a bug."""
    code = run(list(args))
    assert code in (0, 1, 2, 3, 4, 6, 10, 11), args


@times(quick=250, full=40_000)
def test_row_25_anything_in_state_json_is_read_or_refused_with_a_reason(
    project: Path, tmp_path: Path, count: int, capsys: Capture, figure: Note
) -> None:
    paths = forged.loop(project, "x")
    readable, rng = 0, random.Random(26)
    whole = forged.state(paths) | {
        "tmpDir": str(tmp_path / "tmp"),
        "error": "e",
        "refusal": "r",
        "held": [{"id": "1", "command": "steer", "message": "m"}],
        "worktree": {"branch": "b", "path": "p"},
        "nextWakeAt": forged.ago(-5),
        "monotonicMs": 3,
    }
    for n, content in enumerate(hostile.mutants(26, count, whole)):
        paths.state.write_bytes(content if n % 2 else hostile.mutant(rng, whole, right_types=True))
        readable += readable_or_said_why(lambda: records.read_state(paths))
        status.loop_status(paths)
        if n % 10 == 0:
            for args in (
                ["list"],
                ["status"],
                ["status", "x"],
                ["status", "x", "--json"],
                ["wait", "x"],
                ["kill", "x"],
            ):
                calm(*args)
            with forged.runner_of(paths):
                calm("status", "x")
                calm("list")
        if n % 5 == 0:
            taken_up(paths)
        assert "internal error" not in "".join(capsys.readouterr())
    figure(f"{count} contents: 0 crashes, {readable} read, the rest refused with a reason")
    assert 0 < readable < count


@times(quick=300, full=20_000)
def test_row_25_anything_in_config_json_is_read_or_refused_with_a_reason(
    project: Path, count: int, capsys: Capture, figure: Note
) -> None:
    paths = forged.loop(project, "x", status="stopped", stopReason="stop")
    paths.task.write_text("t")
    readable = 0
    for n, content in enumerate(
        hostile.mutants(27, count, forged.CONFIG | {"model": "m", "maxCost": 1.0, "uiAnswers": {"a": "b"}})
    ):
        paths.config.write_bytes(content)
        if readable_or_said_why(lambda: records.read_config(paths)):
            readable += 1
            config = records.read_config(paths)
            assert config is not None and all(isinstance(one, str) for one in pi_argv(config, paths.sessions))
        if n % 10 == 0:
            calm("list")
            calm("status", "x")
        assert "internal error" not in "".join(capsys.readouterr())
    figure(f"{count} contents: 0 crashes, {readable} read, the rest refused with a reason")
    assert 0 < readable < count


def test_row_25_a_file_too_large_to_be_read_is_refused_unread(project: Path, capsys: Capture) -> None:
    paths = forged.loop(project, "x")
    entry = forged.register("a", b"")
    for file in (paths.state, paths.config, entry):
        with file.open("wb") as out:
            out.truncate(10 << 30)
        with pytest.raises(Unreadable, match="larger than"):
            read_json_object(file)
    before = memory_mib()
    calm("list", "--all")
    calm("status", "x")
    assert "larger than" in "".join(capsys.readouterr())
    assert memory_mib() - before < 5


def test_row_25_a_runner_lives_through_a_hostile_inbox(tmp_path: Path, figure: Note) -> None:
    gate = {"tool": "bash", "run": "while [ ! -e go ]; do sleep 0.05; done"}
    rig = fake_rig(tmp_path, [["hello", gate, "on"], f"done\n{MARKER}"])
    rig.start()
    box = rig.paths.inbox
    # A blank file is enough for a pause, but no message.
    nothing = {f"steer-{n}.json": text for n, text in enumerate(hostile.NOTHING) if text.strip() or n == 0}
    for name, content in nothing.items():
        (box / name).write_bytes(content)
    bad = {
        "steer.json": "{not json",
        "steer-a.json": '{"message": ""}',
        "fly.json": "{}",
        "stop-a.json": '{"when": "later"}',
        "followup.json": '{"type": "steer", "message": "x"}',
        "stop-b.json": "[]",
    }
    for name, words in bad.items():
        rig.drop(name, words)
    (box / "steer-link.json").symlink_to("/etc/passwd")
    (box / "steer-folder.json").mkdir()
    os.mkfifo(box / "steer-fifo.json")
    (box / "steer-huge.json").write_bytes(b"{" + b" " * (2 << 20) + b"}")
    count = len(nothing) + len(bad) + 4
    wait_for(f"{count} rejected", lambda: len(list(rig.paths.rejected.glob("*.reason"))) == count)
    (rig.project / "go").touch()
    assert rig.wait_end()["status"] == "completed"
    for reason in rig.paths.rejected.glob("*.reason"):
        one_line(reason.read_text().strip())
    assert left(box) == []
    told = [e["message"] for e in rig.of("ralph_notice") if e["message"].startswith("inbox: ")]
    assert len(told) == count
    figure(f"{count} hostile files: each set aside with one line of reason and an event, the loop completed")


# -- row 29: names

NO_NAMES = [
    "",
    ".",
    "..",
    "../x",
    "../../etc/passwd",
    "/etc",
    "/x",
    "a/b",
    "a/../b",
    "a\\b",
    "~",
    "~root",
    ".hidden",
    "-",
    "--",
    "_x",
    "x y",
    " x",
    "x ",
    "x\n",
    "x\0",
    "x\x1b[2J",
    "x\u202e",
    "\ufeffx",
    "x\u200d",
    "\u0430pi",
    "\uff41pi",
    "cafe\u0301",
    "caf\u00e9",
    "x" * 65,
    "x" * 300,
    "é" * 150,
    "x:y",
    "x*",
    "x?",
    "$HOME",
    "$(id)",
    "`id`",
    "x;y",
    "x&y",
    "x|y",
    "x'y",
    'x"y',
    "config.toml",
    "registry",
    "Registry",
    "CONFIG.TOML",
    "%2e%2e",
    "x/.",
    "./x",
    "con\u0131",
]
WITH_NAME: list[list[str]] = [
    ["start", "NAME", "-m", "t"],
    ["resume", "NAME"],
    ["stop", "NAME"],
    ["abort", "NAME"],
    ["pause", "NAME"],
    ["steer", "NAME", "m"],
    ["followup", "NAME", "m"],
    ["kill", "NAME"],
    ["status", "NAME"],
    ["logs", "NAME"],
    ["wait", "NAME"],
    ["clean", "NAME", "--yes"],
]


def refused_everywhere(name: str, outside: Path, capsys: Capture) -> None:
    assert not find.valid_name(name), name
    before = content_of(outside)
    for command in WITH_NAME:
        if (len(name.split()) > 1 and command[0] in ("steer", "followup")) or (
            name[:1] == "-" and command[0] == "resume"
        ):
            continue  # the NAME can be left out: these are a message, and arguments for pi
        args = [name if part == "NAME" else part for part in command]
        if name.startswith("-"):
            args = [args[0], "--", *args[1:]]
        assert run(args) == 2, args
        said = capsys.readouterr()
        assert said.err.startswith("ralph-rpc: ") and said.err.count("\n") == 1, args
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", said.err), args
    assert content_of(outside) == before, f"{name!r} left something"


@pytest.mark.parametrize("name", NO_NAMES)
def test_row_29_what_is_no_name_is_refused_by_every_command(
    project: Path, tmp_path: Path, name: str, capsys: Capture
) -> None:
    forged.loop(project, "x", status="stopped", stopReason="stop")
    refused_everywhere(name, tmp_path, capsys)


@times(quick=3_000, full=100_000)
def test_row_29_no_name_leads_out_of_its_folder(
    project: Path, tmp_path: Path, count: int, capsys: Capture, figure: Note
) -> None:
    rng = random.Random(29)
    alphabet = [*string.printable, "..", "../", "/", ".ralph", *hostile.ACTIVE, *hostile.PLAIN]
    valid = 0
    for n in range(count):
        name = "".join(rng.choice(alphabet) for _ in range(rng.randint(1, 8)))
        if find.valid_name(name):
            valid += 1
            folder = LoopPaths.of(project, name).dir
            assert os.path.normpath(folder) == str(folder) and folder.parent == project / ".ralph"
            assert len(os.fsencode(name)) <= 64 and name.isascii() and name.isprintable()
        elif n % (count // 10) == 0:
            refused_everywhere(name, tmp_path, capsys)
    figure(
        f"{len(NO_NAMES)} hostile names with {len(WITH_NAME)} commands, {count} random ones ({valid} of them names): 0 escapes"
    )


def test_row_29_a_name_that_differs_in_case_only_is_refused(project: Path) -> None:
    paths = forged.loop(project, "api", status="stopped", stopReason="stop")
    before = content_of(project)
    with pytest.raises(UsageError, match="'api'.*'API'"):
        create.check_startable(LoopPaths.of(project, "API"))
    create.check_startable(paths)
    assert content_of(project) == before


# -- row 30: projects whose paths look alike


def likenesses(rng: random.Random) -> list[Path]:
    """Different paths of the same slug."""
    words = ["".join(rng.choices("ab", k=rng.randint(1, 2))) for _ in range(rng.randint(3, 5))]
    paths = {"/" + "".join(word + rng.choice("-/") for word in words[:-1]) + words[-1] for _ in range(4)}
    return [Path(path) for path in sorted(paths)]


@times(quick=100, full=3_000)
def test_row_30_loops_of_alike_projects_have_files_of_their_own(count: int, figure: Note) -> None:
    rng, published = random.Random(30), 0
    for _ in range(count):
        projects = likenesses(rng)
        paths = {project: registry.publish(None, forged.entry(project, "x", alive=True)) for project in projects}  # type: ignore[arg-type]
        assert len(set(paths.values())) == len(projects)
        rng.shuffle(projects)
        for project in projects:  # and each finds its own again, whatever came since
            assert registry.publish(paths[project], forged.entry(project, "x", alive=True)) == paths[project]  # type: ignore[arg-type]
            assert registry.entry_path(project, "x") == paths[project]
        found, broken = registry.entries()
        assert {one.entry["cwd"] for one in found} == set(map(str, projects)) and not broken
        for path in paths.values():
            registry.remove(path)
        published += len(projects)
    figure(f"{count} families of alike paths, {published} entries: 0 collisions")


# -- row 31: entries that name somebody else's process


class Signalled(list[tuple[Any, ...]]):
    """What would have been signalled."""


@contextmanager
def only_noted() -> Iterator[Signalled]:
    """Signals are noted instead of sent: to pid -1 they would go to everyone."""
    sent = Signalled()

    def note(*what: Any) -> None:
        if what[-1] != 0:
            sent.append(what)

    with pytest.MonkeyPatch.context() as patch:
        for module, name in (
            (os, "kill"),
            (os, "killpg"),
            (signal, "pidfd_send_signal"),
            (psutil.Process, "send_signal"),
        ):
            patch.setattr(module, name, note)
        for patience in ("LEAVE_S", "TERM_PATIENCE_S", "KILL_PATIENCE_S"):
            patch.setattr(kill, patience, 0.1)
        yield sent


MAY_SIGNAL = [
    ["kill", "x"],
    ["stop", "x", "--now"],
    ["stop", "x"],
    ["abort", "x"],
    ["clean", "--yes"],
    ["clean", "x", "--yes"],
    ["doctor", "--fix"],
    ["list", "--all"],
    ["status", "x"],
]


@contextmanager
def shell_of_a_person() -> Iterator[int]:
    """An innocent process that has a terminal."""
    master, terminal = os.openpty()
    command = ["setsid", "--ctty", sys.executable, "-c", "import time; print(1, flush=True); time.sleep(600)"]
    with subprocess.Popen(command, stdin=terminal, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == b"1\n"
            yield process.pid
        finally:
            process.kill()
            os.close(terminal)
            os.close(master)


@contextmanager
def process_of_another_user() -> Iterator[int]:
    if os.geteuid() != 0:
        pytest.skip("only root could signal another user's process")
    with subprocess.Popen(["sleep", "600"], user=65534, start_new_session=True) as process:
        try:
            yield process.pid
        finally:
            process.kill()


@contextmanager
def pid_of(number: int) -> Iterator[int]:
    yield number


@contextmanager
def our_own() -> Iterator[int]:
    """The process that runs the command, and so an ancestor of whatever it starts."""
    yield os.getpid()


WRONG: dict[str, Callable[[], Any]] = {
    "pid 1": lambda: pid_of(1),
    "pid 0": lambda: pid_of(0),
    "pid -1": lambda: pid_of(-1),
    "pid 2^31": lambda: pid_of(2**31),
    "pid 2^63": lambda: pid_of(2**63),
    "a person's shell": shell_of_a_person,
    "another user's": process_of_another_user,
    "ourselves": our_own,
}


@pytest.mark.parametrize("held", [False, True], ids=["lock free", "lock held"])
@pytest.mark.parametrize("whose", WRONG)
def test_row_31_a_pid_that_is_no_runner_gets_no_signal(project: Path, whose: str, held: bool, capsys: Capture) -> None:
    """Even with the right start time and boot id, in state.json and in the registry."""
    with WRONG[whose]() as pid, only_noted() as sent:
        start = identity.start_time(pid) if 0 < pid < 2**31 else 5.0
        lies: dict[str, Any] = {"pid": pid, "pidStartTime": start, "bootId": identity.boot_id()}
        paths = forged.loop(project, "x", **lies, guardPid=pid, guardStartTime=start, piPid=pid, piStartTime=start)
        forged.register("e", forged.entry(project, "x", **lies))
        for args in MAY_SIGNAL:
            if held:
                with forged.runner_of(paths):
                    calm(*args)
                assert (registry_dir() / "e.json").exists(), f"{args} deleted the entry of a loop that is running"
            elif paths.dir.exists():
                calm(*args)
            assert sent == [], args
        assert sweep_orphans(project / "nowhere", [(pid, start)], identity.boot_id(), 0.1) == []
        assert sent == []
    assert "internal error" not in "".join(capsys.readouterr())


def test_row_31_a_bystander_that_is_named_where_only_one_of_ours_can_be_is_spared(project: Path, figure: Note) -> None:
    """Real signals, real processes: those that a person works in."""
    with shell_of_a_person() as pid:
        start = identity.start_time(pid)
        lies: dict[str, Any] = {"pid": pid, "pidStartTime": start, "bootId": identity.boot_id()}
        paths = forged.loop(project, "x", **lies)
        assert signals(pid) == "unharmed"
        with pytest.raises(RalphError, match="no runner"):
            kill.kill(paths)
        assert sweep_orphans(project / "nowhere", [(pid, start)], identity.boot_id(), 0.1) == []
        assert signals(pid) == "unharmed"
    figure(f"{len(WRONG)} wrong pids, {len(MAY_SIGNAL)} commands and the sweep of a next runner: 0 signals")


# -- row 32: a registry that is full of anything


@times(quick=250, full=20_000)
def test_row_32_anything_in_an_entry_is_listed_or_told_of(
    project: Path, tmp_path: Path, count: int, capsys: Capture, figure: Note
) -> None:
    entry = forged.entry(tmp_path / "o", "x")
    alive = forged.entry(tmp_path / "o", "x", alive=True)
    listed, rng = 0, random.Random(33)
    for n, content in enumerate(hostile.mutants(32, count, entry)):
        forged.register("h", content if n % 3 else hostile.mutant(rng, rng.choice([entry, alive]), right_types=True))
        found, broken = registry.entries()
        assert len(found) + len(broken) == 1
        for one in broken:
            one_line(one.reason)
        listed += len(found)
        find.registered()
        dead_entries()
        if n % 10 == 0:
            for args in (["list", "--all"], ["list", "--all", "--json"], ["status", "x"], ["clean"]):
                calm(*args)
        said = capsys.readouterr()
        assert "internal error" not in said.err
    figure(f"{count} contents: 0 tracebacks, {listed} listed, the rest told of in one line")
    assert 0 < listed < count


@times(quick=2_000, full=10_000)
def test_row_32_thousands_of_entries_are_listed_and_the_corrupt_ones_told_of(
    project: Path, tmp_path: Path, count: int, figure: Note
) -> None:
    registry_dir().mkdir(parents=True)
    entry, rng, bad = forged.entry(tmp_path / "other", "x"), random.Random(32), 0
    for number in range(count):
        content = orjson.dumps(entry | {"name": f"loop{number}"})
        if number % 10 == 0:
            bad += 1
            content = content[: rng.randrange(len(content))] if number % 20 else b"\xff" + content
        (registry_dir() / f"{number}.json").write_bytes(content)
    command, env = forged.program("list", "--all")
    with (tmp_path / "out").open("wb") as out, (tmp_path / "err").open("wb") as err:
        process = subprocess.Popen(command, env=env, cwd=project, stdout=out, stderr=err)
        # Time of the processor, not of the clock: other tests run at the same time.
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    assert (tmp_path / "out").read_bytes().count(b"\n") == count - bad + 1
    told = (tmp_path / "err").read_text().splitlines()
    assert len(told) == bad and all(line.startswith("ralph-rpc: skipped ") for line in told)
    seconds = used.ru_utime + used.ru_stime
    figure(f"{count} entries, {bad} of them corrupt: listed in {seconds:.2f} s of processor time, 0 tracebacks")
    assert seconds < 1.5


# -- row 46: folders of another user

NOBODY = 12345


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
@pytest.mark.parametrize("what", ["the project", ".ralph", "the registry"])
@pytest.mark.parametrize("command", [["start", "x", "-m", "t"], ["resume", "x"]], ids=lambda command: command[0])
def test_row_46_a_folder_of_another_user_is_refused_in_one_line(
    tmp_path: Path, what: str, command: list[str], figure: Note
) -> None:
    """Root is no exception, and needs no flag where all is root's: every other test of this suite may run as root."""
    rig = fake_rig(tmp_path, ["one"])
    if command[0] == "resume":
        rig.start("-n", "1")
        rig.wait_end()
        until(lambda: not locks.is_held(rig.paths.runner_lock), "the runner has left")
        command = [*command, "-n", "2"]
    registry_folder = Path(rig.env["RALPH_HOME"]) / "registry"
    folder = {"the project": rig.project, ".ralph": rig.paths.dir.parent, "the registry": registry_folder}[what]
    folder.mkdir(parents=True, exist_ok=True)
    os.chown(folder, NOBODY, NOBODY)
    before = content_of(tmp_path, Path(rig.env["HOME"]))
    done = rig.run(*command, "--pi", rig.pi, check=2)
    assert done.stderr.count("\n") == 1 and str(folder) in done.stderr and "chown" in done.stderr and done.stdout == ""
    assert content_of(tmp_path, Path(rig.env["HOME"])) == before
    os.chown(folder, 0, 0)
    rig.run(*command, "--pi", rig.pi)
    rig.wait_end()
    figure(f"{what} of another user: exit code 2, one line, nothing written; root on root's own runs without a flag")


# -- row 49: the agent's own shell

SPOILT = {
    "state.json deleted": "rm $RALPH_LOOP_DIR/state.json",
    "state.json garbage": "echo garbage > $RALPH_LOOP_DIR/state.json",
    "config.json garbage": "echo '{' > $RALPH_LOOP_DIR/config.json",
    "config.json deleted": "rm $RALPH_LOOP_DIR/config.json",
    "pid deleted": "rm $RALPH_LOOP_DIR/pid",
    "pid of another": "echo 1 > $RALPH_LOOP_DIR/pid",
    "commands.jsonl deleted": "rm $RALPH_LOOP_DIR/commands.jsonl",
    "commands.jsonl emptied": ": > $RALPH_LOOP_DIR/commands.jsonl",
    "commands.jsonl garbage": "printf garbage > $RALPH_LOOP_DIR/commands.jsonl",
    "commands.jsonl garbage behind": "printf garbage >> $RALPH_LOOP_DIR/commands.jsonl",
    "registry deleted": "rm -r $RALPH_HOME/registry",
    "registry garbage": "for f in $RALPH_HOME/registry/*.json; do echo garbage > $f; done",
    "all at once": "cd $RALPH_LOOP_DIR; rm -rf state.json pid config.json commands.jsonl $RALPH_HOME/registry",
    "all garbage": "cd $RALPH_LOOP_DIR; printf x | tee -a state.json pid config.json commands.jsonl $RALPH_HOME/registry/*",
}
AT_LEAST = ("all at once", "all garbage", "commands.jsonl garbage")


def is_whole(rig: Rig, pid: int) -> bool:
    """All that a next runner and a viewer need is there."""
    paths = rig.paths
    try:
        state, config = records.read_state(paths), records.read_config(paths)
        lines = [json.loads(line) for line in paths.commands.read_bytes().splitlines()]
        entries = rig.registry()
        return (
            state is not None
            and state["pid"] == pid
            and config is not None
            and paths.pid.read_text() == f"{pid}\n"
            and any(line["id"] == "early" and line["state"] == "received" for line in lines)
            and len(entries) == 1
            and entries[0]["pid"] == pid
        )
    except (Unreadable, OSError, ValueError):
        return False


@pytest.mark.parametrize(
    "how", [how if how in AT_LEAST else pytest.param(how, marks=pytest.mark.full) for how in SPOILT]
)
def test_row_49_what_the_agents_shell_spoils_is_whole_again_and_nothing_is_lost(
    tmp_path: Path, how: str, figure: Note
) -> None:
    gate = "while [ ! -e $PWD/go ]; do sleep 0.05; done"
    rig = fake_rig(
        tmp_path,
        [[{"tool": "bash", "run": gate}, {"tool": "bash", "run": SPOILT[how]}, {"hang": True}], f"done\n{MARKER}"],
    )
    rig.start("-n", "4")
    pids = rig.pids()
    rig.drop("followup.json", '{"id": "early", "message": "heed this", "when": "next"}')
    rig.wait_step("early", "accepted")
    assert is_whole(rig, pids[0])
    (rig.project / "go").touch()
    began = time.monotonic()
    wait_for("the shell is done", lambda: len(rig.of("tool_execution_end")) == 2)
    rig.drop("followup-2.json", '{"id": "later", "message": "and this", "when": "next"}')
    rig.wait_step("later", "accepted")
    wait_for(f"all is whole again\n{rig.log()}", lambda: is_whole(rig, pids[0]))
    took = time.monotonic() - began
    rig.kill(pids[0])
    wait_for("the end of all three", lambda: not rig.of_mine())
    rig.run("resume", "x")
    state = rig.wait_end()
    assert state["status"] == "completed", state
    assert [rig.steps(id).count("delivered") for id in ("early", "later")] == [1, 1]
    figure(f"{how}: whole again after {took:.1f} s; after a crash both messages delivered once")


def test_row_49_a_task_that_became_a_pipe_holds_nobody_up(tmp_path: Path) -> None:
    """Opened plainly it would hold the runner for ever."""
    spoil = {"tool": "bash", "run": "rm $RALPH_LOOP_DIR/task.md; mkfifo $RALPH_LOOP_DIR/task.md"}
    rig = fake_rig(tmp_path, [[spoil, "on"], "continued"])
    rig.start("-n", "2")
    state = rig.wait_end()
    assert state["stopReason"] == "max-iterations"
    assert [e for e in rig.of("ralph_notice") if "task.md cannot be read" in e["message"]]
    shutil.rmtree(rig.paths.dir)
    assert atomic.read_json_object(rig.paths.state) is None
