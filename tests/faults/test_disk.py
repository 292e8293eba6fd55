"""A disk that is full, turns read-only, or loses the loop's files: nothing torn, nothing lost, nobody left waiting.

Real file systems of a few MiB, mounted by the test: tmpfs to be filled up, ext4 to be made read-only under open
files. A limit on the size of a file (RLIMIT_FSIZE) stands in where only the runner is to be hit.
"""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Self

import pytest
from _pytest.mark.structures import ParameterSet

from ralph_rpc.files.eventreader import EventReader
from ralph_rpc.model.schemas import validator
from tests.faults.conftest import Note
from tests.faults.tiers import times
from tests.rig import Rig, alive, fake_rig, new_project, wait_for

pytestmark = pytest.mark.usefixtures("no_leftovers")
MARKER = "<promise>COMPLETE</promise>"
BACK_S = 30.0
"""What a loop may take to go on when there is room again, or to end when there will be none."""
MOST_CPU = 0.05


def full(value: Any) -> ParameterSet:
    return pytest.param(value, marks=pytest.mark.full)


def mounted(where: Path, *mount: str) -> Iterator[Path]:
    """A file system at `where`, or a skipped test."""
    where.mkdir(exist_ok=True)
    done = subprocess.run(["mount", *mount, str(where)], check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")
    try:
        yield where
    finally:
        subprocess.run(["umount", "--lazy", str(where)], check=True)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """4 MiB."""
    yield from mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=4m", "none")


@pytest.fixture
def ext4(tmp_path: Path) -> Iterator[Path]:
    """32 MiB that turn read-only at the first error."""
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(32 << 20)
    if subprocess.run(["mkfs.ext4", "-q", str(image)], check=False).returncode:
        pytest.skip("mkfs.ext4 is not here")
    yield from mounted(tmp_path / "disk", "-o", "loop,errors=remount-ro", str(image))


def rig_on(disk: Path, tmp_path: Path, prompts: list[Any]) -> Rig:
    """A project on the disk; pi and its script lie elsewhere."""
    plain = fake_rig(tmp_path, prompts)
    return Rig(new_project(disk / "project"), plain.pi, tmp_path / "agent", [])


class Ballast:
    """Takes all that is free on a disk, and gives it back. With `greedy` it goes on taking."""

    def __init__(self, disk: Path, greedy: bool = False) -> None:
        self._path = disk / "ballast"
        self._greedy = greedy
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._eat)

    def __enter__(self) -> Self:
        self._fill()
        if self._greedy:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._greedy:
            self._thread.join()
        self._path.unlink(missing_ok=True)

    def _fill(self) -> None:
        for size in (1 << 16, 1 << 12, 1):
            try:
                with self._path.open("ab", buffering=0) as file:
                    while file.write(b"x" * size) == size:
                        pass
            except OSError:
                continue

    def _eat(self) -> None:
        while not self._over.wait(0.001):
            self._fill()


def flow(words: int, pace: float = 0.002) -> dict[str, Any]:
    return {"reply": f"all\n{MARKER}", "deltas": words, "pace": pace}


def gate(file: str) -> dict[str, Any]:
    """A tool that ends when the file is there."""
    return {"tool": "bash", "run": f"while [ ! -e {file} ]; do sleep 0.05; done"}


def told(rig: Rig) -> list[str]:
    """The words of a flow that are in the log, in its order; each line of the log must be JSON."""
    deltas = [e["assistantMessageEvent"].get("delta") or "" for e in rig.of("message_update")]
    return [d for d in deltas if d.startswith("tok")]


def has_told(rig: Rig, words: int) -> bool:
    return len(told(rig)) >= words


def waiting(rig: Rig) -> dict[str, Any] | None:
    """The state of a loop that says that it waits for room."""
    state = rig.state()
    return state if state["status"] == "waiting" and "disk is full" in (state["error"] or "") else None


