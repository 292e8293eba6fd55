"""The inbox under writers that hurry, stop half-way, flood it or put there what is no file, and with what an earlier
run left in it. Nothing is lost but what its own writer overwrote, nothing half-written counts, nothing blocks."""

import json
import os
import socket
import stat
import subprocess
import sys
import threading
import time
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from ralph_rpc.files.commandfile import MAX_BYTES
from ralph_rpc.files.inbox import Inbox, Rejected, drop
from ralph_rpc.machine import nofollow
from tests.faults.conftest import Note
from tests.faults.tiers import times
from tests.files.boxes import left, messages, settle
from tests.rig import fake_rig, wait_for

pytestmark = pytest.mark.usefixtures("no_leftovers")
MARKER = "<promise>COMPLETE</promise>"


@pytest.fixture
def box(tmp_path: Path) -> Path:
    box = tmp_path / "inbox"
    box.mkdir()
    return box


# -- row 23: one name over and over, and names of their own

OVERWRITER = """
import os, sys, time
box, style, gap, count = sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4])
name = os.path.join(box, "steer.json")
for n in range(count):
    text = '{"message": "%d"}' % n
    if style == "at once":
        with open(os.path.join(box, ".mine"), "w") as file:
            file.write(text)
        began = time.monotonic()
        os.rename(os.path.join(box, ".mine"), name)
    else:
        began = time.monotonic()
        with open(name, "w") as file:
            if style == "in pieces":
                for piece in (text[:5], text[5:9]):
                    file.write(piece)
                    file.flush()
                text = text[9:]
            file.write(text)
    print(n, began, time.monotonic(), flush=True)
    time.sleep(gap)
"""
"""Writes steer.json again and again and tells when: number, before, after."""


