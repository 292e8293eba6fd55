"""A log that several pis write at once: a long line comes whole, between whole lines of the others."""

from pathlib import Path

import orjson

from ralph_rpc.files.eventlog import EventLog
from ralph_runner.shell.wholelines import WholeLines


def test_a_line_in_pieces_keeps_nobody_waiting_and_is_written_whole(tmp_path: Path) -> None:
    log = EventLog.open(tmp_path / "events.jsonl", limit=1 << 20, keep=2)
    one, other = WholeLines(log), WholeLines(log)
    one.begin_line()
    one.extend(b'{"type":"long","text":"')
    other.append(b'{"type":"short"}\n')
    one.extend(b"x" * 1000)
    log.append_event({"type": "ralph_notice"})
    end = one.end_line(b'"}\n')
    assert end == log.offset
    log.close()
    lines = (tmp_path / "events.jsonl").read_bytes().splitlines()
    assert [orjson.loads(line)["type"] for line in lines] == ["short", "ralph_notice", "long"]


def test_a_line_whose_end_never_comes_is_kept_as_unparsed(tmp_path: Path) -> None:
    log = EventLog.open(tmp_path / "events.jsonl", limit=1 << 20, keep=2)
    lines = WholeLines(log)
    lines.begin_line()
    lines.extend(b'{"type":"half')
    lines.abandon_line()
    lines.append(b'{"type":"next"}\n')
    log.close()
    kept = [orjson.loads(line) for line in (tmp_path / "events.jsonl").read_bytes().splitlines()]
    assert kept == [{"type": "ralph_unparsed", "raw": '{"type":"half'}, {"type": "next"}]
