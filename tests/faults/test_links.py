"""No link below .ralph, .tickets or .tf is followed, by any command and by no runner: not read, listed, made, changed, removed.

A link is planted in the place of each file and folder that the program has, at every level, to a copy of what was there.
"""

import itertools
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ralph_rpc.cli import doctor, launched
from ralph_rpc.cli.main import run
from ralph_rpc.files import trust
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.files.records import read_config
from ralph_rpc.loops import kill, restart, start
from ralph_rpc.loops.launch import Launched
from ralph_rpc.machine import nofollow
from tests.cli import forged
from tests.faults.conftest import Note
from tests.faults.opened import Watch, untouched
from tests.faults.tiers import times
from tests.rig import fake_rig, new_project, wait_for

pytestmark = pytest.mark.usefixtures("no_leftovers")
MARKER = "<promise>COMPLETE</promise>"
OLD = Path(__file__).parents[1] / "data" / "files-0.1"
TICKET = "---\nid: t-1\nstatus: open\n---\n# A ticket\n"

LOOKING: tuple[list[str], ...] = (
    ["list"],
    ["list", "--all"],
    ["status"],
    ["status", "api"],
    ["status", "tix", "--json"],
    ["tickets"],
    ["tickets", "tix", "--json"],
    ["logs", "api"],
    ["logs", "tix", "--raw"],
    ["report", "api", "--json"],
    ["report", "tix", "--json"],
    ["report", "past", "--json"],
    ["wait", "api", "--timeout", "0"],
    ["doctor"],
    ["start", "new", "-m", "x", "--dry-run"],
    ["start", "api", "--dry-run"],
    ["trust"],
)
CHANGING: tuple[list[str], ...] = (
    ["start", "api", "-m", "another task"],
    ["start", "api"],
    ["start", "new", "-m", "x"],
    ["start", "tix", "--tickets"],
    ["resume", "api", "-n", "99"],
    ["resume", "tix"],
    ["tickets", "add", "A new ticket"],
    ["stop", "api", "--now"],
    ["steer", "api", "hello"],
    ["followup", "tix", "hello"],
    ["pause", "api"],
    ["kill", "api"],
    ["clean", "--yes"],
    ["clean", "--yes", "--force"],
    ["clean", "api", "--yes", "--force", "--archive"],
    ["doctor", "--fix"],
)


class Scene:
    """A project in which everything is there that the program ever makes."""

    def __init__(self, tmp: Path) -> None:
        self.project = new_project(tmp / "project")
        self.store = tmp / "store"
        self.outside = tmp / "outside"
        self._fill()
        for folder in (".ralph", ".tickets", ".tf"):
            shutil.copytree(self.project / folder, self.store / folder, symlinks=True)

    def _fill(self) -> None:
        api, tix = (LoopPaths.of(self.project, name) for name in ("api", "tix"))
        shutil.copytree(OLD / "task", api.dir)
        shutil.copytree(OLD / "tickets", tix.dir)
        for loop in (api, tix):
            for folder in (loop.inbox, loop.rejected, loop.sessions, loop.old_worktrees, loop.worktree, loop.tickets):
                folder.mkdir(parents=True, exist_ok=True)
            (loop.dir / "events.offset").write_text("0\n")
            (loop.inbox / "steer-1.json").write_text('{"message": "hi"}')
            (loop.inbox / ".claimed-1-0123abcd-stop.json").write_text("{}")
            (loop.inbox / ".tmp-0123").write_text("half")
            (loop.sessions / "s.jsonl").write_text("{}\n")
            (loop.old_worktrees / "t-1").mkdir(exist_ok=True)
            for file in (loop.runner_lock, loop.tree_lock, loop.reserve, loop.kill_order, loop.reflect, loop.log):
                file.touch()
        (tix.task).write_text("tickets\n")
        ralph = self.project / ".ralph"
        shutil.copytree(api.dir, ralph / ".archive" / "past-20260101-000000")
        (ralph / ".removing-x-1").mkdir()
        (ralph / ".gitignore").write_text("*\n")
        (ralph / "config.toml").write_text("max-iterations = 7\n")
        (ralph / ".tickets.lock").touch()
        (self.project / ".tickets").mkdir()
        (self.project / ".tickets" / "t-1.md").write_text(TICKET)
        memory = self.project / ".tf" / "ralph"
        memory.mkdir(parents=True)
        for name in ("progress.md", "AGENTS.md"):
            (memory / name).write_text("# Notes\n")
        for path in ralph.rglob("*"):
            path.chmod(0o700 if path.is_dir() else 0o600)

    def places(self) -> list[Path]:
        """Every file and folder that the program has, relative to the project."""
        tops = (".ralph", ".tickets", ".tf")
        return [
            path.relative_to(self.store) for top in tops for path in (self.store / top, *(self.store / top).rglob("*"))
        ]

    def plant(self, *places: Path) -> None:
        """All as it was, but each of these places is a link to what lies outside now."""
        for folder in (".ralph", ".tickets", ".tf"):
            target = self.project / folder
            target.unlink() if target.is_symlink() else shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(self.store / folder, target, symlinks=True)
        shutil.rmtree(self.outside, ignore_errors=True)
        self.outside.mkdir()
        for number, place in enumerate(places):
            away = self.outside / str(number)
            shutil.move(self.project / place, away)
            (self.project / place).symlink_to(away)
        for name in ("api", "tix"):
            self._remember(name)

    def _remember(self, name: str) -> None:
        """The user's program has started it here: else nothing but a question would be seen of `resume`."""
        paths = LoopPaths(self.store / ".ralph" / name)
        config = read_config(paths)
        assert config is not None
        trust.remember_loop(LoopPaths.of(self.project, name), config)


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    scene = Scene(tmp_path)
    monkeypatch.chdir(scene.project)
    package = tmp_path / "pi-1.5.2"
    (package / "bin").mkdir(parents=True)
    (package / "package.json").write_text('{"name": "@x/pi-coding-agent", "version": "1.5.2"}')
    (package / "bin" / "pi").write_text("#!/bin/sh\nexit 1\n")
    (package / "bin" / "pi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{package}/bin{os.pathsep}{os.environ['PATH']}")
    # What the machine has is not the subject, and takes a second.
    checks = tuple(check for check in doctor.CHECKS if "machine" not in check.__module__)
    monkeypatch.setattr(doctor, "CHECKS", checks)
    monkeypatch.setattr(start, "launch", launched_nothing)
    monkeypatch.setattr(restart, "launch", launched_nothing)
    monkeypatch.setattr(launched, "await_begun", lambda *_: None)
    for name in ("TERM_PATIENCE_S", "KILL_PATIENCE_S", "TREE_PATIENCE_S", "LEAVE_S"):
        monkeypatch.setattr(kill, name, 0.05)
    yield scene


