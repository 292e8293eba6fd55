"""`clean`: what goes, what stays and why, and that nothing goes unasked."""

import json
import os
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ralph_rpc import git
from ralph_rpc.cli.main import run
from ralph_rpc.files.paths import LoopPaths, registry_dir
from tests.cli import forged

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git repository with one commit, which is the current folder."""
    folder = tmp_path / "web"
    folder.mkdir()
    monkeypatch.chdir(folder)
    commands = ("init -q", "commit -q --allow-empty -m first")
    for command in commands:
        subprocess.run(["git", *command.split()], check=True)
    return folder


def with_worktree(project: Path, name: str, **changes: Any) -> LoopPaths:
    loop = forged.loop(
        project, name, worktree={"branch": f"b-{name}", "path": str(LoopPaths.of(project, name).worktree)}, **changes
    )
    git.add_worktree(project, loop.worktree, f"b-{name}")
    return loop


def cleaned(capsys: Capture, *args: str) -> dict[str, list[dict[str, Any]]]:
    """What `clean --json --yes ARGS` says that it did."""
    capsys.readouterr()
    run(["clean", "--json", "--yes", *args])
    report: dict[str, list[dict[str, Any]]] = json.loads(capsys.readouterr().out)
    return report


def branches(project: Path) -> str:
    return subprocess.run(
        ["git", "for-each-ref", "--format=%(refname)"], cwd=project, check=True, capture_output=True, text=True
    ).stdout


def test_every_ended_loop_of_this_project_goes_and_no_other(project: Path, tmp_path: Path, capsys: Capture) -> None:
    for status in ("stopped", "completed", "error", "running"):  # running, but its runner is dead: crashed
        forged.loop(project, f"l-{status}", status=status)
    forged.loop(project, "live", alive=True)
    elsewhere = forged.loop(tmp_path / "other", "theirs", status="completed")
    task_only = project / ".ralph/draft/task.md"
    task_only.parent.mkdir()
    task_only.write_text("not started yet")
    report = cleaned(capsys)
    assert {one["name"]: one["status"] for one in report["removed"]} == {
        "l-stopped": "stopped",
        "l-completed": "completed",
        "l-error": "error",
        "l-running": "crashed",
    }
    assert sorted(entry.name for entry in (project / ".ralph").iterdir()) == ["draft", "live"]
    assert elsewhere.dir.exists()


def test_without_a_terminal_nothing_goes_unless_told_so(
    project: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = forged.loop(project, "api", status="completed")
    with Path(os.devnull).open() as nowhere:
        monkeypatch.setattr("sys.stdin", nowhere)
        assert run(["clean"]) == 2
    shown = capsys.readouterr()
    assert str(loop.dir) in shown.out and "--yes" in shown.err
    assert loop.state.exists()


def test_a_person_who_says_no_keeps_everything(project: Path, tmp_path: Path) -> None:
    loop = forged.loop(project, "api", status="completed")
    command, env = forged.program("clean")
    for answer, code, stays in (("n", 130, True), ("y", 0, False)):
        ours, theirs = os.openpty()
        with subprocess.Popen(command, env=env, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as asked:
            os.close(theirs)
            os.write(ours, f"{answer}\n".encode())
            out, err = asked.communicate(timeout=60)
        os.close(ours)
        assert b"Continue?" in err and b"completed" in out
        assert asked.returncode == code
        assert loop.dir.exists() is stays


@pytest.mark.parametrize("archive", [[], ["--archive"]])
def test_a_worktree_with_unsaved_work_keeps_its_loop_until_forced(
    project: Path, capsys: Capture, archive: list[str]
) -> None:
    loop = with_worktree(project, "api", status="completed")
    (loop.worktree / "new.txt").write_text("work")
    report = cleaned(capsys, *archive)
    assert report["removed"] == []
    assert "1 uncommitted file" in report["kept"][0]["reason"]
    assert run(["clean", "--yes", *archive, "api"]) == 1
    assert (loop.worktree / "new.txt").read_text() == "work" and loop.state.exists()
    capsys.readouterr()
    assert run(["clean", "--yes", "--force", *archive, "api"]) == 0
    assert "LOST with it: 1 uncommitted file" in capsys.readouterr().out
    assert not loop.dir.exists()
    assert "refs/heads/b-api" in branches(project)


def test_a_worktree_whose_repository_is_gone_goes_only_by_force(project: Path, capsys: Capture) -> None:
    loop = with_worktree(project, "api", status="completed")
    (project / ".git").rename(project / "git of before")
    assert "cannot be judged" in cleaned(capsys)["kept"][0]["reason"]
    assert loop.state.exists()
    assert cleaned(capsys, "--force")["removed"][0]["name"] == "api"
    assert not loop.dir.exists()


def test_an_archived_loop_is_moved_as_a_whole_without_its_worktree(project: Path, capsys: Capture) -> None:
    loop = with_worktree(project, "api", status="completed")
    loop.events.write_text("{}\n")
    first = Path(cleaned(capsys, "--archive")["removed"][0]["archivedTo"])
    assert first.parent == project / ".ralph/.archive"
    assert (first / "events.jsonl").read_text() == "{}\n"
    assert not (first / "worktree").exists()
    assert stat.S_IMODE(first.parent.stat().st_mode) == 0o700
    forged.loop(project, "api", status="completed")
    second = Path(cleaned(capsys, "--archive")["removed"][0]["archivedTo"])
    assert second != first and (second / "state.json").exists()
    assert cleaned(capsys) == {"removed": [], "kept": [], "registry": []}  # the archive is no loop


def test_registry_entries_of_dead_runners_go_and_those_of_the_living_stay(
    project: Path, tmp_path: Path, capsys: Capture
) -> None:
    failed = forged.loop(project, "failed", status="error")
    crashed_elsewhere = forged.loop(tmp_path / "other", "crashed")
    held_elsewhere = forged.loop(tmp_path / "third", "held")
    gone = {
        forged.register("failed", forged.entry(project, "failed", status="error")),
        forged.register("vanished", forged.entry(tmp_path / "nowhere", "vanished")),
        forged.register("broken", b"\0\0\0"),
    }
    stay = {
        forged.register("live", forged.entry(project, "live", alive=True)),
        forged.register("held", forged.entry(tmp_path / "third", "held")),
        # By it `list --all` and `resume --crashed` find the loop.
        forged.register("crashed", forged.entry(tmp_path / "other", "crashed")),
    }
    (registry_dir() / "folder.json").mkdir()
    with forged.runner_of(held_elsewhere):
        report = cleaned(capsys)
    assert not any(path.exists() for path in gone) and all(path.exists() for path in stay)
    assert {one["reason"] for one in report["registry"]} >= {"its folder is gone"}
    assert not failed.dir.exists()
    assert crashed_elsewhere.state.exists()


def test_the_entry_of_a_loop_that_stays_stays(project: Path, capsys: Capture) -> None:
    loop = with_worktree(project, "api", status="error")
    (loop.worktree / "new.txt").write_text("work")
    entry = forged.register("api", forged.entry(project, "api", status="error"))
    assert cleaned(capsys)["registry"] == []
    assert entry.exists()


def test_a_named_clean_touches_nothing_else(project: Path, capsys: Capture) -> None:
    forged.loop(project, "one", status="completed")
    two = forged.loop(project, "two", status="completed")
    entry = forged.register("vanished", forged.entry(project / "nowhere", "vanished"))
    assert [one["name"] for one in cleaned(capsys, "one", "one")["removed"]] == ["one"]
    assert two.state.exists() and entry.exists()
    assert run(["clean", "--yes", "one"]) == 3


def test_a_loop_without_a_readable_state_goes_only_by_name(project: Path, capsys: Capture) -> None:
    loop = forged.loop(project, "api")
    loop.state.write_bytes(b"torn")
    assert "state.json" in cleaned(capsys)["kept"][0]["reason"]
    assert loop.dir.exists()
    assert cleaned(capsys, "api")["removed"][0]["name"] == "api"
    assert not loop.dir.exists()


def test_an_interrupted_removal_is_finished_by_the_next(project: Path, capsys: Capture) -> None:
    half = project / ".ralph/.removing-api-1/sealed"
    half.mkdir(parents=True)
    (half / "file").write_text("x")
    half.chmod(0o500)
    assert run(["clean", "--yes"]) == 0
    assert list((project / ".ralph").iterdir()) == []


def test_the_temporary_folder_of_a_dead_runner_goes_and_no_other_folder(
    project: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    ours, foreign, link = tmp_path / "ralph-a-x1", tmp_path / "home of somebody", tmp_path / "ralph-c-x1"
    outside = tmp_path / "sub/ralph-d-x1"
    for folder in (ours, foreign, outside):
        folder.mkdir(parents=True)
        (folder / "file").write_text("x")
    link.symlink_to(foreign)
    for name, temp in (("a", ours), ("b", foreign), ("c", link), ("d", outside)):
        forged.loop(project, name, status="completed", tmpDir=str(temp))
    assert len(cleaned(capsys)["removed"]) == 4
    assert not ours.exists()
    assert (foreign / "file").exists() and link.is_symlink() and (outside / "file").exists()


def test_nothing_to_clean_is_said_and_fine(project: Path, capsys: Capture) -> None:
    assert run(["clean"]) == 0
    assert capsys.readouterr().out == "nothing to clean\n"


def test_names_from_files_are_shown_inert(project: Path, capsys: Capture) -> None:
    forged.register("evil", forged.entry(Path("/nowhere/\x1b[31m\n"), "x"))
    assert run(["clean", "--yes"]) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown and len(shown.splitlines()) == 2
