"""`logs`: readable and raw, from the right place, followed over rotations until the end."""

import io
import os
import pty
import select
import signal
import subprocess
import time
from pathlib import Path

import orjson
import pytest

from ralph_rpc.cli.logs import follow
from ralph_rpc.cli.main import run
from ralph_rpc.files.eventlog import EventLog
from ralph_rpc.files.paths import LoopPaths
from tests.cli import forged
from tests.cli.forged import Json

ENDED = {"type": "ralph_loop_end", "at": 9_000, "status": "stopped", "stopReason": "stop", "error": None}


def iteration(number: int, *inner: Json, text: str | None = None, outcome: str = "ok") -> list[Json]:
    """One whole iteration of a log."""
    stamp = {"at": 1_000 * number, "iteration": number}
    block = {"type": "text", "text": text or f"text {number}"}
    message = {"role": "assistant", "content": [block], "stopReason": "stop"}
    numbers = {"turns": 2, "toolCalls": 1, "tokensIn": 12_300, "tokensOut": 450, "cost": 0.125}
    return [
        {"type": "ralph_iteration_start", "at": 1_000 * number, "iteration": number, "kind": "work"},
        *inner,
        {"type": "message_end", "message": message, "ralph": stamp},
        {"type": "ralph_iteration_end", "at": 2_000, "iteration": number, "outcome": outcome, "durationMs": 61_000}
        | numbers,
    ]


