"""Files of version 0.1: today's program reads them and goes on with them; what a newer version wrote it leaves alone.

`record_files.py` has recorded them from real loops.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import orjson
import pytest

from ralph_rpc.cli.main import run
from ralph_rpc.errors import ENDED_IN_ERROR, OK
from ralph_rpc.files import records, registry
from ralph_rpc.files.atomic import Newer, Unreadable
from ralph_rpc.files.commandfile import parse_command
from ralph_rpc.files.eventreader import EventReader
from ralph_rpc.files.journal import CommandJournal
from ralph_rpc.files.paths import LoopPaths, registry_dir
from ralph_rpc.loops.status import loop_status
from ralph_rpc.model import events
from ralph_rpc.model.commands import VERBS, Verb
from ralph_rpc.model.schemas import validator
from tests.data.record_files import BODIES, HERE, ROOT
from tests.rig import fake_rig

Capture = pytest.CaptureFixture[str]
Change = Callable[[dict[str, Any]], None]
FILES = {
    "task/config.json": "config",
    "task/state.json": "state",
    "tickets/state.json": "state",
    **{str(file.relative_to(HERE)): "iteration" for file in sorted(HERE.glob("*/iterations/*.json"))},
    **{str(file.relative_to(HERE)): "ticket" for file in sorted(HERE.glob("tickets/tickets/*.json"))},
}
"""JSON files of loops, with the names of their shapes."""
REASON = "written by a newer ralph-rpc (schemaVersion 2; this one reads 1)"


def placed(root: Path, sample: str) -> LoopPaths:
    """The loop of a sample and its registry entry, as if they had been made below `root`."""
    paths = LoopPaths.of(root / "project", "x")
    shutil.copytree(HERE / sample, paths.dir)
    registry_dir().mkdir(parents=True, exist_ok=True)
    entry = registry_dir() / f"{sample}.json"
    shutil.copy(HERE / "registry" / f"{sample}.json", entry)
    for file in [entry, *paths.dir.rglob("*")]:
        if file.is_file():
            file.write_bytes(file.read_bytes().replace(ROOT.encode(), str(root).encode()))
    return paths


def change(file: Path, how: Change) -> None:
    value = orjson.loads(file.read_bytes())
    how(value)
    file.write_bytes(orjson.dumps(value))


def as_newer(value: dict[str, Any]) -> None:
    value["schemaVersion"] = 2
    value["status"] = {"of": "another shape"}


def read(paths: LoopPaths, file: str) -> object:
    """What the reader of this file makes of it; None where it has left it out."""
    name = file.split("/", 1)[1]
    if name == "config.json":
        return records.read_config(paths)
    if name == "state.json":
        return records.read_state(paths)
    stem = Path(name).stem
    if name.startswith("tickets/"):
        return records.read_tickets(paths).get(stem)
    return next((record for record in records.read_iterations(paths) if record["iteration"] == int(stem)), None)


def said(capsys: Capture, *args: str) -> tuple[int, str]:
    """Exit code and all that a command prints, stderr included."""
    code = run(list(args))
    shown = capsys.readouterr()
    return code, shown.out + shown.err


def lines_of(paths: LoopPaths) -> list[dict[str, Any]]:
    reader = EventReader.at_start(paths.events)
    try:
        found: list[dict[str, Any]] = []
        while batch := reader.read():
            found += [json.loads(line) for _, line in batch]
        return found
    finally:
        reader.close()


def test_the_samples_hold_every_kind_of_record_and_event() -> None:
    iterations = [json.loads(file.read_bytes()) for file in HERE.glob("*/iterations/*.json")]
    assert {record["kind"] for record in iterations} == {"work", "reflect", "conflict"}
    assert {record["outcome"] for record in iterations} == {"ok", "failed", "aborted", "timeout", "crashed"}
    logs = b"".join(file.read_bytes() for file in HERE.glob("*/events.jsonl*"))
    types = {json.loads(line)["type"] for line in logs.splitlines()}
    told = {get_args(shape.__annotations__["type"])[0] for shape in get_args(events.RunnerEvent)}
    assert told - {"ralph_batch"} <= types  # which came later


@pytest.mark.parametrize("sample", ["task", "tickets"])
def test_every_file_is_read_by_its_reader(tmp_path: Path, sample: str) -> None:
    paths = placed(tmp_path, sample)
    assert records.unreadable_files(paths) == []
    state = records.read_state(paths)
    assert state is not None and records.read_config(paths) is not None
    assert state["iteration"] >= len(records.read_iterations(paths)) > 3
    assert list(records.read_tickets(paths)) == (["t-1", "t-2", "t-3", "t-4"] if sample == "tickets" else [])
    found, broken = registry.entries()
    assert [one.entry["ralphDir"] for one in found] == [str(paths.dir)] and broken == []
    assert loop_status(paths).shown == "crashed"


@pytest.mark.parametrize(("file", "shape"), FILES.items())
def test_every_file_fits_the_schema_of_today(file: str, shape: str) -> None:
    validator(shape).validate_json((HERE / file).read_bytes(), strict=True)


@pytest.mark.parametrize("sample", ["task", "tickets"])
def test_every_line_of_the_log_is_read_and_fits_the_schema(tmp_path: Path, sample: str) -> None:
    lines = lines_of(placed(tmp_path, sample))
    assert lines[0]["type"] == "ralph_loop_start"
    for line in lines:
        if line["type"].startswith("ralph_"):
            validator("event").validate_python(line, strict=True)
        else:
            validator("stamp").validate_python(line["ralph"], strict=True)


def test_the_journal_knows_what_has_ended_and_what_has_not(tmp_path: Path) -> None:
    journal = CommandJournal.read(placed(tmp_path, "task").commands)
    (command,) = journal.open_commands()
    assert (command.verb, command.body.get("message"), command.sent) == ("followup", "Last, the changelog.", False)
    assert journal.knows("mine") and not journal.knows("yours")


@pytest.mark.parametrize("verb", VERBS)
def test_every_command_file_is_taken(verb: Verb) -> None:
    id, body = parse_command(verb, (HERE / "commands" / f"{verb}.json").read_bytes())
    assert id and {**body, **BODIES[verb]} == body


@pytest.mark.parametrize("sample", ["task", "tickets"])
def test_every_command_that_looks_finds_nothing_amiss(
    tmp_path: Path, sample: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    paths = placed(tmp_path, sample)
    (paths.project / ".tickets").mkdir()
    monkeypatch.chdir(paths.project)
    looks = [["status", "x"], ["list"], ["list", "--all"], ["logs", "x", "-n", "50"], ["report", "x", "--format", "md"]]
    for args in looks + [["tickets", "x"]] * (sample == "tickets"):
        code, text = said(capsys, *args)
        assert code == OK and "cannot be read" not in text and "skipped" not in text, text
    assert '"files"' not in said(capsys, "doctor", "--json")[1]


@pytest.mark.slow
@pytest.mark.usefixtures("no_leftovers")
def test_a_loop_goes_on_where_its_killed_runner_of_version_0_1_left_it(tmp_path: Path) -> None:
    rig = fake_rig(tmp_path, ["<promise>COMPLETE</promise>"])
    (rig.project / "done").touch()
    paths = placed(tmp_path, "task")
    rig.env["FAKE_PI_LOG"] = str(tmp_path / "pi.log")
    rig.run("trust", "x")  # version 0.1 did not write down which loops it had made
    rig.run("resume", "x")
    state = rig.wait_end()
    assert (state["status"], state["stopReason"], state["iteration"]) == ("completed", "verified", 10)
    assert [record["outcome"] for record in rig.records()][-2:] == ["crashed", "ok"]
    asked = map(json.loads, (tmp_path / "pi.log").read_text().splitlines())
    assert "Last, the changelog." in next(one["message"] for one in asked if one["type"] == "prompt")
    assert CommandJournal.read(paths.commands).open_commands() == []
    assert len({record["iteration"] for record in rig.records()}) == 10


@pytest.mark.parametrize("file", FILES)
def test_a_key_that_nobody_knows_is_ignored_and_a_version_that_is_missing_is_the_first(
    tmp_path: Path, file: str
) -> None:
    paths = placed(tmp_path, file.split("/")[0])
    path = paths.dir / file.split("/", 1)[1]
    change(path, lambda value: value.update(colour="blue", more={"a": [1]}))
    assert read(paths, file) == orjson.loads(path.read_bytes())
    change(path, lambda value: value.pop("schemaVersion"))
    assert read(paths, file) == orjson.loads(path.read_bytes())


@pytest.mark.parametrize("file", ["task/config.json", "task/state.json", "tickets/state.json"])
def test_a_key_that_is_missing_is_done_without_or_named_by_status(
    tmp_path: Path, file: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    paths = placed(tmp_path, file.split("/")[0])
    monkeypatch.chdir(paths.project)
    path = paths.dir / file.split("/", 1)[1]
    whole = path.read_bytes()
    refused = set()
    for key in orjson.loads(whole):
        change(path, lambda value: value.pop(key))  # noqa: B023 - called at once
        code, text = said(capsys, "status", "x")
        assert code == OK
        try:
            assert read(paths, file) is not None
        except Unreadable:
            refused.add(key)
            assert f"cannot be read: '{key}' is missing" in text
        else:
            assert "cannot be read" not in text
        path.write_bytes(whole)
    assert "schemaVersion" not in refused and len(refused) > 10


@pytest.mark.parametrize("file", ["state.json", "config.json", "iterations/008.json"])
def test_a_file_of_a_newer_version_stops_whatever_would_change_it_and_says_so(
    tmp_path: Path, file: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    pi = fake_rig(tmp_path, []).pi
    paths = placed(tmp_path, "task")
    monkeypatch.chdir(paths.project)
    change(paths.dir / file, as_newer)
    before = {path: path.read_bytes() for path in paths.dir.rglob("*") if path.is_file() and path.suffix != ".lock"}
    code, text = said(capsys, "resume", "x")
    assert code == ENDED_IN_ERROR and f"{paths.dir / file}: {REASON}" in text and "pgrade ralph-rpc" in text
    code, text = said(capsys, "start", "x", "-m", "anew", "--pi", pi)
    assert code != OK and REASON in text
    text = said(capsys, "doctor", "--fix")[1]
    assert f"{paths.dir / file}: {REASON}" in " ".join(text.split())
    assert {path: path.read_bytes() for path in before} == before


def test_a_loop_of_a_newer_version_is_not_called_crashed_nor_removed_nor_repaired(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    paths = placed(tmp_path, "task")
    monkeypatch.chdir(paths.project)
    change(paths.state, as_newer)
    head, *facts = said(capsys, "status", "x")[1].splitlines()
    assert head == f"x: unknown: state.json cannot be read: {REASON}"
    assert "  what next   upgrade ralph-rpc, or use the version that wrote it" in facts
    status = json.loads(said(capsys, "status", "x", "--json")[1])
    assert (status["shown"], status["problem"]) == ("unknown", REASON)
    text = said(capsys, "list")[1]
    assert "crashed" not in text and f"{paths.state}: {REASON}" in text
    code, text = said(capsys, "wait", "x", "--timeout", "1")
    assert code == ENDED_IN_ERROR and "unknown" in text
    for args in (["clean", "--yes"], ["clean", "x", "--yes"]):
        assert f"keep     x: its state.json was {REASON}" in said(capsys, *args)[1]
    assert paths.state.exists()
    torn = paths.events.read_bytes() + b'{"type'
    paths.events.write_bytes(torn)
    said(capsys, "doctor", "--fix")
    assert paths.events.read_bytes() == torn


def test_the_entry_of_a_newer_version_is_named_by_list_and_neither_overwritten_nor_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    paths = placed(tmp_path, "task")
    shutil.rmtree(paths.dir)
    monkeypatch.chdir(tmp_path)
    (old,) = registry_dir().iterdir()
    entry = old.rename(registry.entry_path(paths.project, "x"))
    mine, _ = registry.entries()
    change(entry, as_newer)
    before = entry.read_bytes()
    assert f"{entry}: {REASON}" in said(capsys, "list", "--all")[1]
    said(capsys, "clean", "--yes")
    said(capsys, "doctor", "--fix")
    assert registry.publish(None, mine[0].entry) != entry
    assert entry.read_bytes() == before


def test_the_runner_does_not_set_aside_what_a_newer_version_wrote(tmp_path: Path) -> None:
    paths = placed(tmp_path, "task")
    change(paths.state, as_newer)
    with pytest.raises(Newer):
        records.refuse_newer(paths)
    with pytest.raises(Newer):
        from ralph_runner.shell.recover import recover

        config = records.read_config(paths)
        assert config is not None
        recover(paths, config, "task.md", resume=True, wall=0)
    assert {path.name for path in paths.dir.iterdir()} == {path.name for path in (HERE / "task").iterdir()}
