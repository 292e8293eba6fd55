"""What no clone brings, but an archive, a shared folder or a careless PATH does: settings and notes in .git, and programs.

Nothing of it runs, and nothing outside of the project is touched, by any command that looks or tidies up.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from ralph_rpc.files import far
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.git import checkout
from tests.faults.test_untrusted import an_honest_pi, call, hostile
from tests.rig import git

OLD_RECORDS = Path(__file__).parents[1] / "data" / "files-0.1" / "tickets" / "tickets"
pytestmark = pytest.mark.usefixtures("no_leftovers")

LOOKING: tuple[list[str], ...] = (
    ["doctor"],
    ["doctor", "--fix"],
    ["start", "x", "-m", "x", "--dry-run"],
    ["start", "x", "--tickets", "--parallel", "2", "--dry-run"],
    ["start", "x", "-m", "x", "--worktree", "side", "--dry-run"],
    ["status"],
    ["tickets"],
    ["report", "night", "-o", "-"],
    ["clean", "--yes"],
    ["clean", "night", "--yes", "--force"],
)
_AS_IT_IS = [
    word
    for setting in (
        "core.hooksPath=/dev/null",
        "core.fsmonitor=false",
        *(f"filter.x.{name}=" for name in ("process", "clean", "smudge")),
    )
    for word in ("-c", setting)
]
"""For our own git, which is not the victim."""


class Place(NamedTuple):
    """A hostile project without a config.toml, and what it must not touch."""

    project: Path
    canary: Path
    env: dict[str, str]

    @property
    def loop(self) -> LoopPaths:
        return LoopPaths.of(self.project, "night")

    def ran(self) -> list[str]:
        return sorted(path.name for path in self.canary.iterdir())

    def script(self, path: Path, what: str) -> Path:
        """A program that leaves a trace."""
        path.write_text(f"#!/bin/sh\ntouch {self.canary}/ran-{what}\necho 1.5.2\n")
        path.chmod(0o755)
        return path

    def git(self, *args: str) -> str:
        return git(self.project, *_AS_IT_IS, *args).strip()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    canary = tmp_path / "canary"
    canary.mkdir()
    project = hostile(tmp_path, canary)
    (project / ".ralph" / "config.toml").unlink()
    for trace in canary.iterdir():
        trace.unlink()
    env = {**os.environ, "PATH": f"{an_honest_pi(tmp_path)}{os.pathsep}{os.environ['PATH']}"}
    yield Place(project, canary, env)


def an_alias_of_lfs(place: Place) -> None:
    (place.project / ".gitattributes").write_text("*.bin filter=lfs\n")
    place.git("config", "--unset-all", "filter.x.process")
    place.git("add", "-f", ".gitattributes")
    place.git("commit", "-qm", "lfs")
    place.git("config", "filter.lfs.process", f"touch {place.canary}/ran-filter #")
    place.git("config", "alias.lfs", f"!touch {place.canary}/ran-alias #")


def a_partial_clone(place: Place) -> None:
    """git would fetch what is missing, and run what the settings name as the other side."""
    evil = place.script(place.project / "upload", "upload-pack")
    for key, value in {
        "core.repositoryformatversion": "1",
        "extensions.partialClone": "origin",
        "remote.origin.url": str(place.project.parent),
        "remote.origin.promisor": "true",
        "remote.origin.uploadpack": str(evil),
    }.items():
        place.git("config", key, value)
    for line in place.git("rev-list", "--objects", "--all").splitlines():
        name, _, path = line.partition(" ")
        if path:
            (place.project / ".git" / "objects" / name[:2] / name[2:]).unlink()


def a_half_done_merge(place: Place) -> None:
    """As a killed runner leaves it: `doctor --fix` finishes it, and a checkout runs filters."""
    place.git("checkout", "-qf", ".")
    branch, old = place.git("symbolic-ref", "--short", "HEAD"), place.git("rev-parse", "HEAD")
    place.git("checkout", "-q", "-b", "new")
    (place.project / "fresh").write_text("new\n")
    place.git("add", "-f", "fresh")
    place.git("commit", "-qm", "new")
    new = place.git("rev-parse", "HEAD")
    place.git("checkout", "-qf", branch)
    note = {"kind": checkout._KIND, "branch": branch, "old": old, "new": new, "why": "x", "by_line": ""}
    (place.project / ".git" / "index.lock").write_text(json.dumps(note))


@pytest.mark.parametrize("plant", [an_alias_of_lfs, a_partial_clone, a_half_done_merge])
def test_settings_and_notes_in_git_run_nothing(place: Place, plant: Callable[[Place], None]) -> None:
    plant(place)
    for trace in place.canary.iterdir():
        trace.unlink()
    for command in LOOKING:
        done = call(place.project, command, place.env)
        assert place.ran() == [], command
        assert "Traceback" not in done.stderr and done.returncode != 70, (command, done.stderr)
    assert not (place.project / "fresh").exists()


def test_a_lock_in_another_repository_stays(place: Place, tmp_path: Path) -> None:
    other = tmp_path / "other"
    git(tmp_path, "init", "-q", str(other))
    (other / "file").write_text("x\n")
    git(other, "add", "-A")
    git(other, "commit", "-qm", "x")
    git(other, "worktree", "add", "-q", str(tmp_path / "side"))
    lock = other / ".git" / "worktrees" / "side" / "index.lock"
    lock.touch()
    place.loop.worktree.unlink()
    place.loop.worktree.mkdir()
    (place.loop.worktree / ".git").write_text(f"gitdir: {lock.parent}\n")
    call(place.project, ["doctor", "--fix"], place.env)
    call(place.project, ["clean", "night", "--yes", "--force"], place.env)
    assert lock.exists() and (tmp_path / "side" / "file").exists()


def test_a_folder_that_only_the_repository_calls_a_worktree_stays(place: Place, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "thesis").write_text("three years")
    listed = place.project / ".git" / "worktrees" / "t-1"
    listed.mkdir(parents=True)
    (listed / "gitdir").write_text(f"{victim}/.git\n")
    (listed / "commondir").write_text("../..\n")
    (listed / "HEAD").write_text("ref: refs/heads/side\n")
    record = json.loads(next(OLD_RECORDS.glob("*.json")).read_bytes())
    (place.loop.tickets / "t-1.json").write_text(json.dumps({**record, "ticket": "t-1", "worktreePath": str(victim)}))
    assert str(victim) in place.git("worktree", "list")
    done = call(place.project, ["clean", "night", "--yes", "--force"], place.env)
    assert done.returncode == 0 and not place.loop.dir.exists(), done.stderr
    assert (victim / "thesis").read_text() == "three years"


def test_no_job_elsewhere_is_ended_that_a_foreign_loop_names(place: Place, tmp_path: Path) -> None:
    for name in ("podman", "docker", "kubectl", "scancel"):
        place.script(tmp_path / "pi-1.5.2" / "bin" / name, name)
    for launcher in ("podman:x", "docker:x", "kubectl:x", "srun"):
        job = f"ralph-other-{launcher.partition(':')[0]}"
        far.write(place.loop, {"job": job, "launcher": launcher, "leaseMs": 10**12})
    call(place.project, ["doctor", "--fix"], place.env)
    assert place.ran() == []
    assert call(place.project, ["clean", "night", "--yes", "--force"], place.env).returncode == 0
    assert not place.loop.dir.exists()


@pytest.mark.parametrize(
    "name", [".git/ralph-rpc.lock", ".ralph/night/runner.lock", ".ralph/night/runner.log", ".ralph/night/events.jsonl"]
)
def test_a_second_name_of_a_file_elsewhere_is_not_written_to(place: Place, tmp_path: Path, name: str) -> None:
    precious = tmp_path / "precious"
    precious.write_text("kept")
    (place.project / name).unlink(missing_ok=True)
    (place.project / name).hardlink_to(precious)
    for command in (["doctor", "--fix"], ["steer", "night", "hello"], ["clean", "night", "--yes", "--force"]):
        done = call(place.project, command, place.env)
        assert precious.read_text() == "kept", command
        assert "Traceback" not in done.stderr and done.returncode != 70, (command, done.stderr)


@pytest.mark.parametrize("entry", ["", ".", "tools"])
@pytest.mark.parametrize("first", [True, False])
def test_a_relative_entry_of_path_leads_to_no_program_of_the_project(place: Place, entry: str, first: bool) -> None:
    for folder in (place.project, place.project / "tools"):
        for name in ("pi", "git", "git-lfs", "node", "npm", "xdg-open", "www-browser"):
            place.script(folder / name, name)
    given = os.environ["PATH"]  # without any pi
    path = f"{entry}{os.pathsep}{given}" if first else f"{given}{os.pathsep}{entry}"
    for command in (["report", "night", "--open"], *LOOKING[:-1]):
        call(place.project, command, {**place.env, "PATH": path, "DISPLAY": ":97"})
        assert place.ran() == [], command


def test_a_program_that_obeys_its_working_folder_is_asked_elsewhere(place: Place, tmp_path: Path) -> None:
    """A version manager's shim, or a pi that was compiled with settings of its own."""
    shims = tmp_path / "shims"
    shims.mkdir()
    for name in ("pi", "node"):
        shim = f"#!/bin/sh\nif [ -e settings.toml ]; then touch {place.canary}/ran-{name}; fi\necho 1.5.2\n"
        (shims / name).write_text(shim)
        (shims / name).chmod(0o755)
    (place.project / "settings.toml").touch()
    env = {**place.env, "PATH": f"{shims}{os.pathsep}{os.environ['PATH']}"}
    for command in (*LOOKING[:4], ["pi-extension", "install"], ["pi-extension", "remove"]):
        call(place.project, command, env)
        assert place.ran() == [], command


def test_no_completion_is_a_command_to_the_shell(place: Place) -> None:
    odd = ("$(touch ran)", "`touch ran`", "a;b", "--force", "~root", "=ls", "a b", "a*", "été-1")
    for number, name in enumerate(odd):
        file = place.project / ".tickets" / f"n{number}.md"
        file.write_text(f"---\nid: {json.dumps(name, ensure_ascii=False)}\nstatus: open\n---\n# x\n")
    env = {
        **place.env,
        "_RALPH_RPC_COMPLETE": "bash_complete",
        "COMP_WORDS": "ralph-rpc run-ticket ",
        "COMP_CWORD": "2",
    }
    shown = subprocess.run(
        [sys.executable, "-P", "-m", "ralph_rpc"],
        cwd=place.project,
        env=env,
        check=False,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    assert shown == ["plain,t-1", "plain,été-1"]
