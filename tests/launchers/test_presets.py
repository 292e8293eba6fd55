"""The command lines of the presets, and a pipe that behaves as attaching to a pod does. No docker daemon and no Kubernetes
cluster was there: of these two only the words are tested."""

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ralph_rpc.launchers import presets
from ralph_rpc.launchers.boxes import Box, git_folder
from ralph_rpc.launchers.presets import Job, Launcher, clean_up, command, job_name, parse
from tests.launchers.far import does, far_rig
from tests.process.trees import new_token, nothing_of, survivors, until
from tests.rig import git, new_project

ATTACH = f"{sys.executable} -S {Path(__file__).with_name('attach.py')}"
INNER = ["python3", "-c", "x y", "pi", "--mode", "rpc"]


@pytest.fixture
def token() -> Iterator[str]:
    token = new_token()
    with nothing_of(token):
        yield token


def job(tmp_path: Path, ticket: str | None = None) -> Job:
    loop = tmp_path / ".ralph" / "night"
    return Job(
        loop, ticket, Box(tmp_path, tmp_path, loop, tmp_path, ("pi",), tmp_path / "home", tmp_path / "agent"), 60
    )


@pytest.mark.parametrize(
    ("text", "understood"),
    [
        ("srun", Launcher("srun", ())),
        ("srun:-p gpu --mem=4G", Launcher("srun", ("-p", "gpu", "--mem=4G"))),
        ("srun -p gpu", Launcher("srun", ("-p", "gpu"))),
        ("ssh:me@there", Launcher("ssh", ("me@there",))),
        ("ssh -p 2222 there", Launcher("ssh", ("-p", "2222", "there"))),
        ("bwrap", Launcher("bwrap", ())),
        ("bwrap:--unshare-net", Launcher("bwrap", ("--unshare-net",))),
        ("docker:node:22", Launcher("docker", ("node:22",))),
        ("podman:-v /a:/a quay.io/x", Launcher("podman", ("-v", "/a:/a", "quay.io/x"))),
        ("kubectl:node:22 -n agents", Launcher("kubectl", ("node:22", "-n", "agents"))),
        ("docker run -i --rm node", Launcher("prefix", ("docker", "run", "-i", "--rm", "node"))),
        ("sh -c 'exec \"$@\"' sh", Launcher("prefix", ("sh", "-c", 'exec "$@"', "sh"))),
        ("srunner", Launcher("prefix", ("srunner",))),
    ],
)
def test_a_launcher_is_a_preset_or_a_prefix(text: str, understood: Launcher) -> None:
    assert parse(text) == understood


@pytest.mark.parametrize("text", ["ssh", "ssh:", "podman", "docker:", "kubectl: ", "", "  ", "a 'b"])
def test_what_lacks_something_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse(text)


def test_a_home_is_meant_by_a_tilde(tmp_path: Path) -> None:
    assert parse("bwrap:--bind ~/x ~/x").words == ("--bind", f"{Path.home()}/x", f"{Path.home()}/x")


def test_a_jobs_name_is_its_loops_and_tickets_own_and_fits_everywhere(tmp_path: Path) -> None:
    names = {
        job_name(tmp_path / loop, ticket)
        for loop in ("a", "b", "A", "x" * 64)
        for ticket in (None, "t-1", "T_1", "été", "y" * 200)
    }
    assert len(names) == 20
    for name in names:
        assert len(name) <= 63 and set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-") and name[-1] != "-"


def test_srun_and_its_clean_up(tmp_path: Path) -> None:
    name = job(tmp_path).name
    assert command(parse("srun:-p gpu"), job(tmp_path), INNER) == [
        "srun",
        "--ntasks=1",
        f"--job-name={name}",
        "-p",
        "gpu",
        *INNER,
    ]
    assert clean_up(parse("srun"), name) == ["scancel", "--quiet", f"--user={os.geteuid()}", f"--name={name}"]


def test_ssh_asks_nobody_shares_no_connection_and_quotes_for_the_shell_there(tmp_path: Path) -> None:
    words = command(parse("ssh:-p 22 there"), job(tmp_path), INNER)
    assert words[:2] == ["ssh", "-T"] and words[-4:-1] == ["-p", "22", "there"]
    assert words[-1] == "exec python3 -c 'x y' pi --mode rpc"
    for option in ("BatchMode=yes", "ControlMaster=no", "ControlPath=none", "ServerAliveInterval=15"):
        assert option in words
    assert clean_up(parse("ssh:there"), "ralph-x") is None


def test_docker_is_named_without_rights_and_removed_by_its_name(tmp_path: Path) -> None:
    words = command(parse("docker:--memory 4g node:22"), job(tmp_path, "t-1"), INNER)
    name = job_name(tmp_path / ".ralph" / "night", "t-1")
    assert words[:6] == ["docker", "run", "--rm", "-i", "--name", name]
    assert words[-len(INNER) - 3 :] == ["--memory", "4g", "node:22", *INNER]
    told = " ".join(words)
    for part in (
        "--cap-drop ALL",
        "no-new-privileges",
        "--log-driver none",
        "--read-only",
        f"--volume {tmp_path}:{tmp_path}",
    ):
        assert part in told
    assert f"--user {os.geteuid()}:{os.getegid()}" in told and "--env" not in words and "-e" not in words
    assert clean_up(parse("docker:node:22"), name) == ["docker", "rm", "--force", name]


