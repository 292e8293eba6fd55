"""A runner that is killed, or meets an error of the disk, at every system call that changes something.

Twice: the runner's file work alone (filework.py), quick enough for every call and for deaths in a row; and the whole
runner on a fake pi. After each fault the loop is taken up again and must be clean: no message lost, none that has
its receipt given again, one that may have been read flagged, no torn line, every file as its schema says, nothing
left running and no registry entry without a runner.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest

from ralph_rpc.files.paths import LoopPaths, registry_dir
from ralph_rpc.loops import create
from ralph_rpc.loops.launch import launch
from ralph_rpc.machine import locks
from ralph_rpc.machine.locks import Lock
from ralph_rpc.model.schemas import validator
from tests.faults import filework, strace
from tests.faults.conftest import Note
from tests.faults.strace import Point
from tests.faults.tiers import times
from tests.files import crash
from tests.rig import alive, fake_rig, wait_for

pytestmark = pytest.mark.usefixtures("no_leftovers", "traced")

ERRORS = ("error=ENOSPC", "error=EIO", "error=EACCES")


@pytest.fixture(scope="module")
def traced() -> None:
    strace.required()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """In memory where there is such a place: a process that dies leaves the same there, and nothing waits for a disk."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="ralph-test-", dir=memory) as name:
        yield Path(name)


# -- what is clean


def journal_of(paths: LoopPaths) -> list[dict[str, Any]]:
    """The whole lines of commands.jsonl; each must be JSON and meet its schema."""
    data = paths.commands.read_bytes() if paths.commands.exists() else b""
    lines = [json.loads(line) for line in data.split(b"\n")[:-1]]
    for line in lines:
        validator("journal").validate_python(line, strict=True)
    return lines


def receipts(paths: LoopPaths) -> dict[str, dict[str, Any]]:
    """The last step of every message that has one; never two."""
    ended = [line for line in journal_of(paths) if line["state"] in ("delivered", "expired", "rejected")]
    found = {line["id"]: line for line in ended}
    assert len(found) == len(ended), f"two ends: {ended}"
    return found


def check_log(paths: LoopPaths) -> None:
    """Only whole lines of JSON, and each file begins where the one before it ends."""
    files = sorted(paths.dir.glob("events.jsonl*"), key=lambda p: -int(p.suffix[1:]) if p.suffix[1:].isdigit() else 0)
    offset = 0
    for file in files:
        data = file.read_bytes()
        assert data.endswith(b"\n") or not data, f"torn: {file.name}"
        lines = [json.loads(line) for line in data.split(b"\n")[:-1]]
        if file != files[0]:
            assert lines[0]["type"] == "ralph_log_open" and lines[0]["base"] == offset, (file.name, offset, lines[0])
        offset += len(data)


def check_left(paths: LoopPaths) -> None:
    """What a dead runner leaves can be read by everyone: state, records and journal old or new, never half."""
    for file, shape in [(paths.state, "state"), *((p, "iteration") for p in paths.iterations.glob("*.json"))]:
        if file.exists():
            validator(shape).validate_json(file.read_bytes())
    journal_of(paths)


def check_clean(paths: LoopPaths, ids: list[str], seen: Counter[str], before: Counter[str], expired: set[str]) -> int:
    """The loop has ended after a recovery; `seen` counts what pi got.

    `before` tells how often pi had got those that had their receipt already when the fault came; `expired` are those
    that a run which ended by itself has given back. Returns how many were given more than once, all of them flagged.
    """
    check_left(paths)
    check_log(paths)
    ended = receipts(paths)
    assert {id: seen[id] for id in before} == before, "given again after its receipt"
    assert set(ended) == set(ids), f"lost: {set(ids) - set(ended)}"
    for id in ids:
        assert ended[id]["state"] == ("expired" if id in expired else "delivered"), ended[id]
        assert seen[id] >= 1 or id in expired, f"{id} has a receipt and pi never got it"
        assert seen[id] <= 1 or ended[id].get("redelivered") is True, f"{id} was given {seen[id]} times without a flag"
    assert not [p.name for p in paths.inbox.iterdir() if not p.name.startswith(".tmp-") and p.name != "rejected"]
    assert not list(registry_dir().glob("-*.json")), "the registry has an entry of a dead loop"
    return sum(seen[id] > 1 for id in ids)


# -- the file work alone


