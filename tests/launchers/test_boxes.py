"""Cages for pi on this machine, line by line of what the README says of them: bubblewrap and podman, both real."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.launchers.far import ROOT, does, far_rig, shown
from tests.process.trees import new_token, nothing_of, survivors, until
from tests.rig import Rig, git
from tests.ticket_rig import fake_tickets

pytestmark = [pytest.mark.usefixtures("no_leftovers"), pytest.mark.timeout(180)]


def _works(*words: str) -> str | None:
    """Why a box cannot be made here, as one line."""
    if shutil.which(words[0]) is None:
        return f"needs {words[0]}"
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else f"{words[0]} does not work here: {done.stderr.strip()[-200:]}"


NO_BWRAP = _works("bwrap", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "--unshare-pid", "true")
NO_PODMAN = (
    None if os.geteuid() == 0 and shutil.which("podman") and shutil.which("runc") else "needs root, podman and runc"
)
bwrap = pytest.mark.skipif(NO_BWRAP is not None, reason=NO_BWRAP or "")
podman = pytest.mark.skipif(NO_PODMAN is not None, reason=NO_PODMAN or "")


@pytest.fixture
def token() -> Iterator[str]:
    token = new_token()
    with nothing_of(token):
        yield token


def in_bwrap(rig: Rig, *more: str) -> str:
    return " ".join(["bwrap:", *(f"--ro-bind {path} {path}" for path in shown(rig)[1:]), *(fake(rig)), *more])


def fake(rig: Rig) -> list[str]:
    """The folder of the fake pi, which counts its prompts in there."""
    folder = shown(rig)[0]
    return [f"--bind {folder} {folder}"]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An image without an image: empty folders and links into /usr, which is mounted from outside."""
    root = tmp_path / "image"
    for name in ("usr", "tmp", "proc", "sys", "dev", "run", "etc", "root", "var/tmp"):
        (root / name).mkdir(parents=True)
    for name in ("bin", "lib", "lib64", "sbin"):
        (root / name).symlink_to(f"usr/{name}")
    return root


def in_podman(rig: Rig, image: Path, *more: str) -> str:
    volumes = " ".join(f"-v {path}:{path}" for path in shown(rig))
    extra = "-v /usr:/usr:ro -v /etc:/etc:ro --runtime runc --cgroup-manager cgroupfs --network host"
    real = Path("/root/.pyenv")
    python = f"-v {real}:{real}:ro" if real.exists() else ""
    limits = "--ulimit nofile=1024:1024 --ulimit nproc=4096:4096"
    return f"podman:{volumes} {extra} {python} {limits} {' '.join(more)} --rootfs {image}"


def answers(rig: Rig, launcher: str, **questions: str) -> dict[str, bool]:
    """Which of these shell commands succeed in the box."""
    asked = [
        f"if {command}; then echo {name} yes; else echo {name} no; fi >> out" for name, command in questions.items()
    ]
    script = rig.project.parent / "fake" / "script.json"
    import json

    script.write_text(json.dumps({"prompts": [does(*asked)]}))
    rig.start("--launcher", launcher)
    state = rig.wait_end()
    assert state["status"] == "completed", (state["error"], rig.log())
    rows = (line.split() for line in (rig.project / "out").read_text().splitlines())
    return {name: answer == "yes" for name, answer in rows}


