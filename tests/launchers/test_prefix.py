"""Loops whose pi is behind a launcher: words before pi's. What runs over there is here, in a process of its own."""

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ralph_rpc.launchers.presets import job_name
from tests.launchers.far import does, far_rig
from tests.process.trees import new_token, nothing_of, survivors, until
from tests.rig import Rig

pytestmark = pytest.mark.usefixtures("no_leftovers")
GATE = """sh -c 'echo "job 5 queued and waiting" >&2; while [ ! -e {gate} ]; do sleep 0.05; done; exec "$@"' sh"""


@pytest.fixture
def token() -> Iterator[str]:
    token = new_token()
    with nothing_of(token):
        yield token


def far_jobs(rig: Rig) -> list[str]:
    return [path.stem for path in (rig.paths.dir / "far").glob("*")]


def test_the_log_holds_what_pi_wrote_and_nothing_of_the_far_guard(tmp_path: Path) -> None:
    rig = far_rig(tmp_path, [does("echo hello; seq 1 3000")])
    raw = tmp_path / "raw"
    rig.start("--launcher", f"""sh -c '"$@" | tee {raw}' sh""")
    state = rig.wait_end()
    assert (state["status"], state["stopReason"]) == ("completed", "marker"), rig.log()
    lines = [line for line in raw.read_bytes().split(b"\n") if line]
    assert b'"ralph_far"' in lines[0] and b'"ralph_far_exit"' in lines[-1]
    kept = [{k: v for k, v in e.items() if k != "ralph"} for e in rig.events() if not e["type"].startswith("ralph_")]
    assert kept == [json.loads(line) for line in lines[1:-1]]
    assert rig.of("ralph_pi_start")[0]["host"] == os.uname().nodename
    assert far_jobs(rig) == []


def test_what_waits_in_a_queue_is_shown_as_that(tmp_path: Path) -> None:
    rig = far_rig(tmp_path, [does("true")])
    gate = tmp_path / "go"
    began = time.monotonic()
    told = rig.start("--launcher", GATE.format(gate=gate)).stdout
    assert "waiting" in told and "job 5 queued and waiting" in told
    assert time.monotonic() - began < 30
    state = rig.state()
    assert (state["status"], state["waitingFor"]) == ("waiting", "queued")
    assert state["error"] == "queued: job 5 queued and waiting"
    assert "job 5 queued" in rig.run("status", "x").stdout
    gate.touch()
    state = rig.wait_end()
    assert state["status"] == "completed", rig.log()
    assert state["waitingFor"] is None


def test_a_queue_is_left_after_queue_timeout(tmp_path: Path) -> None:
    rig = far_rig(tmp_path, [does("true")])
    rig.start("--launcher", GATE.format(gate=tmp_path / "never"), "--queue-timeout", "3s")
    state = rig.wait_end()
    assert (state["status"], state["stopReason"]) == ("error", "blocked")
    assert "--queue-timeout (3 s)" in state["error"] and "job 5 queued" in state["error"]
    assert far_jobs(rig) == []


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_loop_that_is_queued_can_be_ended(tmp_path: Path, how: str) -> None:
    rig = far_rig(tmp_path, [does("true")])
    rig.start("--launcher", GATE.format(gate=tmp_path / "never"))
    rig.run(how, "x")
    assert rig.wait_end()["status"] == "stopped"
    assert far_jobs(rig) == []


def test_a_far_side_that_is_lost_is_waited_for_and_costs_nothing(tmp_path: Path, token: str) -> None:
    tree = f"setsid sleep {token} & sleep {token}"
    rig = far_rig(tmp_path, [[{"tool": "bash", "run": tree}, "never said"], does("echo again > out")])
    rig.start("--launcher", "env", "--max-failures", "1")
    until(lambda: len(survivors(token)) >= 2, "the tool")
    rig.kill(rig.pids()[2])
    state = rig.wait_end()
    assert (state["status"], state["stopReason"]) == ("completed", "marker"), (state["error"], rig.log())
    first, second = rig.records()
    assert (first["outcome"], first["errorKind"]) == ("crashed", "lost")
    assert os.uname().nodename in first["error"] and "(env) was lost" in first["error"]
    assert second["outcome"] == "ok" and state["stats"]["iterations"] == 1
    assert not survivors(token)


def test_a_launcher_that_is_stopped_is_lost_after_the_lease(tmp_path: Path, token: str) -> None:
    rig = far_rig(tmp_path, [[{"tool": "bash", "run": f"sleep {token}"}, "never said"], does("true")])
    rig.start("--launcher", "env", "--lease", "4s")
    until(lambda: survivors(token), "the tool")
    rig.kill(rig.pids()[2], signal.SIGSTOP)
    state = rig.wait_end()
    assert state["status"] == "completed", (state["error"], rig.log())
    assert [one.get("errorKind") for one in rig.records()] == ["lost", None]
    assert not survivors(token)


@pytest.mark.parametrize("victims", [("runner",), ("runner", "guard")])
def test_nobody_is_left_when_the_near_side_is_killed(tmp_path: Path, token: str, victims: tuple[str, ...]) -> None:
    tree = f"setsid sleep {token} & env -i /usr/bin/setsid sh -c '/bin/sleep {token} &'; sleep {token}"
    rig = far_rig(tmp_path, [[{"tool": "bash", "run": tree}, "never said"], does("true")])
    rig.start("--launcher", "env")
    until(lambda: len(survivors(token)) >= 3, "the tool")
    runner, guard, _ = rig.pids()
    for pid in [runner, guard][: len(victims)]:
        os.kill(pid, signal.SIGKILL)
    until(lambda: not survivors(token), "nobody left", 3 * (1 + 2 * bool(os.environ.get("CI"))))
    rig.run("resume", "x")
    assert rig.wait_end()["status"] == "completed", rig.log()
    assert far_jobs(rig) == []