class FileWork:
    """One folder in which the file work is begun, broken and taken up again."""

    def __init__(self, folder: Path) -> None:
        self.paths, self.pi, self.ids = LoopPaths.of(folder, "x"), folder / "pi", list[str]()

    def begin(self) -> None:
        shutil.rmtree(self.paths.dir, ignore_errors=True)
        shutil.rmtree(registry_dir().parent, ignore_errors=True)
        self.pi.unlink(missing_ok=True)
        self.ids = filework.prepare(self.paths)

    def start(self) -> int:
        """A life that waits for strace."""

        def work() -> None:
            signal.raise_signal(signal.SIGSTOP)
            try:
                filework.life(self.paths, self.pi)
            except OSError:
                os._exit(1)

        return crash.start(work)

    def start_anew(self) -> int:
        self.begin()
        return self.start()

    def left(self) -> Counter[str]:
        """How often pi got the messages that have a receipt; everything must be readable."""
        assert self.paths.state.exists(), "the old state is gone"
        check_left(self.paths)
        return Counter({id: self.given()[id] for id in receipts(self.paths)})

    def given(self) -> Counter[str]:
        """How often each message was written to pi."""
        return Counter(self.pi.read_text().split() if self.pi.exists() else [])

    def finish(self, before: Counter[str]) -> int:
        """Recovers without faults; the number of messages given twice."""
        assert crash.dies(lambda: filework.life(self.paths, self.pi), 10_000) is False
        assert (self.paths.rejected / "fly.json").exists() or list(self.paths.rejected.glob("fly.json~*"))
        return check_clean(self.paths, self.ids, self.given(), before, set())


def test_row_01_file_work_that_is_killed_at_any_call_is_taken_up_clean(folder: Path, figure: Note) -> None:
    work = FileWork(folder)
    every, again = strace.points(work.start_anew), 0
    for point in every:
        work.begin()
        assert strace.run(work.start, point).hit, point
        again += work.finish(work.left())
    figure(f"file work killed at each of {len(every)} calls: all clean, {again} given twice and flagged")
    assert len(every) >= 40