def launched_nothing(_paths: LoopPaths, lock: Any, resume: bool, tied: bool = False) -> Launched:
    lock.release()
    return Launched(os.getpid(), 0.0)


def follows_nothing(scene: Scene, command: list[str], what: object) -> None:
    watch = Watch(scene.outside)
    code = run([*command])
    seen = watch.seen()
    watch.close()
    assert seen == [], f"{' '.join(command)} followed {what}"
    assert code != 70, f"{' '.join(command)} with {what}"


@pytest.mark.parametrize("depth", range(1, 6))
def test_no_command_follows_a_link_at_any_depth(scene: Scene, depth: int, capsys: pytest.CaptureFixture[str]) -> None:
    places = [place for place in scene.places() if len(place.parts) == depth]
    assert places
    scene.plant(*places)
    for command in LOOKING:
        follows_nothing(scene, command, f"one of {depth} deep")
    for command in CHANGING:
        scene.plant(*places)
        follows_nothing(scene, command, f"one of {depth} deep")
    capsys.readouterr()


@times(quick=90, full=100_000)
def test_no_command_follows_a_link_in_the_place_of_any_one_file_or_folder(
    scene: Scene, count: int, capsys: pytest.CaptureFixture[str], figure: Note
) -> None:
    pairs = list(itertools.product(scene.places(), (*LOOKING, *CHANGING)))
    random.Random(os.urandom(8) if count > len(pairs) else 1).shuffle(pairs)
    for place, command in pairs[:count]:
        scene.plant(place)
        follows_nothing(scene, command, place)
        capsys.readouterr()
    figure(f"{min(count, len(pairs))} of {len(pairs)} pairs of a place and a command: 0 links followed")