@pytest.mark.parametrize("style", ["at once", "plainly", "in pieces"])
@times(quick=40, full=1500)
def test_row_23_what_is_overwritten_before_it_could_be_seen_is_all_that_is_lost(
    box: Path, style: str, count: int, figure: Note
) -> None:
    """A message that lay there whole during a whole look was taken, whatever the gap and however busy the machine."""
    lost, excused = list[str](), 0
    for gap in (0.0, 0.002, 0.01, 0.02):
        inbox, got, looks = Inbox(box), list[str](), list[tuple[float, float]]()
        command = [sys.executable, "-c", OVERWRITER, str(box), style, str(gap), str(count)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            while writer.poll() is None:
                began = time.monotonic()
                scan = inbox.scan(began)
                looks.append((began, time.monotonic()))
                assert scan.rejected == []
                got += messages(scan.commands)
                for one in scan.commands:
                    inbox.done(one)
            assert writer.stdout is not None
            told = [line.split() for line in writer.stdout]
        commands, rejected = settle(inbox)
        got += messages(commands)
        assert rejected == []
        assert len(got) == len(set(got)) and set(got) <= {n for n, _, _ in told}
        assert str(count - 1) in got, "the last content did not win"
        missing = sorted({int(n) for n, _, _ in told} - set(map(int, got)))
        for n in missing:
            lain, overwritten = float(told[n][2]), float(told[n + 1][1])
            after = bisect_left(looks, (lain, 0.0))
            if after < len(looks) and looks[after][1] < overwritten:
                lost.append(f"{n} at gap {gap}")
        excused += len(missing)
    assert lost == []
    figure(f"{style}: 4 gaps of 0 to 20 ms, {4 * count} messages, {excused} overwritten before a look, 0 after it")


def put_first(pid: int) -> None:
    """What a process is not run to see, it cannot take: it goes before the other tests, which may need a core for longer
    than 10 ms. Where that is not allowed it has to do as it is."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(PermissionError):
            os.sched_setscheduler(int(task.name), os.SCHED_FIFO, os.sched_param(1))


@pytest.mark.full
@pytest.mark.parametrize("gap", [0.01, 0.02, 0.05, 0.1, 0.2])
def test_row_23_a_runner_loses_nothing_at_gaps_from_10_ms_on(tmp_path: Path, gap: float, figure: Note) -> None:
    rig = fake_rig(tmp_path, [["hello", {"hang": True}]])
    rig.start()
    put_first(rig.pids()[0])
    count = 200
    command = [sys.executable, "-c", OVERWRITER, str(rig.paths.inbox), "at once", str(gap), str(count)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    def received() -> list[str]:
        lines = map(json.loads, rig.paths.commands.read_bytes().splitlines())
        return [line["body"]["message"] for line in lines if line["state"] == "received"]

    wait_for("the last one", lambda: str(count - 1) in received())
    got = received()
    rig.run("stop", "x", "--now")
    rig.wait_end()
    assert len(got) == len(set(got))
    figure(f"gap {gap * 1000:.0f} ms: {count - len(got)} of {count} lost")
    assert len(got) == count


UNIQUE = """
import os, sys
box, me, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
for n in range(count):
    temp = os.path.join(box, f".{me}")
    with open(temp, "w") as file:
        file.write('{"message": "%s %d"}' % (me, n))
    os.rename(temp, os.path.join(box, f"steer-{me}-{n:06}.json"))
"""


@times(quick=2_000, full=100_000)
def test_row_23_names_of_their_own_lose_nothing_and_keep_each_writers_order(
    box: Path, count: int, figure: Note
) -> None:
    own = min(count // 4, 2_000)
    each = (count - own) // 3
    writers = [subprocess.Popen([sys.executable, "-c", UNIQUE, str(box), str(n), str(each)]) for n in range(3)]
    threaded = threading.Thread(target=lambda: [drop(box, "steer", {"message": f"3 {n}"}) for n in range(own)])
    threaded.start()
    inbox = Inbox(box)
    got: list[str] = []
    while True:
        writing = threaded.is_alive() or any(writer.poll() is None for writer in writers)
        scan = inbox.scan(0.0)
        assert scan.rejected == []
        got += messages(scan.commands)
        for command in scan.commands:
            inbox.done(command)
        if not writing and not scan.commands:
            break
    threaded.join()
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    for n in range(4):
        ours = each if n < 3 else own
        assert [m for m in got if m.startswith(f"{n} ")] == [f"{n} {k}" for k in range(ours)]
    assert left(box) == []
    figure(f"{len(got)} files of 4 writers at once: 0 lost, 0 twice, in order")


# -- row 24: writers that are slow, or die half-way

MESSAGE = '{"message": "naïve \\u00e9"}\n'.encode()


@pytest.mark.parametrize("pause", [0.2, 0.9])
def test_row_24_a_writer_that_stops_at_any_byte_is_waited_for(box: Path, pause: float) -> None:
    for cut in range(len(MESSAGE)):
        inbox = Inbox(box)
        file = box / "steer.json"
        file.write_bytes(MESSAGE[:cut])
        complete = cut >= len(MESSAGE.rstrip())
        first = inbox.scan(0.0)
        assert messages(first.commands) == (["naïve é"] if complete else [])
        if not complete:
            assert first.retry
            assert inbox.scan(pause).commands == []
            with file.open("ab") as out:
                out.write(MESSAGE[cut:])
            assert messages(inbox.scan(pause + 0.1).commands) == ["naïve é"]
        assert settle(Inbox(box))[1] == []
        assert left(box) == []


@pytest.mark.parametrize("cut", range(len(MESSAGE.rstrip())))
def test_row_24_a_file_that_stays_half_written_is_rejected_with_a_reason(box: Path, cut: int) -> None:
    (box / "steer.json").write_bytes(MESSAGE[:cut])
    inbox = Inbox(box)
    assert inbox.scan(0.0).retry
    scan = inbox.scan(1.0)
    assert scan.commands == []
    (rejected,) = scan.rejected
    assert (rejected.verb, rejected.name) == ("steer", "steer.json")
    assert (box / "rejected/steer.json").read_bytes() == MESSAGE[:cut]
    assert (box / "rejected/steer.json.reason").read_text() == rejected.reason + "\n"
    assert left(box) == []
    assert not inbox.scan(2.0).retry


def test_row_24_a_slow_writer_is_not_judged_while_it_writes(box: Path) -> None:
    inbox = Inbox(box)
    with (box / "steer.json").open("wb", buffering=0) as file:
        for i, byte in enumerate(MESSAGE.rstrip()):
            assert inbox.scan(i * 0.9) == ([], [], i > 0 or left(box) != [])
            file.write(bytes([byte]))
    assert messages(inbox.scan(100.0).commands) == ["naïve é"]


IN_TWO = """
import os, sys, time
box, round, text = sys.argv[1], sys.argv[2], sys.argv[3].encode()
files = [open(os.path.join(box, f"steer-{round}-{n}.json"), "wb", buffering=0) for n in range(len(text))]
began = time.monotonic()
for n, file in enumerate(files):
    file.write(text[:n])
time.sleep(0.3)
for n, file in enumerate(files):
    file.write(text[n:])
print(time.monotonic() - began)
"""
"""One message into as many files as it has bytes, cut at each; tells how long the longest pause was."""


def test_row_24_a_writer_of_two_pieces_is_waited_for_by_the_runner(tmp_path: Path, figure: Note) -> None:
    """Also `echo`, and a writer that never comes back."""
    text = '{"message": "carry on"}'
    rig = fake_rig(tmp_path, [["hello", {"hang": True}]])
    rig.start()
    inbox, rejected = rig.paths.inbox, rig.paths.rejected
    subprocess.run(
        ["sh", "-c", f"echo '{text}' > steer.json; printf '{text[:9]}' > steer-torn.json"], cwd=inbox, check=True
    )
    rounds, paused = 0, 1.0
    while paused > 0.8:  # on a machine that is so busy, a second of stillness comes by itself
        assert rounds < 20, "this machine is too busy"
        command = [sys.executable, "-c", IN_TWO, str(inbox), str(rounds), text]
        paused = float(subprocess.check_output(command, text=True))
        rounds += 1
    torn, reason = rejected / "steer-torn.json", rejected / "steer-torn.json.reason"
    wait_for("the verdict on the torn one", reason.exists)
    verdict = reason.stat().st_mtime - torn.stat().st_mtime

    def received() -> list[str]:
        lines = map(json.loads, rig.paths.commands.read_bytes().splitlines())
        return [line["body"]["message"] for line in lines if line["state"] == "received"]

    wait_for("the end of all", lambda: len(received()) + len(list(rejected.glob("*.reason"))) == rounds * len(text) + 2)
    got = received()
    rig.run("stop", "x", "--now")
    rig.wait_end()
    assert set(got) == {"carry on"}
    late = [path.name for path in rejected.glob("steer-*.reason") if path != reason]
    assert not [name for name in late if name.startswith(f"steer-{rounds - 1}-")], late
    figure(f"{len(text)} cuts: 0 torn ones applied, 0 dropped; the one that stayed torn rejected after {verdict:.1f} s")


# -- row 26: what is no plain file of ours


def make(box: Path, kind: str) -> None:
    path = box / "steer-1.json"
    outside = box.parent / "outside"
    outside.write_text('{"message":"secret"}')
    match kind:
        case "link":
            path.symlink_to(outside)
        case "dangling link":
            path.symlink_to("nowhere")
        case "hard link":
            path.hardlink_to(outside)
        case "folder":
            path.mkdir()
            (path / "inside").write_text("x")
        case "fifo":
            os.mkfifo(path)
        case "socket":
            with socket.socket(socket.AF_UNIX) as server:
                server.bind(str(path))
        case "device":
            os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 5))
        case "another user's":
            path.write_text('{"message":"m"}')
            os.chown(path, 12345, 12345)
        case "huge":
            with path.open("wb") as file:
                file.truncate(10 << 30)
        case "just too large":
            path.write_bytes(b'{"message":"' + b"x" * (MAX_BYTES - 13) + b'"}')
        case _:
            raise AssertionError(kind)


KINDS = {
    "link": "plain files",
    "dangling link": "plain files",
    "hard link": "hard link",
    "folder": "plain files",
    "fifo": "plain files",
    "socket": "plain files",
    "device": "plain files",
    "another user's": "another user",
    "huge": "1 MiB",
    "just too large": "1 MiB",
}
ROOTS = ("device", "another user's")
"""Only root can make these."""


@pytest.mark.parametrize("kind", KINDS)
def test_row_26_what_is_no_plain_file_is_set_aside_and_never_followed(
    box: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind in ROOTS and os.geteuid() != 0:
        pytest.skip("only root can give a file away or make a device")
    try:
        make(box, kind)
    except PermissionError:
        pytest.skip("no devices may be made here")
    drop(box, "steer", {"message": "good"})
    opened = []
    real = nofollow.open_fd

    def watching(path: Any, flags: int, *more: Any, **how: Any) -> int:
        opened.append(os.fspath(path))
        return real(path, flags, *more, **how)

    monkeypatch.setattr(nofollow, "open_fd", watching)
    commands, (rejected,) = settle(Inbox(box))
    assert messages(commands) == ["good"]
    assert KINDS[kind] in rejected.reason
    assert os.path.lexists(box / "rejected" / rejected.name)
    assert (box / "rejected" / f"{rejected.name}.reason").read_text() == rejected.reason + "\n"
    assert left(box) == []
    assert (box.parent / "outside").read_text() == '{"message":"secret"}'
    if KINDS[kind] == "plain files":
        assert not any(path.endswith("/steer-1.json") for path in opened)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_row_26_a_file_that_may_not_be_read_is_rejected(box: Path) -> None:
    (box / "stop.json").write_text("{}")
    (box / "stop.json").chmod(0)
    assert "cannot be read" in settle(Inbox(box))[1][0].reason


SWAP = """
import os, sys
box, outside = sys.argv[1:]
while True:
    for make in (lambda path: os.symlink(outside, path), lambda path: os.mkfifo(path), lambda path: open(path, "x").close()):
        try:
            make(os.path.join(box, ".new"))
            os.rename(os.path.join(box, ".new"), os.path.join(box, "steer.json"))
        except OSError:
            pass
"""


@contextmanager
def swapping(box: Path) -> Iterator[None]:
    """While this lasts steer.json is a link to outside, a FIFO and an empty file by turns."""
    with subprocess.Popen([sys.executable, "-c", SWAP, str(box), str(box.parent / "outside")]) as process:
        try:
            yield
        finally:
            process.kill()


@times(quick=500, full=10_000)
def test_row_26_a_file_that_turns_into_something_else_while_it_is_looked_at_is_never_followed(
    box: Path, count: int, figure: Note
) -> None:
    (box.parent / "outside").write_text('{"message":"secret"}')
    inbox, rejected, taken, longest = Inbox(box), list[Rejected](), list[str](), 0.0
    with swapping(box):
        wait_for("the first", lambda: left(box))
        while len(rejected) < count:
            began = time.process_time()
            scan = inbox.scan(time.monotonic())
            longest = max(longest, time.process_time() - began)
            rejected += scan.rejected
            taken += messages(scan.commands)
            for one in scan.commands:
                inbox.done(one)
    assert taken == []
    figure(f"{len(rejected)} set aside while they changed: 0 followed, 0 blocked, longest look {longest * 1000:.0f} ms")


# -- row 27: a flood


def flood(box: Path, count: int) -> None:
    """So many files: commands that change nothing, files that are no JSON, and names that are none."""
    kinds: list[tuple[str, bytes]] = [("resume-{}.json", b"{}"), ("steer-{}.json", b"{"), ("note-{}.txt", b"x")]
    for n in range(count):
        name, content = kinds[n % 3]
        fd = os.open(box / name.format(n), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        os.write(fd, content)
        os.close(fd)


@times(quick=5_000, full=100_000)
def test_row_27_a_stop_is_acted_on_in_the_middle_of_a_flood(tmp_path: Path, count: int, figure: Note) -> None:
    rig = fake_rig(tmp_path, [["hello", {"hang": True}]])
    rig.start()
    flood(rig.paths.inbox, count)
    rig.drop("stop.json", '{"id": "the-stop", "when": "now"}')
    dropped = time.time() * 1000
    state = rig.wait_end(timeout=120)
    assert (state["status"], state["stopReason"]) == ("stopped", "stop")
    (accepted,) = [e["at"] for e in rig.of("ralph_command") if e["id"] == "the-stop" and e["state"] == "accepted"]
    acted = (accepted - dropped) / 1000
    waiting = sum(1 for _ in rig.paths.inbox.iterdir())
    figure(f"{count} files, {waiting} of them still there at the end: the stop acted on after {acted:.2f} s")
    assert acted <= 2.0


def test_row_27_a_batch_is_bounded_and_control_comes_first(box: Path) -> None:
    for n in range(3000):
        (box / f"steer-{n:04}.json").write_bytes(b'{"message":"%d"}' % n)
    (box / "stop-zz.json").write_text("{}")
    inbox = Inbox(box)
    scan = inbox.scan(0.0, limit=100)
    assert len(scan.commands) == 100
    assert scan.commands[0].verb == "stop"
    assert scan.retry
    rest = settle(inbox)[0]
    assert len({c.id for c in scan.commands} | {c.id for c in rest}) == 3001


# -- row 28: orders from before a fresh start (those from before a crash: test_left_orders.py)

ORDERS = {
    "stop": ("stop.json", ""),
    "stop now": ("stop-1.json", '{"when": "now"}'),
    "pause": ("pause.json", ""),
    "abort": ("abort.json", '{"then": "stop"}'),
}


@pytest.mark.parametrize("order", ["stop", *(pytest.param(o, marks=pytest.mark.full) for o in list(ORDERS)[1:])])
def test_row_28_an_order_left_over_is_set_aside_by_a_fresh_start_and_a_message_is_not(
    tmp_path: Path, order: str
) -> None:
    rig = fake_rig(tmp_path, [f"done\n{MARKER}"])
    rig.start()
    rig.wait_end()
    rig.drop(*ORDERS[order])
    rig.drop("steer.json", '{"id": "early", "message": "from before"}')
    rig.start("-n", "2")
    assert rig.wait_end()["status"] == "completed"
    (reason,) = rig.paths.rejected.glob("*.reason")
    assert "left over from before this start" in reason.read_text()
    told = [e for e in rig.of("ralph_command") if e["state"] == "rejected"]
    assert [e["command"] for e in told] == [reason.name.partition("-")[0].partition(".")[0]]
    assert rig.steps("early")[-1] == "delivered"
    assert any(rig.project.glob(".ralph/.archive/x-*/state.json"))