def tool_call(call: str, command: str, output: str) -> list[Json]:
    start = {"type": "tool_execution_start", "toolCallId": call, "toolName": "bash", "args": {"command": command}}
    result = {"content": [{"type": "text", "text": output}]}
    end = {"type": "tool_execution_end", "toolCallId": call, "toolName": "bash", "result": result, "isError": False}
    return [start | {"ralph": {"at": 1_000}}, end | {"ralph": {"at": 2_100}}]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_an_iteration_reads_as_text_tool_lines_and_borders_with_the_cost(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = forged.loop(project, status="stopped")
    forged.write_log(paths, [*iteration(1, *tool_call("a", "make test", "12 passed\n")), ENDED])
    assert run(["logs", "api"]) == 0
    lines = [line.rstrip("─ ") for line in capsys.readouterr().out.splitlines()]
    assert lines[0].startswith("── iteration 1 (work) 1970-01-01 ")
    assert lines[1:] == [
        "▸ bash make test  ok 1.1s  12 passed",
        "text 1",
        "── iteration 1 ok: 1m01s, 2 turns, 1 tool calls, 12.8k tokens, $0.12",
        "── loop stopped (stop)",
    ]


@pytest.mark.parametrize("flag", ["--raw", "--json"])
def test_raw_lines_are_the_bytes_of_the_log(project: Path, flag: str) -> None:
    paths = forged.loop(project)
    log = b'{"type":"x",  "odd":"\xc2\x9b31m"}\n{"type":"ralph_unparsed","raw":"\\u001b"}\n'
    paths.events.write_bytes(log + b'{"torn')
    command, env = forged.program("logs", "api", flag)
    done = subprocess.run(command, env=env, capture_output=True, cwd=project, check=True)
    assert done.stdout == log


def test_n_counts_events_from_the_end(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    forged.write_log(forged.loop(project), [{"type": "x", "n": n} for n in range(300)])
    assert run(["logs", "api", "--raw", "-n", "2"]) == 0
    assert [orjson.loads(line)["n"] for line in capsys.readouterr().out.splitlines()] == [298, 299]


def test_it_begins_with_the_last_iteration_that_has_ended(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = forged.loop(project, iteration=3)
    ended = [iteration(1), iteration(2)]
    offsets = forged.write_log(paths, [*ended[0], *ended[1], *iteration(3)[:-1]])
    forged.write_record(paths, 1, offsets[0], offsets[3])
    forged.write_record(paths, 2, offsets[3], offsets[6])
    assert run(["logs", "api"]) == 0
    shown = capsys.readouterr().out
    assert "text 1" not in shown and "text 2" in shown and "text 3" in shown


def test_a_loop_without_a_log_shows_nothing(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    forged.loop(project)
    assert run(["logs", "api"]) == 0
    assert capsys.readouterr() == ("", "")


def test_one_iteration_is_found_by_its_record_and_a_running_one_by_the_record_before(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = forged.loop(project, iteration=3)
    between = {"type": "ralph_notice", "at": 1, "level": "info", "message": "between"}
    events = [between, *iteration(1), between, *iteration(2), between, *iteration(3)[:-1]]
    offsets = forged.write_log(paths, events)
    # Whether the borders lie within the recorded span is the runner's affair; both are shown.
    forged.write_record(paths, 1, offsets[1], offsets[4])
    forged.write_record(paths, 2, offsets[5], offsets[7])
    for number in (1, 2, 3):
        assert run(["logs", "api", "--raw", "--iteration", str(number)]) == 0
        shown = [orjson.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert shown == (iteration(number) if number < 3 else iteration(3)[:-1])


def test_an_iteration_that_is_not_there_is_an_error(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = forged.loop(project, iteration=2)
    forged.write_log(paths, iteration(1))
    assert run(["logs", "api", "--iteration", "7"]) == 1
    assert "has no iteration 7. its newest is 2" in capsys.readouterr().err.lower()
    assert run(["logs", "api", "--iteration", "1", "--since", "1h"]) == 2
    assert run(["logs", "api", "--iteration", "1", "--ticket", "ab-1"]) == 2
    # Its log was rotated away: what is left begins later.
    forged.write_record(paths, 1, 0, 500)
    opened = {"type": "ralph_log_open", "at": 1, "base": 9_000}
    forged.write_log(paths, [opened, *iteration(2)])
    capsys.readouterr()
    assert run(["logs", "api", "--iteration", "1"]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "log of iteration 1 is gone" in shown.err


def test_bytes_that_rotation_took_are_reported(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = forged.loop(project, iteration=1)
    forged.write_record(paths, 1, 7_000, 9_000)
    forged.write_log(paths, [{"type": "ralph_log_open", "at": 1, "base": 8_000}, *iteration(1)])
    assert run(["logs", "api", "--iteration", "1"]) == 0
    shown = capsys.readouterr()
    assert "1.0k bytes of the log are gone" in shown.err
    assert "text 1" in shown.out


def following(paths: LoopPaths, *args: str) -> subprocess.Popen[bytes]:
    command, env = forged.program("logs", paths.name, "-f", *args)
    return subprocess.Popen(command, env=env, cwd=paths.project, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def read_until(stream: int, wanted: bytes) -> bytes:
    """What comes from a descriptor up to and with `wanted`."""
    data = b""
    deadline = time.monotonic() + 30
    while wanted not in data:
        ready, _, _ = select.select([stream], [], [], max(0, deadline - time.monotonic()))
        assert ready, f"{wanted!r} never came: {data!r}"
        part = os.read(stream, 1 << 16)
        assert part, f"it ended before {wanted!r}: {data!r}"
        data += part
    return data


def test_following_misses_and_repeats_nothing_over_rotations_and_ends_with_the_loop(project: Path) -> None:
    paths = forged.loop(project, alive=True)
    log = EventLog.open(paths.events, limit=20_000, keep=100)
    with forged.runner_of(paths):
        log.append_event({"type": "x", "n": 0})
        process = following(paths, "--raw")
        assert process.stdout is not None
        data = read_until(process.stdout.fileno(), b'"n":0}\n')
        for n in range(1, 5_001):
            log.append_event({"type": "x", "n": n})
            if n % 1_000 == 0:  # let it read now and then, so that it is rotated under in the middle
                data += read_until(process.stdout.fileno(), b'"n":%d}\n' % n)
        log.append_event(ENDED)
        rest, errors = process.communicate(timeout=30)
    log.close()
    assert len(list(paths.dir.glob("events.jsonl.*"))) > 3
    shown = [orjson.loads(line) for line in (data + rest).splitlines()]
    assert [event["n"] for event in shown if event["type"] == "x"] == list(range(5_001))
    assert shown[-1] == ENDED
    assert (process.returncode, errors) == (0, b"")


def test_following_goes_on_over_an_earlier_end_when_the_loop_was_resumed(project: Path) -> None:
    paths = forged.loop(project, alive=True)
    began = {"type": "ralph_loop_start", "at": 1, "name": "api", "pid": 1, "resumed": True}
    forged.write_log(paths, [ENDED, began, *iteration(1)])
    with forged.runner_of(paths):
        process = following(paths)
        assert process.stdout is not None
        read_until(process.stdout.fileno(), b"iteration 1 ok")
        with paths.events.open("ab") as file:
            file.write(orjson.dumps(ENDED) + b"\n")
        rest, errors = process.communicate(timeout=30)
    assert "loop stopped (stop)" in rest.decode()
    assert (process.returncode, errors) == (0, b"")


def test_follow_tells_whether_it_saw_the_end(project: Path) -> None:
    paths = forged.loop(project)
    offsets = forged.write_log(paths, [*iteration(1), *iteration(2)])
    out = io.StringIO()
    assert follow(paths, out, from_offset=offsets[3], until_end=False) is False
    assert "text 1" not in out.getvalue() and "text 2" in out.getvalue()
    assert follow(paths, io.StringIO()) is False  # its runner is dead
    forged.write_log(paths, [*iteration(1), ENDED])
    assert follow(paths, io.StringIO()) is True


def test_following_a_running_iteration_ends_with_it(project: Path) -> None:
    paths = forged.loop(project, alive=True, iteration=1)
    first, last = iteration(1)[:-1], iteration(1)[-1]
    forged.write_log(paths, first)
    with forged.runner_of(paths):
        process = following(paths, "--iteration", "1")
        assert process.stdout is not None
        read_until(process.stdout.fileno(), b"text 1")
        with paths.events.open("ab") as file:
            file.write(orjson.dumps(last) + b"\n" + orjson.dumps(iteration(2)[0]) + b"\n")
        rest, _ = process.communicate(timeout=30)
    assert "iteration 1 ok" in rest.decode() and "iteration 2" not in rest.decode()
    assert process.returncode == 0


def test_following_a_loop_whose_runner_is_dead_says_so_and_ends(project: Path) -> None:
    paths = forged.loop(project, status="running")
    forged.write_log(paths, iteration(1))
    out, errors = following(paths).communicate(timeout=30)
    assert b"text 1" in out
    assert errors == b"ralph-rpc: the runner is gone. Try: ralph-rpc resume api\n"


def test_text_streams_before_its_message_ends(project: Path) -> None:
    paths = forged.loop(project, alive=True)
    change = {"type": "text_delta", "contentIndex": 0, "delta": "half a sen"}
    start = {"type": "message_start", "message": {"role": "assistant", "content": []}}
    forged.write_log(paths, [start, {"type": "message_update", "assistantMessageEvent": change}])
    with forged.runner_of(paths):
        process = following(paths)
        assert process.stdout is not None
        read_until(process.stdout.fileno(), b"half a sen")
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=30)
    assert (process.returncode, rest, errors) == (130, b"\n", b"")


@pytest.mark.parametrize("raw", [(), ("--raw",)])
def test_a_reader_that_goes_away_ends_it_quietly(project: Path, raw: tuple[str, ...]) -> None:
    paths = forged.loop(project, alive=True)
    forged.write_log(paths, [event for n in range(2_000) for event in iteration(n, text="x" * 200)])
    with forged.runner_of(paths):
        process = following(paths, "-n", "6000", *raw)
        assert process.stdout is not None and process.stderr is not None
        read_until(process.stdout.fileno(), b"\n")
        process.stdout.close()
        assert process.stderr.read() == b""
        process.stderr.close()
        process.wait(timeout=30)


def on_a_terminal(project: Path, args: list[str], **env: str) -> bytes:
    """All that the program writes to a terminal."""
    command, whole = forged.program(*args)
    ours, theirs = pty.openpty()
    process = subprocess.Popen(command, env=whole | env, cwd=project, stdout=theirs)
    os.close(theirs)
    data = b""
    try:
        while part := os.read(ours, 1 << 16):
            data += part
    except OSError:  # EIO: the other side is closed
        pass
    os.close(ours)
    assert process.wait(timeout=30) == 0
    return data


def test_colours_are_for_terminals_and_never_with_no_color(project: Path) -> None:
    paths = forged.loop(project, status="stopped")
    forged.write_log(paths, iteration(1, *tool_call("a", "make", "\x1b[2Jdone")))
    coloured = on_a_terminal(project, ["logs", "api"], TERM="xterm", NO_COLOR="")
    assert b"\x1b[36m" in coloured and b"\x1b[2J" not in coloured
    assert b"\x1b" not in on_a_terminal(project, ["logs", "api"], TERM="xterm", NO_COLOR="1")


def test_raw_lines_on_a_terminal_are_the_same_json_without_active_characters(project: Path) -> None:
    paths = forged.loop(project, status="stopped")
    paths.events.write_bytes('{"type":"x","text":"\x9b2J\u202e\x7f"}\n'.encode())
    shown = on_a_terminal(project, ["logs", "api", "--raw"]).decode()
    assert shown == '{"type":"x","text":"\\u009b2J\\u202e\\u007f"}\r\n'


def side_by_side(tmp_path: Path) -> LoopPaths:
    """A ticket loop in which two agents write at once."""
    config = forged.CONFIG | {"parallel": 2}
    paths = forged.loop(tmp_path, status="stopped", kind="tickets", config=config)
    events: list[Json] = []
    for n, ticket in ((1, "a-1"), (2, "b-2")):
        start = {"type": "ralph_iteration_start", "at": 1, "iteration": n, "kind": "work", "ticket": ticket}
        events.append(start)
    for n, ticket, word in ((1, "a-1", "one "), (2, "b-2", "uno "), (1, "a-1", "two\n"), (2, "b-2", "due\n")):
        stamp = {"at": 1, "iteration": n, "ticket": ticket}
        delta = {"type": "text_delta", "contentIndex": 0, "delta": word}
        events.append({"type": "message_update", "assistantMessageEvent": delta, "ralph": stamp})
    events.append(
        {"type": "ralph_verify", "at": 1, "command": "x", "exitCode": 0, "durationMs": 5, "tail": "", "ticket": "b-2"}
    )
    forged.write_log(paths, events)
    paths.tickets.mkdir()
    return paths


def test_agents_that_write_at_once_are_told_line_by_line_with_their_tickets(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    side_by_side(project)
    assert run(["logs", "api", "-n", "20"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "a-1 | …one two" in lines and "b-2 | …uno due" in lines


def test_the_log_of_one_ticket_holds_nothing_of_another(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = side_by_side(project)
    record = {
        "ticket": "b-2",
        "title": "B",
        "status": "closed",
        "attempt": 1,
        "sessionId": None,
        "pid": None,
        "pidStartTime": None,
        "worktreePath": None,
        "branch": None,
        "baseCommit": None,
        "startedAt": "",
        "endedAt": "",
        "durationMs": 0,
        "returnCode": 0,
        "terminationMethod": "eof",
        "error": None,
    }
    (paths.tickets / "b-2.json").write_bytes(orjson.dumps(record))
    assert run(["logs", "api", "--ticket", "b-2"]) == 0
    out = capsys.readouterr().out
    assert "uno due" in out and "verified in 5ms" in out and "one" not in out.replace("uno", "")
    assert run(["logs", "api", "--ticket", "c-3"]) == 1
    assert "has not worked on a ticket 'c-3'" in capsys.readouterr().err


def test_the_log_of_one_iteration_leaves_out_those_beside_it(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    side_by_side(project)
    assert run(["logs", "api", "--iteration", "1"]) == 0
    out = capsys.readouterr().out
    assert "one two" in out and "uno" not in out and "verified" not in out


def notices(*ages_s: float, **more: str) -> list[Json]:
    """A notice for each age in seconds, which is also what it says."""
    now = time.time() * 1000
    return [
        {"type": "ralph_notice", "at": int(now - age * 1000), "level": "info", "message": f"{age:g} s ago"} | more
        for age in ages_s
    ]


@pytest.mark.parametrize(
    ("since", "first"),
    [("10m", "500 s ago"), ("2h", "4000 s ago"), ("30", "10 s ago"), ("1970-01-01T00:00", "9000 s ago"), ("0s", None)],
)
def test_since_begins_with_the_first_line_of_that_time(
    project: Path, capsys: pytest.CaptureFixture[str], since: str, first: str | None
) -> None:
    forged.write_log(forged.loop(project, status="stopped"), notices(9_000, 4_000, 500, 10))
    assert run(["logs", "--since", since]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert (lines[0].removeprefix("· ") if lines else None) == first
    assert not lines or lines[-1] == "· 10 s ago"


def test_since_starts_to_read_at_the_last_iteration_that_had_begun_by_then(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = forged.loop(project, status="stopped")
    offsets = forged.write_log(paths, notices(900, 700, 500, 10))
    forged.write_record(paths, 1, offsets[1], offsets[2])
    record = paths.iterations / "001.json"
    record.write_bytes(orjson.dumps(orjson.loads(record.read_bytes()) | {"startedAt": forged.ago(700)}))
    assert run(["logs", "api", "--since", "10m"]) == 0
    assert [line for line in capsys.readouterr().out.splitlines()] == ["· 500 s ago", "· 10 s ago"]


@pytest.mark.parametrize("since", ["soon", "25:00", "2026-13-01T10:00", "-5m", ""])
def test_a_time_that_is_none_is_refused(project: Path, capsys: pytest.CaptureFixture[str], since: str) -> None:
    forged.loop(project, status="stopped")
    assert run(["logs", "api", f"--since={since}"]) == 2
    assert "expected a time such as 10m" in capsys.readouterr().err


def test_the_last_lines_of_one_ticket(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = forged.loop(project, status="stopped", kind="tickets")
    paths.tickets.mkdir()
    for ticket in ("a-1", "a-2"):
        record = orjson.loads((forged.ROOT / "tests/data/files-0.1/tickets/tickets/t-1.json").read_bytes())
        (paths.tickets / f"{ticket}.json").write_bytes(orjson.dumps(record | {"ticket": ticket}))
    one, other = notices(900, 800, 700, ticket="a-1"), notices(850, 750, 650, ticket="a-2")
    forged.write_log(paths, [event for pair in zip(one, other, strict=True) for event in pair])
    for args, told in (
        (["-n", "2"], ["800", "700"]),
        (["--tail", "2"], ["800", "700"]),
        (["-n", "0"], []),
        (["-n", "9"], ["900", "800", "700"]),
        (["--since", "830s"], ["800", "700"]),
        (["--since", "830s", "-n", "1", "-f"], ["700"]),
    ):
        assert run(["logs", "api", "--ticket", "a-1", *args]) == 0
        assert capsys.readouterr().out.split() == [word for age in told for word in ("·", age, "s", "ago")], args
