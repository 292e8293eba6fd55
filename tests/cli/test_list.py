"""`list`: every loop as what it is, whatever its files say."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ralph_rpc.cli.list import loops_table as drawn
from ralph_rpc.cli.list import rows_of_project
from ralph_rpc.cli.main import run
from ralph_rpc.files.paths import registry_dir
from ralph_rpc.machine import identity
from ralph_rpc.terminal.width import width
from tests.cli import forged
from tests.effort import examples

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "web"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def table(capsys: Capture) -> dict[str, dict[str, str]]:
    """The table that was printed, by loop name."""
    titles, *lines = (line.split("  ") for line in capsys.readouterr().out.splitlines())
    rows = [[cell.strip() for cell in line if cell.strip()] for line in lines]
    names = [title.strip() for title in titles if title.strip()]
    return {row[0]: dict(zip(names, row, strict=True)) for row in rows}


def test_a_row_tells_name_project_kind_status_progress_cost_time_and_runner(project: Path, capsys: Capture) -> None:
    paths = forged.loop(project, alive=True)
    with forged.runner_of(paths):
        assert run(["list"]) == 0
    row = table(capsys)["api"]
    assert row.pop("SEEN") in ("now", "2s ago", "3s ago", "4s ago", "5s ago")
    assert row == {
        "NAME": "api",
        "PROJECT": str(project),
        "KIND": "task",
        "STATUS": "running",
        "ITERATION": "3/50",
        "COST": "$1.25",
        "ELAPSED": "1h02m",
        "RUNNER": "alive",
    }


def test_dead_stale_crashed_and_ended_loops_are_shown_as_what_they_are(project: Path, capsys: Capture) -> None:
    stale = forged.loop(project, "stale", alive=True, updatedAt=forged.ago(300))
    forged.loop(project, "crashed", status="running", updatedAt=forged.ago(300))
    forged.loop(project, "done", status="completed", stopReason="marker")
    forged.loop(project, "broke", status="error", stopReason="auth")
    with forged.runner_of(stale):
        assert run(["list"]) == 0
    shown = {name: (row["STATUS"], row["RUNNER"]) for name, row in table(capsys).items()}
    assert shown == {
        "stale": ("stale", "stale"),
        "crashed": ("crashed", "dead"),
        "done": ("completed", "-"),
        "broke": ("error", "-"),
    }


def test_all_adds_the_registry_and_names_no_loop_twice(project: Path, tmp_path: Path, capsys: Capture) -> None:
    forged.loop(project, status="stopped")
    other = tmp_path / "other"
    for name in ("lives", "hangs", "died", "failed", "reused"):
        (other / ".ralph" / name).mkdir(parents=True)
    forged.register("own", forged.entry(project))
    forged.register("a", forged.entry(other, "lives", alive=True))
    forged.register("b", forged.entry(other, "hangs", alive=True, lastSeen=forged.ago(100)))
    forged.register("c", forged.entry(other, "died", lastSeen=forged.ago(100)))
    forged.register("d", forged.entry(other, "failed", status="error"))
    # The pid was given to another process, which started later.
    forged.register("e", forged.entry(other, "reused", alive=True, pidStartTime=1.0))
    forged.register("f", forged.entry(tmp_path / "moved", "moved"))
    assert run(["list", "--all"]) == 0
    shown = {name: (row["STATUS"], row["RUNNER"]) for name, row in table(capsys).items()}
    assert shown == {
        "api": ("stopped", "-"),
        "lives": ("running", "alive"),
        "hangs": ("stale", "stale"),
        "died": ("crashed", "dead"),
        "failed": ("error", "-"),
        "reused": ("crashed", "dead"),
        "moved": ("gone", "dead"),
    }
    assert run(["list"]) == 0
    assert list(table(capsys)) == ["api"]


def test_broken_files_cost_one_line_each_on_stderr_and_no_row(project: Path, tmp_path: Path, capsys: Capture) -> None:
    forged.loop(project, status="stopped")
    forged.loop(project, "torn").state.write_bytes(b'{"schemaVersion": 1, "na')
    forged.register("a", forged.entry(tmp_path / "other", "good", alive=True))
    broken = [b"", b"null", b"[1]", b'{"pid":', b"\xff\xfe", b"{}", b'{"pid":1e999}', b"[" * 50_000]
    for number, content in enumerate(broken):
        forged.register(f"broken{number}", content)
    (registry_dir() / "folder.json").mkdir()
    (registry_dir() / "link.json").symlink_to("/nonexistent")
    os.mkfifo(registry_dir() / "fifo.json")
    assert run(["list", "--all"]) == 0
    output = capsys.readouterr()
    assert output.out.count("\n") == 4 and "good" in output.out and "api" in output.out
    lines = output.err.splitlines()
    assert all(line.startswith("ralph-rpc: skipped ") for line in lines)
    for name in ["torn/state.json", "fifo", "folder", *(f"broken{n}" for n in range(len(broken)))]:
        assert sum(name in line for line in lines) == 1, name


def test_numbers_and_times_beyond_all_sense_do_no_harm(project: Path, tmp_path: Path, capsys: Capture) -> None:
    odd: dict[str, Any] = {"cost": 1e308, "iteration": 2**60, "startedAt": "soon", "lastSeen": "9999-12-31T23:59:59Z"}
    forged.register("odd", forged.entry(tmp_path / "other", "odd", alive=True, **odd))
    forged.loop(project, status="stopped", elapsedMs=2**62, updatedAt="0001-01-01", maxIterations=-1)
    assert run(["list", "--all"]) == 0
    assert set(table(capsys)) == {"odd", "api"}


def test_json_is_an_array_of_rows(project: Path, tmp_path: Path, capsys: Capture) -> None:
    forged.loop(project, status="stopped")
    forged.register("a", forged.entry(tmp_path / "other", "x", alive=True))
    assert run(["list", "--all", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["api"]["counted"] == 3 and rows["api"]["iteration"] == 4 and rows["api"]["cost"] == 1.25
    assert rows["x"]["counted"] is None and rows["x"]["runner"] == "alive" and rows["x"]["shown"] == "running"
    assert set(rows["x"]) == set(rows["api"])


def test_no_loops_is_a_helpful_line_and_an_empty_array(project: Path, capsys: Capture) -> None:
    assert run(["list"]) == 0
    output = capsys.readouterr()
    assert output.out == "" and "ralph-rpc start" in output.err
    assert run(["list", "--all", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_the_loops_of_a_project_are_seen_from_its_subfolders(
    project: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    forged.loop(project, status="stopped")
    (project / "src" / "deep").mkdir(parents=True)
    monkeypatch.chdir(project / "src" / "deep")
    assert run(["list"]) == 0
    assert list(table(capsys)) == ["api"]


def test_a_narrow_terminal_gets_the_end_of_a_long_path(project: Path) -> None:
    forged.loop(project / ("deep/" * 30) / "end", status="stopped")
    rows, _ = rows_of_project(project / ("deep/" * 30) / "end")
    lines = drawn(rows, colour=False, columns=100).splitlines()
    assert max(map(len, lines)) <= 100
    assert "/deep/end  task" in lines[1]
    assert str(project) in drawn(rows, colour=False, columns=None)


def test_a_terminal_of_eighty_columns_keeps_what_matters_of_a_long_name(project: Path) -> None:
    name = "a-name-of-22-letters-x"
    forged.loop(project, name, status="stopped")
    rows, _ = rows_of_project(project)
    title, line = drawn(rows, colour=False, columns=80).splitlines()
    assert max(map(len, (title, line))) <= 80
    assert title.split()[:1] == ["NAME"] and {"STATUS", "ITERATION", "COST", "ELAPSED"} <= set(title.split())
    assert "KIND" not in title and name in line and "KIND" in drawn(rows, colour=False, columns=None)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=examples(40))
@given(text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30))
def test_hostile_texts_of_an_entry_are_printed_inert(tmp_path: Path, capsys: Capture, text: str) -> None:
    hostile = dict.fromkeys(("name", "cwd", "model", "provider", "startedAt"), f"\x1b]0;\x07\x9b\u202e{text}\n")
    forged.register("hostile", forged.entry(tmp_path / "other", "x", alive=True, **hostile))
    for args in (["list", "--all"], ["list", "--all", "--json"]):
        assert run(args) == 0
        shown = "".join(capsys.readouterr())
        assert not {char for char in shown if char != "\n" and (ord(char) < 0x20 or 0x7F <= ord(char) < 0xA0)}
        assert "\u202e" not in shown


def test_columns_stand_under_their_titles_whatever_is_in_them(project: Path) -> None:
    for name in ("plain", "long-name-of-a-loop", "x"):
        forged.loop(project, name, status="stopped")
    rows, _ = rows_of_project(project)
    for row, kind in zip(rows, ("日本", "task", "e\u0301"), strict=True):
        row["kind"] = kind
    bare = drawn(rows, colour=False, columns=None)
    title, *lines = bare.splitlines()
    assert {width(line[: line.index("stopped")]) for line in lines} == {title.index("STATUS")}
    # Colours take no room.
    for row in rows:
        row["shown"] = "error"
    coloured = drawn(rows, colour=True, columns=None)
    assert "\x1b[1mNAME" in coloured and coloured.count("\x1b[31merror") == 3
    assert re.sub(r"\x1b\[\d+m", "", coloured) == drawn(rows, colour=False, columns=None)


def test_an_entry_of_a_dead_runner_costs_one_file_and_no_look_at_a_process(
    project: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(200):
        forged.register(f"e{number}", forged.entry(tmp_path / "other", f"loop{number}"))
    opened: list[str] = []
    real = os.open

    def counted(path: Any, *args: Any, **kwargs: Any) -> int:
        opened.append(os.fspath(path))
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", counted)
    monkeypatch.setattr(identity, "start_time", pytest.fail)
    assert run(["list", "--all"]) == 0
    assert capsys.readouterr().out.count("\n") == 201
    assert len(opened) <= 200 + 5, opened