def test_a_link_in_a_loops_place_is_refused_and_named(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    scene.plant(Path(".ralph/api"))
    for command in (["start", "api", "-m", "x"], ["stop", "api"], ["status", "api"], ["clean", "api", "--yes"]):
        assert run(command) == 2
        told = capsys.readouterr().err
        assert told.count("\n") == 1 and ".ralph/api: api is a link, and links are not followed" in told


def test_a_link_in_the_place_of_ralph_is_passed_over_and_named(
    scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    scene.plant(Path(".ralph"))
    assert run(["status"]) == 0
    assert "skipped" in (told := capsys.readouterr().err) and "it is a link" in told
    assert run(["start", "new", "-m", "x"]) == 2
    assert "is in the way" in capsys.readouterr().err


def test_tickets_may_be_a_link_into_the_same_repository_and_to_nowhere_else(
    scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    tickets = scene.project / ".tickets"
    shutil.move(tickets, scene.project / "docs")
    tickets.symlink_to("docs")
    assert run(["tickets"]) == 0 and "A ticket" in capsys.readouterr().out
    tickets.unlink()
    scene.outside.mkdir()
    shutil.move(scene.project / "docs", scene.outside / "docs")
    tickets.symlink_to(scene.outside / "docs")
    with untouched(scene.outside):
        assert run(["tickets"]) == 2
    assert "outside of this repository" in capsys.readouterr().err


RUNNERS = (
    "inbox",
    "inbox/rejected",
    "iterations",
    "sessions",
    "task.md",
    "state.json",
    "config.json",
    "events.jsonl",
    "commands.jsonl",
    "runner.log",
    "pid",
    "runner.lock",
    "tree.lock",
    ".reserve",
)


@pytest.mark.parametrize("name", RUNNERS)
def test_no_runner_follows_a_link_that_lay_there_before_it(tmp_path: Path, name: str) -> None:
    rig = fake_rig(tmp_path, ["one", f"two\n{MARKER}"])
    rig.start("-n", "1")
    rig.wait_end()
    outside = tmp_path / "outside"
    outside.mkdir()
    place = rig.paths.dir / name
    if os.path.lexists(place):
        shutil.move(place, outside / "there")
    else:
        (outside / "there").touch()
    place.symlink_to(outside / "there")
    with untouched(outside):
        done = rig.run("resume", "x", "-n", "2", check=None)
        if done.returncode == 0:
            wait_for("the end", lambda: rig.run("status", "x", check=None).returncode == 0 and not rig.of_mine())
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["inbox", "iterations", "state.json", "events.jsonl", "commands.jsonl", "pid"])
def test_no_runner_follows_a_link_that_its_agent_makes(tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "there").mkdir() if "." not in name and name != "pid" else (outside / "there").touch()
    swap = f"cd $RALPH_LOOP_DIR && mv {name} {name}.away && ln -s {outside}/there {name}"
    rig = fake_rig(tmp_path, [[{"tool": "bash", "run": swap}, "one"], "two", f"three\n{MARKER}"])
    with untouched(outside):
        rig.start("-n", "3", check=None)
        wait_for("the first iteration", lambda: os.path.lexists(rig.paths.dir / f"{name}.away"))
        rig.run("stop", "x", "--now", check=None)
        rig.run("kill", "x", check=None)
        wait_for("the end", lambda: not rig.of_mine())


Do = Callable[[Path], object]
DEEDS: tuple[tuple[str, Do], ...] = (
    ("open", lambda path: os.close(nofollow.open_fd(path, os.O_RDONLY))),
    ("names", nofollow.names),
    ("make_folder", lambda path: nofollow.make_folder(path / "new")),
    ("unlink", lambda path: nofollow.unlink(path / "file")),
    ("rename", lambda path: nofollow.rename(path / "file", path / "other")),
    ("remove_tree", lambda path: nofollow.remove_tree(path / "sub")),
    ("set_mode", lambda path: nofollow.set_mode(path, 0o700)),
    ("lstat", lambda path: nofollow.lstat(path / "file")),
)


@pytest.mark.parametrize(("name", "deed"), DEEDS, ids=[name for name, _ in DEEDS])
def test_each_deed_refuses_a_link_and_what_lies_behind_it(tmp_path: Path, name: str, deed: Do) -> None:
    outside = tmp_path / "outside"
    (outside / "sub").mkdir(parents=True)
    (outside / "file").touch()
    place = tmp_path / ".ralph" / "api" / "inbox"
    place.parent.mkdir(parents=True)
    place.symlink_to(outside)
    with untouched(outside), pytest.raises(nofollow.Linked, match="links are not followed"):
        deed(place)
    place.parent.rename(tmp_path / "api")
    place.parent.symlink_to(tmp_path / "api")
    with untouched(outside), pytest.raises(nofollow.Linked, match="api is a link"):
        deed(place)


def test_the_users_own_ways_to_a_project_may_be_links(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "way").symlink_to("real")
    paths = forged.loop(tmp_path / "way" / "project")
    assert nofollow.is_file(paths.config) and nofollow.names(paths.dir) == [
        "config.json",
        "inbox",
        "iterations",
        "state.json",
    ]


@pytest.mark.parametrize("path", [".ralph/../x", ".ralph/x/../../y", "a/.ralph/../../etc"])
def test_no_path_leads_back_out(path: str) -> None:
    with pytest.raises(OSError, match="not a path of ours"):
        nofollow.lstat(path)
    assert not nofollow.exists(path)