@times(quick=12, full=600)
def test_row_03_file_work_whose_recovery_is_killed_too_is_taken_up_clean(
    folder: Path, count: int, figure: Note
) -> None:
    work = FileWork(folder)
    every = strace.points(work.start_anew)
    first = strace.spread(every, min(len(every), max(4, count // 40)))
    each, pairs, again = count // len(first), 0, 0
    for point in first:

        def half_done(point: Point = point) -> int:
            work.begin()
            strace.run(work.start, point)
            return work.start()

        for second in strace.spread(strace.points(half_done), each):
            work.begin()
            assert strace.run(work.start, point).hit, point
            before = work.left()
            assert strace.run(work.start, second).hit, (point, second)
            again += work.finish(before | work.left())
            pairs += 1
    figure(f"file work killed at {len(first)} calls, then its recovery: {pairs} pairs clean, {again} given twice")


@times(quick=24, full=10_000)
def test_row_15_file_work_that_meets_a_full_or_broken_disk_at_any_call_leaves_all_intact(
    folder: Path, count: int, figure: Note
) -> None:
    work = FileWork(folder)
    every = strace.points(work.start_anew)
    tried = strace.spread(every, count)
    ended = again = 0
    for n, point in enumerate(tried):
        for error in ERRORS if count >= len(every) else (ERRORS[n % 3],):
            work.begin()
            code, hit = strace.run(work.start, point, error)
            assert code in (0, 1) and hit, (point, error, code)
            ended += code
            again += work.finish(work.left())
    figure(f"{len(tried)} of {len(every)} calls failed: {ended} ended the run, all intact, {again} given twice")


# -- the whole runner

LOAD = (
    "import signal, sys, ralph_runner.shell.runner; from ralph_runner.__main__ import main; "
    "signal.raise_signal(signal.SIGSTOP); sys.exit(main())"
)
"""The runner as `launch` starts it, but that it waits for strace once it is loaded."""

MIDDLE = """\
printf '{"message": "text-%s", "id": "two"}' two > "$RALPH_LOOP_DIR/inbox/.half" &&
mv "$RALPH_LOOP_DIR/inbox/.half" "$RALPH_LOOP_DIR/inbox/steer-two.json"
n=0
until grep -Eq '"two","command":"steer","state":"(queued|delivered)"' "$RALPH_LOOP_DIR/commands.jsonl" &&
      ! ls -A "$RALPH_LOOP_DIR/inbox" | grep -q two.json
do sleep 0.01; n=$((n + 1)); [ $n -lt 500 ] || exit 1; done
"""
"""What the agent does in every iteration: a message comes while it works, and pi has taken it before it goes on. The
second time it is the same message, which must not be given again. Its text does not stand here: a prompt that tells of
the command that was cut off is not taken for the message."""


class Whole:
    """A loop on a fake pi: one iteration with a message before it and one within it, and a rotation of the log."""

    ids = ("one", "two")

    def __init__(self, folder: Path) -> None:
        self.rig = fake_rig(folder, [["hello", {"tool": "bash", "run": MIDDLE}, "on", "done"]])
        self.stdin = folder / "stdin"
        pi = Path(self.rig.pi)
        pi.write_text(pi.read_text().replace("FAKE_PI_SCRIPT", f"FAKE_PI_LOG={self.stdin} FAKE_PI_SCRIPT", 1))
        self.rig.start("-n", "1", "--log-size", "4000", "--log-keep", "50")
        self.rig.wait_end()
        self.config = json.loads(self.rig.paths.config.read_bytes())
        self.paths = self.rig.paths

    def begin(self) -> None:
        """A new loop, not started."""
        shutil.rmtree(self.paths.dir, ignore_errors=True)
        shutil.rmtree(registry_dir().parent, ignore_errors=True)
        for file in (self.stdin, self.stdin.with_name("script.json.count")):
            file.unlink(missing_ok=True)
        creation = create.create(self.paths, self.config, "Do the work.", None)
        self.lock = creation.lock
        self.rig.drop("steer.json", '{"message": "text-one", "id": "one"}')

    def start(self) -> int:
        """Its first run."""
        return self._start(self.lock)

    def start_again(self) -> int:
        """Its next run; one more iteration is allowed."""
        return self._start(self._take_up(), "--resume")

    def start_anew(self) -> int:
        self.begin()
        return self.start()

    def _take_up(self) -> Lock:
        lock = locks.acquire(self.paths.runner_lock)
        assert lock is not None, "somebody holds the lock"
        self.paths.config.write_text(json.dumps({**self.config, "maxIterations": 2}))
        return lock

    def _start(self, lock: Lock, *more: str) -> int:
        launched = f"--launched={time.time():.3f}"
        with self.paths.log.open("ab") as log:
            runner = subprocess.Popen(
                [sys.executable, "-P", "-c", LOAD, str(self.paths.dir), "--lock-fd", str(lock.fd), launched, *more],
                cwd=self.paths.dir,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=(lock.fd,),
            )
        lock.release()
        runner.returncode = 0  # strace.run waits for it
        return runner.pid

    def left(self) -> tuple[Counter[str], float]:
        """How often pi got the messages that have a receipt, and how long something of the loop still lived."""
        began = time.monotonic()
        # The figure says how long it takes on an idle machine; here other tests may run at the same time.
        wait_for(f"the end of {self.rig.of_mine()}", lambda: not self.rig.of_mine(), timeout=20)
        check_left(self.paths)
        took, given = time.monotonic() - began, self.given()
        return Counter({id: given[id] for id in receipts(self.paths)}), took

    def finish(self, before: Counter[str], expired: set[str] | None = None) -> int:
        """Recovers without faults; the number of messages given twice."""
        try:
            return self._finish(before, expired or set())
        except AssertionError as error:
            error.add_note(f"{self.paths.commands.read_text()}\n{self.rig.log()}")
            raise

    def _finish(self, before: Counter[str], expired: set[str]) -> int:
        runner = launch(self.paths, self._take_up(), resume=True)
        wait_for(f"the end of the runner {self.rig.log()}", lambda: not alive(runner.pid), timeout=30)
        os.waitpid(runner.pid, 0)
        state = self.rig.state()
        assert (state["status"], state["stopReason"]) == ("stopped", "max-iterations"), (state, self.rig.log())
        assert self.rig.of_mine() == {}
        assert [r["iteration"] for r in self.rig.records()] == [*range(1, state["iteration"] + 1)], "one has no record"
        return check_clean(self.paths, list(self.ids), self.given(), before, expired)

    def given(self) -> Counter[str]:
        """How often each message was written to a pi."""
        lines = self.stdin.read_text().splitlines() if self.stdin.exists() else []
        told = [json.loads(line).get("message", "") for line in lines]
        return Counter(
            {id: sum(text in m for m in told) for id, text in zip(self.ids, ("text-one", "text-two"), strict=True)}
        )


def runner_points(start: Callable[[], int]) -> list[Point]:
    """The calls of the first thread, and those by which the saver replaces a file."""
    return [point for point in strace.points(start) if not point.threads or point.call in ("fsync", "rename")]


@times(quick=4, full=10_000)
def test_row_01_a_runner_that_is_killed_at_any_call_is_taken_up_clean(folder: Path, count: int, figure: Note) -> None:
    whole = Whole(folder)
    every = runner_points(whole.start_anew)
    tried = strace.spread(every, count)
    killed = again = 0
    longest = 0.0
    for point in tried:
        whole.begin()
        killed += strace.run(whole.start, point).hit
        before, took = whole.left()
        again += whole.finish(before)
        longest = max(longest, took)
    figure(
        f"runner killed at {killed} of {len(every)} calls ({len(tried)} tried): all clean, {again} given twice and "
        f"flagged, nothing left after {longest:.2f} s"
    )
    # The last calls of a name are not made in every run: the saver writes only the newest of several states.
    assert killed >= 0.75 * len(tried)


@times(quick=1, full=60)
def test_row_03_a_runner_whose_recovery_is_killed_too_is_taken_up_clean(folder: Path, count: int, figure: Note) -> None:
    whole = Whole(folder)
    first = strace.spread(runner_points(whole.start_anew), count)
    killed = again = 0
    for n, point in enumerate(first):
        whole.begin()
        killed += strace.run(whole.start, point).hit
        before, _ = whole.left()
        # Which calls a recovery makes depends on where the run died; those of the files come in every one.
        second = Point(("write", "rename", "fdatasync", "fsync")[n % 4], n // 4 + 1, threads=n % 4 in (1, 3))
        killed += strace.run(whole.start_again, second).hit
        more, _ = whole.left()
        again += whole.finish(before | more)
    figure(f"{len(first)} runs killed, then their recovery: {killed} kills, all clean, {again} given twice and flagged")
    assert killed >= 1.5 * len(first)


def disk_points(start: Callable[[], int]) -> list[Point]:
    """The calls of a run that a disk can refuse."""
    return [point for point in runner_points(start) if point.file]


class Outcome(NamedTuple):
    """How a run with an error of the disk ended, which it has told."""

    how: Literal["went on", "ended with a reason", "did not begin"]
    expired: set[str]
    """The messages it has given back: their text is in the state, for people."""


def outcome(whole: Whole, code: int, what: object) -> Outcome:
    """Fails where the run ended without a word."""
    state, log = whole.rig.state(), whole.rig.log()
    told = (what, code, state.get("status"), state.get("error"), log)
    assert code in (0, 1), told
    if not state:
        assert code == 1 and ("the loop cannot be taken over: " in log or "Errno" in log), told
        return Outcome("did not begin", set())
    ends = {"error"} if code else {"stopped"}
    if code and "cannot write state.json" in log:  # perhaps the last state of all, for which there is only the log
        ends |= {"stopping", "stopped"}
    assert state["status"] in ends, told
    assert state["status"] != "error" or (state["error"] and state["stopReason"]), told
    expired = {id for id, line in receipts(whole.paths).items() if line["state"] == "expired"}
    assert expired <= {one["id"] for one in state["held"]}, told
    return Outcome("ended with a reason" if code else "went on", expired)


@times(quick=2, full=10_000)
def test_row_15_a_runner_that_meets_a_full_or_broken_disk_goes_on_or_ends_with_a_reason(
    folder: Path, count: int, figure: Note
) -> None:
    whole = Whole(folder)
    every = disk_points(whole.start_anew)
    tried, ways, met, again = strace.spread(every, count), Counter[str](), 0, 0
    for n, point in enumerate(tried):
        error = ERRORS[n % 3]
        whole.begin()
        code, hit = strace.run(whole.start, point, error)
        before, _ = whole.left()
        if not hit:
            continue
        met += 1
        ended = outcome(whole, code, (point, error))
        ways[ended.how] += 1
        again += whole.finish(before, ended.expired)
    figure(
        f"one error of the disk at {met} of {len(every)} calls ({len(tried)} tried): "
        f"{', '.join(f'{number} {how}' for how, number in ways.items())}; all clean after it, {again} given twice"
    )
    assert met >= 0.6 * len(tried)


@times(quick=2, full=10_000)
def test_row_16_a_sync_that_fails_is_never_taken_for_done(folder: Path, count: int, figure: Note) -> None:
    whole = Whole(folder)
    every = [point for point in disk_points(whole.start_anew) if point.call in ("fsync", "fdatasync")]
    tried, met = strace.spread(every, count), 0
    for point in tried:
        whole.begin()
        code, hit = strace.run(whole.start, point, "error=EIO")
        before, _ = whole.left()
        if not hit:
            continue
        met += 1
        ended = outcome(whole, code, point)
        # Where only the log's very last sync fails, state.json has its last word already.
        assert ended.how != "went on" or "may not be on disk" in whole.rig.log(), f"it went on after {point}"
        whole.finish(before, ended.expired)
    figure(f"{met} of {len(every)} syncs failed: every run ended in error, with a reason and exit code 1")
    assert met >= 0.6 * len(tried)
