"""`tickets`: the queue as the runner sees it, bad tickets with their place, harmless to a terminal."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from ralph_rpc.cli.tickets import tickets_command
from ralph_rpc.errors import NoSuchLoop, UsageError
from ralph_rpc.files.paths import LoopPaths
from tests.cli import forged
from tests.tickets.folder import write

Show = Callable[..., str]
PROBE = """
import sys
from ralph_rpc.cli.tickets import tickets_command
tickets_command.main(sys.argv[1:], standalone_mode=False)
print("LOADED", *sorted(sys.modules))
"""
HEAVY = {"pydantic", "asyncio", "watchdog", "psutil", "rich", "textual", "yaml", "platformdirs"}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "web"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("TICKETS_DIR", raising=False)
    return folder


@pytest.fixture
def show(capsys: pytest.CaptureFixture[str]) -> Show:
    """What `ralph-rpc tickets ARGS` prints."""

    def shown(*args: str) -> str:
        tickets_command.main(list(args), standalone_mode=False)
        return capsys.readouterr().out

    return shown


def ticket_loop(project: Path, name: str = "api", config: dict[str, Any] | None = None, **changes: Any) -> LoopPaths:
    """A ticket loop as files."""
    paths = forged.loop(project, name, kind="tickets", **changes)
    (paths.dir / "tickets").mkdir()
    paths.config.write_bytes(orjson.dumps(forged.CONFIG | (config or {})))
    return paths


def record(paths: LoopPaths, id: str, status: str, **members: Any) -> None:
    file = paths.dir / "tickets" / f"{id}.json"
    file.write_bytes(orjson.dumps({"ticket": id, "status": status, "attempt": 1} | members))


def test_without_a_loop_it_tells_what_is_ready_and_what_is_in_the_way(project: Path, show: Show) -> None:
    folder = project / ".tickets"
    write(folder, "a-1", "Second", tags=["component:cli"])
    write(folder, "a-2", "First", tags=["component:cli", "ui"], priority=0)
    write(folder, "a-10", "Later", deps=["a-1"])
    (folder / "a-3.md").write_text("---\nid: a-3\nstatus: in progress\nassignee: @joe\n---\n# Untagged\n")
    write(folder, "a-4", "Old", status="closed")
    assert show().splitlines() == [
        "STATE    PRIO  TICKET  STATUS       ASSIGNEE     TITLE     COMPONENTS  WHY",
        "ready    0     a-2     open         Test Person  First     cli",
        "ready    2     a-1     open         Test Person  Second    cli         component:cli goes to a-2 first",
        (
            "waiting  2     a-3     in_progress  @joe         Untagged  -           is worked on by @joe; "
            "--take-in-progress takes it"
        ),
        "waiting  2     a-10    open         Test Person  Later     -           waits for a-1 (ready)",
        "5 tickets: 2 ready, 2 waiting, 1 done",
    ]


def test_the_projects_own_component_tags_are_shown(project: Path, show: Show) -> None:
    write(project / ".tickets", "a-1", tags=["component:x", "area:y"])
    (project / ".tf" / "config").mkdir(parents=True)
    settings = project / ".tf" / "config" / "settings.json"
    for text, shown in (('{"componentTagPrefix": "area:"}', ["y"]), ("{", ["x"])):
        settings.write_text(text)
        assert json.loads(show("--json"))["tickets"][0]["components"] == shown
    paths = ticket_loop(project, config={"componentPrefix": "component:"})
    assert paths.dir.exists() and json.loads(show("--json"))["tickets"][0]["components"] == ["x"]


def test_bad_tickets_are_named_with_file_and_line_and_the_rest_is_shown(
    project: Path, show: Show, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = project / ".tickets"
    write(folder, "a-1", deps=["gone"])
    (folder / "x.md").write_text("---\nid: x\nstatus: stuck\n---\n")
    (folder / "\udcff.md").write_bytes(b"---\nid: y\n---\n\xff")
    (folder / "README.md").write_text("no ticket")
    monkeypatch.chdir(project)
    assert show().splitlines()[1:] == [
        "blocked  2     a-1     open    Test Person  Do it  -           dep gone does not exist (a-1.md:4)",
        (
            "blocked  2     x       open    -            -      -           "
            "status 'stuck' is none of open, in_progress, closed (x.md:3)"
        ),
        "bad  .tickets/a-1.md:4: dep gone does not exist",
        "bad  .tickets/x.md:3: status 'stuck' is none of open, in_progress, closed",
        "bad  .tickets/\\udcff.md:4: it is not UTF-8",
        "2 tickets: 2 blocked; 3 bad",
    ]
    told = json.loads(show("--json"))
    assert told["bad"][1] == {
        "file": str(folder / "x.md"),
        "line": 3,
        "reason": "status 'stuck' is none of open, in_progress, closed",
        "id": "x",
    }
    assert told["bad"][2]["file"].endswith("\\xff.md")


def test_the_only_ticket_loop_tells_what_it_does_with_each(project: Path, show: Show) -> None:
    folder = project / ".tickets"
    for id in ("run", "verify", "merge", "bad", "by-hand", "done", "next", "last"):
        write(folder, id, f"Title {id}", tags=[f"component:{id}"])
    write(folder, "after", deps=["bad"], tags=["component:y"])
    forged.loop(project, "task")
    paths = ticket_loop(project, alive=True, config={"parallel": 3})
    record(paths, "run", "running", attempt=2, startedAt=forged.ago(62))
    record(paths, "verify", "verifying")
    record(paths, "merge", "merging")
    record(paths, "bad", "failed", attempt=3, error="verify exited 1\x1b[2J\nmore")
    record(paths, "by-hand", "needs-merge", error="conflict in README")
    record(paths, "done", "closed")
    record(paths, "last", "orphaned")
    (paths.dir / "tickets" / "next.json").write_text("{half")
    with forged.runner_of(paths):
        lines = show().splitlines()
        told = json.loads(show("api", "--json"))
    assert [line.split("  ")[0] for line in lines[1:10]] == [
        "running",
        "running",
        "merging",
        "ready",
        "ready",
        "blocked",
        "needs-merge",
        "failed",
        "done",
    ]
    why = {row["id"]: row["reason"] for row in told["tickets"]}
    assert why.pop("run").startswith("running, attempt 2, for 1m0")
    assert why == {
        "verify": "verifying",
        "merge": "merging",
        "last": "all 3 places are taken",
        "next": "all 3 places are taken",
        "done": "",
        "after": "depends on bad, which failed",
        "by-hand": "conflict in README",
        "bad": "verify exited 1␛[2J …, attempt 3",
    }
    assert lines[-1] == (
        "9 tickets: 2 running, 1 merging, 2 ready, 1 blocked, 1 needs-merge, 1 failed, 1 done; loop api: running"
    )
    assert told["counts"]["running"] == 2
    assert (told["loop"], told["folder"]) == ("api", str(folder))


def test_what_a_dead_runner_was_at_is_ready_again(project: Path, show: Show) -> None:
    for id in ("a-1", "a-2"):
        write(project / ".tickets", id, tags=[f"component:{id}"])
    paths = ticket_loop(project, status="running")
    record(paths, "a-1", "running")
    record(paths, "a-2", "merged")
    told = json.loads(show("--json"))
    assert {row["id"]: row["state"] for row in told["tickets"]} == {"a-1": "ready", "a-2": "merging"}
    assert told["shown"] == "crashed"


def test_a_loop_has_its_own_folder_and_options(project: Path, show: Show) -> None:
    write(project / "todo", "b-1")
    write(project / "todo", "b-2")
    ticket_loop(project, config={"tickets": "todo", "allowUntagged": True, "parallel": 2})
    ticket_loop(project, "other")
    told = json.loads(show("api", "--json"))
    assert told["folder"] == str(project / "todo")
    assert [(row["id"], row["state"], row["reason"]) for row in told["tickets"]] == [
        ("b-1", "ready", ""),
        ("b-2", "ready", ""),
    ]


def test_of_several_ticket_loops_one_must_be_named(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(project / ".tickets", "a-1")
    for name in ("one", "two"):
        record(ticket_loop(project, name), "a-1", "closed")
    tickets_command.main([], standalone_mode=False)
    told = capsys.readouterr()
    assert told.err == "ralph-rpc: several ticket loops here, so none is shown; choose one: one, two\n"
    assert "ready" in told.out
    tickets_command.main(["two"], standalone_mode=False)
    assert "done" in capsys.readouterr().out


def test_what_is_not_there_is_told_with_what_to_do(project: Path, show: Show) -> None:
    with pytest.raises(UsageError, match="no .tickets folder") as caught:
        show()
    assert "ralph-rpc tickets add" in caught.value.hint
    with pytest.raises(NoSuchLoop):
        show("nobody")
    forged.loop(project, "task")
    with pytest.raises(UsageError, match="'task' is not a ticket loop"):
        show("task")
    (project / ".tickets").mkdir()
    assert show() == "0 tickets\n"


def test_nothing_in_a_ticket_reaches_the_terminal_as_a_command(project: Path, show: Show) -> None:
    evil = "\x1b]52;c;aGk=\x07\u202egnp\x9b31m"
    (project / ".tickets").mkdir()
    (project / ".tickets" / "a-1.md").write_text(
        f'---\nid: a-1\ndeps: ["\\e[2J"]\ntags: ["component:\\e[31m"]\n---\n# Title {evil}\n'
    )
    for args in ((), ("--json",)):
        assert not set(show(*args)) & set("\x1b\x07\u202e\x9b")
    assert json.loads(show("--json"))["tickets"][0]["title"] == f"Title {evil}"


def test_another_projects_queue_is_shown_by_its_folder(project: Path, show: Show, tmp_path: Path) -> None:
    write(tmp_path / "other" / ".tickets", "o-1", "Elsewhere")
    assert "Elsewhere" in show("--project", str(tmp_path / "other"))


def test_nothing_heavy_is_loaded_to_show_what_tk_wrote(project: Path) -> None:
    write(project / ".tickets", "a-1", tags=["component:cli"])
    done = subprocess.run(
        [sys.executable, "-c", PROBE], cwd=project, env=forged.program()[1], capture_output=True, text=True, check=True
    )
    loaded = done.stdout.splitlines()[-1].split()
    assert not HEAVY & {name.partition(".")[0] for name in loaded}