@bwrap
def test_bwrap_shows_the_machine_read_only_and_hides_the_home(tmp_path: Path, isolated: Path) -> None:
    rig = far_rig(tmp_path, [])
    (isolated / "secret").write_text("mine")
    (isolated / ".ssh").mkdir()
    agent = Path(rig.env["PI_CODING_AGENT_DIR"])
    agent.mkdir()
    found = answers(
        rig,
        in_bwrap(rig),
        home_can_be_written="touch ~/x",
        home_can_be_read="cat ~/secret",
        keys_can_be_seen="ls ~/.ssh",
        machine_can_be_written="touch /usr/x || touch /etc/x || touch /var/x || touch /opt/x",
        machine_can_be_read="test -r /etc/passwd",
        project_can_be_written="touch new",
        loop_can_be_written="touch $RALPH_LOOP_DIR/new",
        options_can_be_changed="echo >> $RALPH_LOOP_DIR/config.json",
        other_loops_can_be_written="mkdir .ralph/other",
        pis_folder_can_be_written=f"touch {agent}/new",
        other_processes_can_be_seen="test $(ls -d /proc/[0-9]* | wc -l) -gt 12",
        services_can_be_reached="test -e /run/user || test -S /run/docker.sock || test -d /run/sshd",
        network_is_there="test -d /sys/class/net/lo && grep -q lo /proc/net/dev",
        commit_can_be_made="git add new && git commit -qm 'from the box'",
        hook_can_be_planted="touch .git/hooks/pre-commit || git config core.hooksPath /tmp/x",
        remount_works="mount -o remount,rw / ",
        tmp_can_be_written="touch $TMPDIR/x && touch /tmp/x",
    )
    assert found == {
        "home_can_be_written": False,
        "home_can_be_read": False,
        "keys_can_be_seen": False,
        "machine_can_be_written": False,
        "machine_can_be_read": True,
        "project_can_be_written": True,
        "loop_can_be_written": True,
        "options_can_be_changed": False,
        "other_loops_can_be_written": False,
        "pis_folder_can_be_written": True,
        "other_processes_can_be_seen": False,
        "services_can_be_reached": False,
        "network_is_there": True,
        "commit_can_be_made": True,
        "hook_can_be_planted": False,
        "remount_works": False,
        "tmp_can_be_written": True,
    }
    assert not (isolated / "x").exists()
    assert git(rig.project, "log", "-1", "--format=%s").strip() == "from the box"


@bwrap
def test_bwraps_own_words_add_and_take_away(tmp_path: Path, isolated: Path) -> None:
    rig = far_rig(tmp_path, [])
    (isolated / "tools").mkdir()
    more = ["--ro-bind ~/tools ~/tools", "--unshare-net", "--unsetenv RALPH_HOME"]
    found = answers(
        rig,
        in_bwrap(rig, *more),
        tools_are_there="test -d ~/tools",
        network_is_there="grep -q eth /proc/net/dev",
        variable_is_there='test -n "$SOME_SECRET"',
    )
    assert found == {"tools_are_there": True, "network_is_there": False, "variable_is_there": False}


@bwrap
def test_in_a_worktree_the_checkout_itself_is_read_only(tmp_path: Path) -> None:
    rig = far_rig(tmp_path, [])
    asked = ["git commit --allow-empty -qm 'from the box'", f"! touch {rig.project}/README", "touch here"]
    import json

    (tmp_path / "fake" / "script.json").write_text(
        json.dumps({"prompts": [does(*(f"{one} || touch failed" for one in asked))]})
    )
    rig.start("--launcher", in_bwrap(rig), "--worktree", "side")
    state = rig.wait_end()
    assert state["status"] == "completed", (state["error"], rig.log())
    worktree = Path(state["worktree"]["path"])
    assert (worktree / "here").exists() and not (worktree / "failed").exists()
    assert git(rig.project, "log", "-1", "--format=%s", "side").strip() == "from the box"


@bwrap
def test_tickets_run_in_a_cage_each_and_are_merged(tmp_path: Path) -> None:
    rig = fake_tickets(tmp_path)
    for id in ("t-1", "t-2"):
        rig.add(id, id)
    shown = [tmp_path / "scripts", tmp_path / "pi", ROOT, Path(sys.prefix)]
    box = " ".join(["bwrap:", *(f"--bind {path} {path}" for path in shown)])
    rig.begin("--parallel", "2", "--launcher", box)
    rig.check_done("t-1", "t-2")