def test_no_second_pi_is_started_while_one_elsewhere_may_run(tmp_path: Path) -> None:
    rig = far_rig(tmp_path, [does("true")])
    folder = rig.paths.dir / "far"
    folder.mkdir(parents=True)
    name = job_name(rig.paths.dir, None)
    place = {"host": "gone", "pid": 1, "bootId": "another", "pidSpace": "pid:[1]"}
    job = folder / f"{name}.json"
    job.write_text(json.dumps({"job": name, "launcher": "env", "leaseMs": 4000, "place": place}))
    os.utime(job, (time.time() - 9, time.time() - 9))  # 5 s are left of the lease and ten seconds
    until_free = job.stat().st_mtime + 14
    told = rig.start("--launcher", "env", "--lease", "4s").stdout
    state = rig.wait_status("waiting", "completed")
    assert state["status"] == "waiting" and "may still run" in state["error"] and "waiting" in told
    assert rig.wait_end()["status"] == "completed", rig.log()
    assert rig.of("ralph_pi_start")[0]["at"] / 1000 >= until_free
    assert far_jobs(rig) == []


def test_a_key_goes_by_stdin_and_stands_in_no_command_line_and_no_file(
    tmp_path: Path, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANARY_KEY", "canary-4711-key")
    seen = tmp_path / "seen"
    run = f"echo $CANARY_KEY $RALPH_LOOP > {seen}; sleep {token}"
    rig = far_rig(tmp_path, [[{"tool": "bash", "run": run}, "never said"]])
    rig.start("--launcher", "env -u CANARY_KEY", "--launcher-env", "CANARY_KEY")
    until(lambda: survivors(token), "the tool")
    assert seen.read_text() == "canary-4711-key x\n"
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert b"canary-4711" not in entry.read_bytes(), entry
        except OSError:
            continue
    rig.run("stop", "x", "--now")
    assert rig.wait_end()["status"] == "stopped"
    for path in rig.paths.dir.rglob("*"):
        assert not path.is_file() or b"canary-4711" not in path.read_bytes(), path


def test_a_prefix_knows_what_it_starts(tmp_path: Path) -> None:
    rig = far_rig(tmp_path, [does("true")])
    said = tmp_path / "said"
    rig.start("--launcher", f"""sh -c 'echo $0 $1 $2 > {said}; shift 2; exec "$@"' {{name}} {{cwd}} {{job}}""")
    assert rig.wait_end()["status"] == "completed", rig.log()
    assert said.read_text().split() == ["x", str(rig.project), job_name(rig.paths.dir, None)]


@pytest.mark.parametrize(
    ("launcher", "more", "says"),
    [
        ("no-such-launcher", [], "there is no program 'no-such-launcher' here"),
        ("ssh", [], "needs a host: ssh:HOST"),
        ("podman", [], "needs an image: podman:IMAGE"),
        ("sh 'unbalanced", [], "No closing quotation"),
        (" ", [], "must not be empty"),
        ("env", ["--launcher-env", "NOT_SET_HERE"], "not set in your environment"),
        ("env", ["--launcher-env", "1BAD"], "expected names of variables"),
        ("env", ["--lease", "1s"], "expected a time from 4s to 1h"),
        ("sh -c 'echo no such partition >&2; exit 1'", [], "sh started nothing (exit code 1: no such partition)"),
        ("sh -c 'exit 0'", [], "sh started nothing (exit code 0)"),
        ("sh -c 'echo sh: python3: not found >&2; exit 127'", [], "python3 is needed there"),
    ],
)
def test_a_launcher_that_cannot_work_is_said_in_one_line(
    tmp_path: Path, launcher: str, more: list[str], says: str
) -> None:
    rig = far_rig(tmp_path, [does("true")])
    done = rig.start("--launcher", launcher, *more, check=None)
    assert done.returncode in (2, 5), done
    assert says in done.stderr and "Is it pi" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert not rig.paths.state.exists()


def test_a_pi_that_is_not_there_is_said_with_the_machines_name(tmp_path: Path) -> None:
    rig = far_rig(tmp_path, [does("true")])
    done = rig.run("start", "x", "-m", "work", "--pi", "no-such-pi", "--launcher", "env", check=5)
    assert f"pi cannot be started on {os.uname().nodename} (env): no-such-pi: No such file" in done.stderr
    assert "--pi" in done.stderr


def test_launcher_env_without_a_launcher_is_refused(tmp_path: Path) -> None:
    rig = far_rig(tmp_path, [does("true")])
    assert "--launcher-env needs --launcher" in rig.start("--launcher-env", "HOME", check=2).stderr


def test_tickets_run_through_a_launcher_each_as_a_job_of_its_own(tmp_path: Path) -> None:
    from tests.ticket_rig import fake_tickets

    rig = fake_tickets(tmp_path)
    for id in ("t-1", "t-2", "t-3"):
        rig.add(id, id)
    said = tmp_path / "said"
    launcher = f"""sh -c 'echo $0 $1 >> {said}; shift; exec "$@"' {{ticket}} {{job}}"""
    rig.begin("--parallel", "3", "--launcher", launcher)
    rig.check_done("t-1", "t-2", "t-3")
    rows = sorted(line.split() for line in said.read_text().splitlines())
    assert rows == [[id, job_name(rig.paths.dir, id)] for id in ("t-1", "t-2", "t-3")]
    assert re.fullmatch("ralph-x-t-1-[0-9a-f]{10}", rows[0][1])
    assert far_jobs(rig) == []