def held(rig: Rig) -> None:
    """Returns when pi's output does not come through any more."""
    seen, since = -1, time.monotonic()

    def quiet() -> bool:
        nonlocal seen, since
        if (now := len(told(rig))) != seen:
            seen, since = now, time.monotonic()
        return time.monotonic() - since > 0.7  # longer than between two tries

    wait_for("pi is held", quiet)


def check_whole(rig: Rig) -> None:
    """Every line and every file is what its schema says; raises where one is torn."""
    rig.events()
    for line in rig.paths.commands.read_bytes().split(b"\n")[:-1]:
        validator("journal").validate_json(line)
    assert rig.paths.commands.read_bytes()[-1:] in (b"", b"\n")
    validator("state").validate_json(rig.paths.state.read_bytes())
    for record in rig.paths.iterations.glob("*.json"):
        validator("iteration").validate_json(record.read_bytes())
    assert not list(rig.paths.dir.glob("*.broken-*"))


def cpu_s(pid: int) -> float:
    """Processor time of a process so far."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def ends_calmly(runner: int, others: list[int]) -> tuple[float, float]:
    """Waits for the end of all; the seconds it took, and what the runner used of a processor meanwhile."""
    began, before, used = time.monotonic(), cpu_s(runner), 0.0
    while alive(runner):
        used = max(used, cpu_s(runner) - before)
        assert time.monotonic() - began < BACK_S, "the runner does not end"
        time.sleep(0.02)
    took = time.monotonic() - began
    wait_for("pi's and the guard's end", lambda: not any(map(alive, others)), timeout=max(0.1, BACK_S - took))
    # Of the time that it may take: an end costs some work, and is over quickly.
    assert used / BACK_S < MOST_CPU, f"{used} s of processor time in {took:.1f} s"
    return took, used


# -- row 14: no room


@times(quick=1, full=6)
def test_row_14_a_full_disk_holds_the_loop_until_there_is_room(
    small: Path, tmp_path: Path, figure: Note, count: int
) -> None:
    words = 1500 * count
    rig = rig_on(small, tmp_path, [[flow(words)]])
    rig.start()
    runner, _, _ = rig.pids()
    longest = cpu = 0.0
    for again in range(count):
        wait_for("words", partial(has_told, rig, again * 1500 + 100))
        with Ballast(small):
            state = wait_for("the loop says that it waits", lambda: waiting(rig))
            assert state["nextWakeAt"] is None
            assert "disk is full" in rig.run("status", "x").stdout
            began, before = time.monotonic(), cpu_s(runner)
            so_far = len(told(rig))
            time.sleep(1.5)  # nothing may happen now
            assert len(told(rig)) == so_far
            cpu = max(cpu, (cpu_s(runner) - before) / (time.monotonic() - began))
        freed = time.monotonic()
        wait_for("more words", partial(has_told, rig, so_far + 1), timeout=BACK_S)
        longest = max(longest, time.monotonic() - freed)
        wait_for("it runs again", lambda: rig.state()["status"] != "waiting")
    assert rig.wait_end()["status"] == "completed"
    assert told(rig) == [f"tok{n} " for n in range(words)]
    assert [e["to"] for e in rig.of("ralph_status")].count("waiting") == count
    check_whole(rig)
    assert cpu < MOST_CPU
    figure(
        f"{count} times full: 0 torn, 0 lost; on again {longest:.1f} s after there was room; {cpu:.1%} of a core held"
    )


@pytest.mark.parametrize(
    "how", [["stop"], full(["kill"]), full(["stop", "--now"]), full(["abort", "--then", "stop"])], ids=" ".join
)
def test_row_14_a_stop_works_on_a_full_disk(small: Path, tmp_path: Path, figure: Note, how: list[str]) -> None:
    rig = rig_on(small, tmp_path, [[flow(20_000)], [flow(20_000)]])
    rig.start()
    wait_for("words", partial(has_told, rig, 50))
    with Ballast(small):
        wait_for("it waits", lambda: waiting(rig))
        pids = rig.pids()
        asked = time.monotonic()
        rig.run(how[0], "x", *how[1:], check=None)
        ends_calmly(pids[0], list(pids[1:]))
        took = time.monotonic() - asked
        state = rig.state()
        assert (state["status"], state["stopReason"]) == ("stopped", "kill" if how[0] == "kill" else "stop")
        check_whole(rig)
    assert told(rig) == [f"tok{n} " for n in range(len(told(rig)))]
    assert [r["outcome"] for r in rig.records()] == ["aborted"]
    figure(f"{' '.join(how)}: over after {took:.1f} s, state and record written")


@pytest.mark.parametrize("how", ["stop.json", full("SIGTERM")])
def test_row_14_a_stop_works_where_others_take_every_free_byte(
    small: Path, tmp_path: Path, figure: Note, how: str
) -> None:
    rig = rig_on(small, tmp_path, [[flow(20_000)], [f"once more\n{MARKER}"]])
    rig.start()
    wait_for("words", partial(has_told, rig, 50))
    runner, guard, pi = rig.pids()
    with Ballast(small, greedy=True):
        held(rig)
        if how == "SIGTERM":
            os.kill(runner, signal.SIGTERM)
        else:
            (rig.paths.inbox / how).touch()  # takes no room
        took, _ = ends_calmly(runner, [guard, pi])
    check_whole(rig)
    rig.run("resume", "x", check=None)
    state = rig.wait_end()
    assert state["status"] in ("completed", "stopped"), state
    check_whole(rig)
    figure(f"{how}: over after {took:.1f} s, resumed whole")


def limit(pid: int, size: int) -> None:
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def test_row_14_a_step_that_the_journal_cannot_take_waits(tmp_path: Path, figure: Note) -> None:
    """In the middle of a step: the followup goes out with the next prompt, and is written down before that."""
    rig = fake_rig(
        tmp_path, [["one", gate("1"), "on"], ["two", gate("2"), "on"], ["three", gate("3"), "on"], f"done\n{MARKER}"]
    )
    rig.start("--log-size", "64K")
    # The journal becomes the largest file, so that a limit meets it alone.
    rig.drop("steer-1.json", json.dumps({"id": "large", "message": "x" * 700_000}))
    rig.wait_step("large", "accepted")
    (rig.project / "1").touch()
    rig.wait_step("large", "delivered")
    rig.wait_event("ralph_iteration_start", iteration=2)
    rig.drop("followup-2.json", '{"id": "next", "message": "and then", "when": "next"}')
    rig.wait_step("next", "queued")
    runner, _, _ = rig.pids()
    limit(runner, rig.paths.commands.stat().st_size + 1)
    # What comes now can't be taken, and must not be lost.
    rig.drop("steer-3.json", '{"id": "meanwhile", "message": "meanwhile"}')
    (rig.project / "2").touch()
    wait_for("it says that it waits", lambda: waiting(rig))
    assert rig.steps("next")[-1] == "queued" and not rig.steps("meanwhile")
    limit(runner, resource.RLIM_INFINITY)
    freed = time.monotonic()
    rig.wait_step("next", "delivered")
    took = time.monotonic() - freed
    rig.wait_step("meanwhile", "accepted")
    (rig.project / "3").touch()
    assert rig.wait_end()["status"] == "completed"
    steps = {id: rig.steps(id) for id in ("large", "next", "meanwhile")}
    assert all(found.count("delivered") == 1 for found in steps.values()), steps
    assert {r["outcome"] for r in rig.records()} == {"ok"}
    check_whole(rig)
    assert took < BACK_S
    figure(f"went on {took:.1f} s after there was room, 0 lost, 0 twice")


def test_row_14_a_record_without_room_is_written_once_there_is(tmp_path: Path) -> None:
    rig = fake_rig(tmp_path, [["one", gate("1"), "on"], ["two", gate("2"), f"done\n{MARKER}"]])
    rig.start()
    for full in mounted(rig.paths.iterations, "-t", "tmpfs", "-o", "size=4k", "none"):
        (full / "ballast").write_bytes(b"x" * 4096)
        (rig.project / "1").touch()
        wait_for("it says that it waits", lambda: waiting(rig))
        assert rig.records() == []
        (full / "ballast").unlink()
        rig.wait_event("ralph_iteration_start", iteration=2)
        assert [r["iteration"] for r in rig.records()] == [1]
        assert len(rig.of("ralph_iteration_end")) == 1
        (full / "001.json").unlink()
        (rig.project / "2").touch()
        rig.wait_end()


# -- row 17: the folder is gone, closed, or read-only


@pytest.mark.parametrize("what", ["the loop", full(".ralph")])
def test_row_17_a_deleted_folder_is_made_again_while_pi_writes(tmp_path: Path, figure: Note, what: str) -> None:
    rig = fake_rig(tmp_path, [[flow(2_000), gate("1")]])
    rig.start("-n", "1")
    wait_for("words", partial(has_told, rig, 20))
    began = time.monotonic()
    shutil.rmtree({"the loop": rig.paths.dir, ".ralph": rig.paths.dir.parent}[what], ignore_errors=True)
    wait_for("the folder", lambda: rig.paths.state.exists() and rig.paths.events.exists() and rig.paths.task.exists())
    took = time.monotonic() - began
    (rig.project / "1").touch()
    state = rig.wait_end()
    assert (state["status"], state["stopReason"]) == ("stopped", "max-iterations"), rig.log()
    told = [e["assistantMessageEvent"].get("delta") or "" for e in rig.of("message_update")]
    assert [delta for delta in told if delta.startswith("tok")] == [f"tok{n} " for n in range(2_000)]
    figure(f"{what} deleted: whole again after {took:.1f} s, no line lost")


def test_row_17_a_deleted_project_is_waited_for_and_obeys_a_signal(tmp_path: Path, figure: Note) -> None:
    rig = fake_rig(tmp_path, [[flow(60_000)]])
    rig.start()
    runner, guard, pi = rig.pids()
    wait_for("words", partial(has_told, rig, 20))
    doomed = rig.project.rename(tmp_path / "doomed")  # a removal in place would find the folder made again
    shutil.rmtree(doomed)
    wait_for("the reason", lambda: any(one["status"] == "waiting" for one in rig.registry()), timeout=30)
    os.kill(runner, signal.SIGTERM)
    took, used = ends_calmly(runner, [guard, pi])
    assert rig.of_mine() == {}
    figure(f"the project deleted: over {took:.1f} s after SIGTERM, {used:.2f} s of processor time")


@pytest.mark.parametrize("moment", ["pi works", full("pi is silent"), full("paused")])
def test_row_17_a_file_system_that_turns_read_only_ends_the_loop(
    ext4: Path, tmp_path: Path, figure: Note, moment: str
) -> None:
    rig = rig_on(ext4, tmp_path, [[flow(60_000)] if moment == "pi works" else ["one", {"hang": True}]])
    rig.start()
    if moment == "paused":
        rig.run("abort", "x", "--then", "pause")
        rig.wait_status("paused")
    elif moment == "pi works":
        wait_for("words", partial(has_told, rig, 20))
    runner, guard, pi = rig.pids()
    device = Path(subprocess.check_output(["findmnt", "-no", "SOURCE", str(ext4)], text=True).strip()).name
    Path(f"/sys/fs/ext4/{device}/trigger_fs_error").write_text("1")
    took, used = ends_calmly(runner, [guard, pi])
    rig.events()
    figure(f"{moment}: over after {took:.1f} s, {used:.2f} s of processor time")


@pytest.mark.parametrize("what", [full("dir"), "inbox", full("iterations")])
def test_row_17_a_folder_that_may_no_longer_be_written_is_waited_for(tmp_path: Path, what: str) -> None:
    """Root obeys modes where it has lost its capabilities."""
    drop = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search,-fowner", "--"] if os.geteuid() == 0 else []
    rig = fake_rig(tmp_path, [["one", gate("1"), "on"], [{"tool": "bash", "run": "touch at-2"}, gate("2")]])
    command = [*drop, sys.executable, "-P", "-m", "ralph_rpc", "start", "x", "--pi", rig.pi, "-m", "Do it.", "-n", "2"]
    subprocess.run(command, cwd=rig.project, env=rig.env, check=True, capture_output=True, timeout=60)
    runner, _, _ = rig.pids()
    folder: Path = getattr(rig.paths, what)
    folder.chmod(0o500)
    try:
        (rig.project / "1").touch()
        entry = wait_for(
            "the reason", lambda: next((one for one in rig.registry() if one["status"] == "waiting"), None), timeout=30
        )
        assert entry["pid"] == runner
    finally:
        folder.chmod(0o700)
    wait_for("the work", (rig.project / "at-2").exists)
    (rig.project / "2").touch()
    state = rig.wait_end()
    assert (state["status"], state["stats"]["iterations"]) == ("stopped", 2), rig.log()
    check_whole(rig)


@pytest.mark.parametrize("how", ["deleted", "replaced", "cut"])
def test_row_17_an_events_file_that_is_taken_away_loses_no_line(tmp_path: Path, how: str) -> None:
    rig = fake_rig(tmp_path, [["one", gate("1"), flow(500)]])
    rig.start()
    rig.wait_event("tool_execution_start")
    reader = EventReader.at_start(rig.paths.events)
    seen = [line for _, line in reader.read()]
    if how == "deleted":
        rig.paths.events.unlink()
    elif how == "replaced":
        other = rig.paths.dir / "mine"
        other.write_bytes(rig.paths.events.read_bytes())
        other.rename(rig.paths.events)
    else:
        os.truncate(rig.paths.events, 0)
    (rig.project / "1").touch()
    state = rig.wait_end()
    assert state["status"] == "completed"
    if how != "deleted":  # a deleted one is put back whole: it is still open
        assert [e for e in rig.of("ralph_notice") if "deleted, replaced or cut" in e["message"]]
    while more := reader.read():
        seen += [line for _, line in more]
    reader.close()
    types = [json.loads(line)["type"] for line in seen]
    assert types[-1] == "ralph_loop_end"
    if how != "cut":  # a viewer that was there before has all of it
        deltas = [json.loads(line).get("assistantMessageEvent", {}).get("delta") or "" for line in seen]
        assert [d for d in deltas if d.startswith("tok")] == [f"tok{n} " for n in range(500)]
        assert reader.missed == 0


@pytest.fixture
def few_inodes(tmp_path: Path) -> Iterator[Path]:
    """4 MiB, and 200 files."""
    yield from mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=4m,nr_inodes=200", "none")


def use_up(disk: Path) -> list[Path]:
    """Makes files until there is no inode left."""
    made: list[Path] = []
    try:
        while True:
            made.append(disk / f"file-{len(made)}")
            made[-1].touch()
    except OSError:
        return made[:-1]


def test_without_inodes_status_says_so_and_a_stop_works(few_inodes: Path, tmp_path: Path) -> None:
    rig = rig_on(few_inodes, tmp_path, [[flow(10), gate("go")], f"done\n{MARKER}"])
    rig.start()
    wait_for("the tool", lambda: any(event["type"] == "tool_execution_start" for event in rig.events()))
    made = use_up(few_inodes)
    assert "no inodes left" in rig.run("status", "x").stdout
    rig.run("stop", "x", "--now")
    state = rig.wait_end()
    assert (state["status"], state["stopReason"]) == ("stopped", "stop")
    for file in made:
        file.unlink(missing_ok=True)
    check_whole(rig)