@bwrap
@pytest.mark.parametrize("victim", ["runner and guard", "bwrap"])
def test_nobody_is_left_of_a_bwrap(tmp_path: Path, token: str, victim: str) -> None:
    tree = f"setsid sleep {token} & env -i /usr/bin/setsid sh -c '/bin/sleep {token} &'; sleep {token}"
    rig = far_rig(tmp_path, [[{"tool": "bash", "run": tree}, "never said"], does("true")])
    rig.start("--launcher", in_bwrap(rig))
    until(lambda: len(survivors(token)) >= 3, "the tool")
    runner, guard, box = rig.pids()
    for pid in [runner, guard] if victim == "runner and guard" else [box]:
        os.kill(pid, signal.SIGKILL)
    until(lambda: not survivors(token), "nobody left")
    if victim != "bwrap":
        rig.run("resume", "x")
    assert rig.wait_end()["status"] == "completed", rig.log()


@bwrap
def test_a_project_that_holds_the_home_is_refused(tmp_path: Path, isolated: Path) -> None:
    rig = far_rig(tmp_path, [])
    rig.env["HOME"] = str(rig.project)
    assert "cannot hide your home" in rig.start("--launcher", "bwrap", check=2).stderr


@podman
def test_podman_shows_its_image_and_the_project(tmp_path: Path, isolated: Path, image: Path) -> None:
    rig = far_rig(tmp_path, [])
    (isolated / "secret").write_text("mine")
    found = answers(
        rig,
        in_podman(rig, image),
        home_can_be_written="touch ~/x",
        home_can_be_read=f"cat {isolated}/secret",
        image_can_be_written="touch /usr/x || touch /x",
        project_can_be_written="touch new",
        other_processes_can_be_seen="test $(ls -d /proc/[0-9]* | wc -l) -gt 12",
        commit_can_be_made="GIT_CONFIG_GLOBAL=/dev/null git -c user.name=a -c user.email=b commit --allow-empty -qm box",
        tmp_can_be_written="touch $TMPDIR/x",
    )
    assert found == {
        "home_can_be_written": False,
        "home_can_be_read": False,
        "image_can_be_written": False,
        "project_can_be_written": True,
        "other_processes_can_be_seen": False,
        "commit_can_be_made": True,
        "tmp_can_be_written": True,
    }
    assert not containers(rig)


@podman
@pytest.mark.parametrize("victim", ["runner and guard", "podman", "stop"])
def test_no_container_is_left(tmp_path: Path, token: str, image: Path, victim: str) -> None:
    rig = far_rig(
        tmp_path, [[{"tool": "bash", "run": f"setsid sleep {token} & sleep {token}"}, "never said"], does("true")]
    )
    rig.start("--launcher", in_podman(rig, image))
    until(lambda: len(survivors(token)) >= 2, f"the tool\n{rig.log()}")
    runner, guard, box = rig.pids()
    if victim == "stop":
        rig.run("stop", "x", "--now")
    for pid in {"runner and guard": [runner, guard], "podman": [box]}.get(victim, []):
        os.kill(pid, signal.SIGKILL)
    until(lambda: not survivors(token), "nobody left")
    if victim == "runner and guard":
        rig.run("resume", "x")
    state = rig.wait_end()
    assert state["status"] == ("stopped" if victim == "stop" else "completed"), (state["error"], rig.log())
    assert not containers(rig)


@podman
def test_a_wrong_image_is_said_at_once(tmp_path: Path) -> None:
    rig = far_rig(tmp_path, [does("true")])
    done = rig.start(
        "--launcher", "podman:--runtime runc --cgroup-manager cgroupfs --pull never no.such/image", check=5
    )
    assert "no.such/image" in done.stderr and "podman:" in done.stderr, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def containers(rig: Rig) -> list[str]:
    """Those of this loop, running or not."""
    from ralph_rpc.launchers.presets import job_name

    told = subprocess.run(["podman", "ps", "-a", "--format", "{{.Names}}"], capture_output=True, text=True, check=True)
    return [name for name in told.stdout.split() if name == job_name(rig.paths.dir, None)]