def test_kubectl_and_the_pod_that_it_leaves(tmp_path: Path) -> None:
    words = command(parse("kubectl:node:22 -n agents"), job(tmp_path), INNER)
    name = job(tmp_path).name
    own = ["-i", "--rm", "--restart=Never", "--quiet", "--image", "node:22"]
    assert words == ["kubectl", "run", name, *own, "-n", "agents", "--command", "--", *INNER]
    end = ["kubectl", "delete", "pod", name, "--ignore-not-found", "--grace-period=5", "-n", "agents"]
    assert clean_up(parse("kubectl:node:22 -n agents"), name) == end


def test_a_prefix_is_filled_and_keeps_its_words(tmp_path: Path) -> None:
    words = command(parse("x {name} {ticket} {cwd} {job} {other} a'b c'"), job(tmp_path, "t-1"), ["pi"])
    name = job(tmp_path, "t-1").name
    assert words == ["x", "night", "t-1", str(tmp_path), name, "{other}", "ab c", "pi"]


def test_the_repository_of_a_worktree_is_found(tmp_path: Path) -> None:
    project = new_project(tmp_path / "project")
    git(project, "worktree", "add", "-q", str(tmp_path / "tree"), "-b", "side")
    assert git_folder(project / "sub") == git_folder(tmp_path / "tree") == project / ".git"


@pytest.mark.usefixtures("no_leftovers")
def test_what_a_pod_says_before_anybody_is_attached_is_not_missed(tmp_path: Path) -> None:
    rig = far_rig(tmp_path, [[{"wait": 6}, {"tool": "bash", "run": "true"}, *does()]])
    rig.env["POD_LIVES"] = "0"
    # Idle for longer than this, the stream is cut: the keep-alive keeps it open.
    rig.start("--launcher", f"{ATTACH} 1.5 4", "--lease", "6s")
    assert rig.wait_end()["status"] == "completed", rig.log()
    assert [one["outcome"] for one in rig.records()] == ["ok"]


@pytest.mark.usefixtures("no_leftovers")
def test_a_pod_that_outlives_its_client_ends_by_its_lease_and_there_are_never_two(tmp_path: Path, token: str) -> None:
    work = f"setsid sleep {token} & while :; do echo x >> ticks; sleep 0.1; done; : {token}"
    rig = far_rig(tmp_path, [[{"tool": "bash", "run": work}, "never said"], does("cp ticks seen")])
    rig.env["POD_LIVES"] = "12"
    rig.start("--launcher", f"{ATTACH} 0 30", "--lease", "4s")
    until(lambda: len(survivors(token)) >= 2, "the tool")
    os.kill(rig.pids()[2], signal.SIGKILL)
    rig.wait_status("waiting")
    rig.wait_end(timeout=90)
    assert rig.state()["status"] == "completed", rig.log()
    assert (rig.project / "seen").read_bytes() == (rig.project / "ticks").read_bytes(), "there were two"


@pytest.mark.usefixtures("no_leftovers")
def test_doctor_ends_what_a_dead_runner_has_left_elsewhere(tmp_path: Path) -> None:
    rig = far_rig(tmp_path, [does("true")])
    rig.start()
    rig.wait_end()
    folder = rig.paths.dir / "far"
    folder.mkdir()
    name = job_name(rig.paths.dir, None)
    called = tmp_path / "called"
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "docker").write_text(f'#!/bin/sh\necho "$@" >> {called}\n')
    (tools / "docker").chmod(0o755)
    rig.env["PATH"] = f"{tools}:{os.environ['PATH']}"
    place = {"host": "n1", "pid": 1, "bootId": "b"}
    (folder / f"{name}.json").write_text(
        json.dumps({"job": name, "launcher": "docker:x", "leaseMs": 60000, "place": place})
    )
    (folder / "ralph-evil.json").write_text(json.dumps({"job": "ralph-x; rm", "launcher": "docker:x", "leaseMs": 1}))
    told = rig.run("doctor", check=None).stdout
    assert f"{name} on n1 may still run" in told and "evil" not in told
    assert (
        "may still run elsewhere"
        in rig.run("clean", "x", "--yes", check=None).stdout + rig.run("clean", check=None).stdout
    )
    assert not called.exists()
    assert "is gone" in rig.run("doctor", "--fix", check=None).stdout
    assert called.read_text() == f"rm --force {name}\n"
    assert not (folder / f"{name}.json").exists()


@pytest.mark.usefixtures("no_leftovers")
def test_the_next_start_ends_what_is_left_of_jobs_that_nobody_takes_up_again(tmp_path: Path) -> None:
    rig = far_rig(tmp_path, [does("true")])
    folder = rig.paths.dir / "far"
    folder.mkdir(parents=True)
    called = tmp_path / "called"
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "scancel").write_text(f'#!/bin/sh\necho "$@" >> {called}\n')
    (tools / "scancel").chmod(0o755)
    rig.env["PATH"] = f"{tools}:{os.environ['PATH']}"
    name = job_name(rig.paths.dir, "t-9")
    (folder / f"{name}.json").write_text(json.dumps({"job": name, "launcher": "srun:-p x", "leaseMs": 60000}))
    rig.start()
    assert rig.wait_end()["status"] == "completed", rig.log()
    assert called.read_text().split()[-1] == f"--name={name}"
    assert not list(folder.glob("*"))
    assert any(f"had started {name} elsewhere; it is gone" in one["message"] for one in rig.of("ralph_notice"))


def test_presets_are_all_known() -> None:
    assert presets.PRESETS == ("srun", "ssh", "bwrap", "podman", "docker", "kubectl")
