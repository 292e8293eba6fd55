"""pi by srun: a real Slurm with three nodes on this machine. What a scheduler does to a job, and what becomes of the loop."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.launchers.far import does, far_rig
from tests.launchers.slurm import Slurm, kill, slurm, why_not
from tests.process.trees import new_token, nothing_of, survivors, until
from tests.rig import Rig, wait_for
from tests.ticket_rig import fake_tickets

pytestmark = [
    pytest.mark.usefixtures("no_leftovers"),
    pytest.mark.skipif(why_not() is not None, reason=why_not() or ""),
    pytest.mark.timeout(240),
]
TREE = "setsid sleep {t} & env -i /usr/bin/setsid sh -c '/bin/sleep {t} &'; sleep {t}"


@pytest.fixture
def cluster() -> Iterator[Slurm]:
    with slurm() as made:
        yield made


@pytest.fixture
def token() -> Iterator[str]:
    token = new_token()
    with nothing_of(token):
        yield token


def srun_rig(tmp_path: Path, cluster: Slurm, script: list[Any]) -> Rig:
    rig = far_rig(tmp_path, script)
    rig.env |= cluster.env
    return rig


def at_work(tmp_path: Path, cluster: Slurm, token: str, *more: str, launcher: str = "srun") -> Rig:
    """A loop whose first agent works for ever on a node, and whose second is done at once."""
    rig = srun_rig(
        tmp_path, cluster, [[{"tool": "bash", "run": TREE.format(t=token)}, "never said"], does("echo again > out")]
    )
    rig.start("--launcher", launcher, "--lease", "8s", *more)
    until(lambda: len(survivors(token)) >= 3, f"the tool\n{rig.log()}")
    return rig


@contextmanager
def all_taken(cluster: Slurm, token: str, *words: str) -> Iterator[None]:
    """Somebody has all the nodes."""
    env = {**os.environ, **cluster.env}
    with subprocess.Popen(
        ["srun", "-N3", "--exclusive", *words, "sleep", token], env=env, stderr=subprocess.PIPE
    ) as it:
        try:
            wait_for("their start", lambda: sum(" RUNNING " in job for job in cluster.queue() if "sleep" in job))
            yield
        finally:
            it.send_signal(signal.SIGINT)
            it.terminate()


def ours(cluster: Slurm) -> list[str]:
    return [job for job in cluster.queue() if job.startswith("ralph-") and "COMPLETING" not in job]


def test_a_queued_loop_waits_says_why_and_runs_when_it_is_its_turn(tmp_path: Path, cluster: Slurm, token: str) -> None:
    rig = srun_rig(tmp_path, cluster, [does("echo $RALPH_LOOP $SLURM_JOB_NAME > out")])
    with all_taken(cluster, token):
        told = rig.start("--launcher", "srun").stdout
        state = rig.wait_status("waiting")
        assert state["waitingFor"] == "queued" and "queued and waiting for resources" in state["error"], state["error"]
        assert "waiting" in told
    assert rig.wait_end()["status"] == "completed", rig.log()
    assert (rig.project / "out").read_text().startswith("x ralph-x-")
    assert not ours(cluster)


@pytest.mark.parametrize("how", [("stop", "x"), ("kill", "x"), "runner"])
def test_what_is_queued_leaves_the_queue_by_itself(tmp_path: Path, cluster: Slurm, token: str, how: Any) -> None:
    rig = srun_rig(tmp_path, cluster, [does("true")])
    with all_taken(cluster, token):
        rig.start("--launcher", "srun")
        rig.wait_status("waiting")
        assert len(ours(cluster)) == 1
        if how == "runner":
            rig.kill(rig.pids()[0])
        else:
            rig.run(*how)
        # On an idle machine it takes a second; the sweep of a next start would take for ever, as there is none.
        until(lambda: not ours(cluster), "an empty queue")
        if how != "runner":
            rig.wait_end()


@pytest.mark.parametrize(
    ("track", "end"), [("linuxproc", "runner"), ("cgroup", "stop"), ("cgroup", "srun"), ("linuxproc", "scancel")]
)
def test_nobody_is_left_on_the_node(tmp_path: Path, token: str, track: str, end: str) -> None:
    """With each of Slurm's ways to know what belongs to a job; linuxproc loses what detaches itself."""
    with slurm(track) as cluster:
        _ended(tmp_path, cluster, token, end)


def _ended(tmp_path: Path, either: Slurm, token: str, end: str) -> None:
    rig = at_work(tmp_path, either, token)
    runner, _, srun = rig.pids()
    match end:
        case "runner" | "srun":
            kill(runner if end == "runner" else srun)
        case "stop":
            rig.run("stop", "x", "--now")
        case _:
            either.run("scancel", "--user=root")
    until(lambda: not survivors(token), "nobody left")
    if end == "runner":
        rig.run("resume", "x")
    if end != "stop":
        assert rig.wait_end()["status"] == "completed", rig.log()
        record = rig.records()[0]
        assert record["outcome"] == "crashed"
        if end == "scancel":
            assert record["errorKind"] == "lost" and "was ended on" in record["error"], record["error"]
        assert rig.state()["stats"]["iterations"] == 1
    until(lambda: not ours(either), "an empty queue", 15)


def test_a_preempted_job_is_queued_again(tmp_path: Path, cluster: Slurm, token: str) -> None:
    rig = at_work(tmp_path, cluster, token, launcher="srun:--partition=low")
    other = new_token()
    with nothing_of(other), all_taken(cluster, other, "--partition=high"):
        until(lambda: not survivors(token), "nobody left")
        wait_for("the queue again", lambda: rig.state().get("waitingFor") == "queued")
    assert rig.wait_end()["status"] == "completed", rig.log()
    assert rig.records()[0]["errorKind"] == "lost" and "by somebody there" in rig.records()[0]["error"]


@pytest.mark.full
def test_a_time_limit_ends_pi_and_the_loop_goes_on_in_the_next_job(tmp_path: Path, cluster: Slurm, token: str) -> None:
    rig = at_work(tmp_path, cluster, token, launcher="srun:--time=1")  # a minute, Slurm's shortest
    wait_for("nobody left", lambda: not survivors(token), 150)
    assert rig.wait_end(timeout=120)["status"] == "completed", rig.log()
    record = rig.records()[0]
    assert record["errorKind"] == "lost" and rig.state()["stats"]["iterations"] == 1, record
    until(lambda: not ours(cluster), "an empty queue")


def test_a_node_that_dies_is_lost_and_the_loop_goes_on_elsewhere(tmp_path: Path, token: str) -> None:
    with slurm(node_timeout=10) as cluster:
        rig = at_work(tmp_path, cluster, token)
        node = cluster.queue()[0].split()[-1]
        for pid in cluster.steps_of(node):
            kill(pid)
        until(lambda: not survivors(token), "nobody left")
        state = rig.wait_status("waiting", timeout=60)
        assert state["waitingFor"] == "lost", state["error"]
        assert rig.wait_end(timeout=120)["status"] == "completed", rig.log()
        assert rig.records()[0]["errorKind"] == "lost" and "was lost" in rig.records()[0]["error"]


def test_tickets_are_worked_on_by_every_node_and_all_are_merged(tmp_path: Path, cluster: Slurm) -> None:
    rig = fake_tickets(tmp_path)
    rig.env |= cluster.env
    ids = [f"t-{n}" for n in range(1, 13)]
    for id in ids:
        rig.add(id, id)
    rig.begin("--parallel", "6", "--launcher", """srun:--exact --cpus-per-task=1""")
    nodes: set[str] = set()

    def over() -> bool:
        nodes.update(job.split()[2] for job in cluster.queue() if job.startswith("ralph-") and " RUNNING " in job)
        return rig.state().get("status") in ("completed", "error", "stopped")

    wait_for("the end", over, 120)
    rig.check_done(*ids)
    assert nodes == set(cluster.nodes)
    until(lambda: not ours(cluster), "an empty queue", 15)


def test_a_key_is_in_no_file_of_slurms(
    tmp_path: Path, cluster: Slurm, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANARY_KEY", "canary-4711-key")
    rig = at_work(tmp_path, cluster, token, "--launcher-env", "CANARY_KEY")
    for top in (cluster.folder, rig.paths.dir):
        for path in top.rglob("*"):
            assert not path.is_file() or b"canary-4711" not in path.read_bytes(), path
    rig.run("stop", "x", "--now")
    assert rig.wait_end()["status"] == "stopped"


def test_what_slurm_refuses_is_said_at_once(tmp_path: Path, cluster: Slurm) -> None:
    rig = srun_rig(tmp_path, cluster, [does("true")])
    done = rig.start("--launcher", "srun:--partition=nosuch", check=5)
    assert "Invalid partition" in done.stderr and "srun:--partition=nosuch started nothing" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def batch(tmp_path: Path, cluster: Slurm, rig: Rig, *words: str) -> str:
    """A whole loop as a batch job: its id."""
    script = tmp_path / "job.sh"
    command = " ".join([sys.executable, "-P", "-m", "ralph_rpc", *words])
    script.write_text(f"#!/bin/sh\ncd {rig.project}\nexec {command}\n")
    done = subprocess.run(
        ["sbatch", "--parsable", "--requeue", f"--output={tmp_path}/job.out", str(script)],
        env={**rig.env, **cluster.env},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_a_whole_loop_as_a_batch_job_stops_when_it_is_cancelled_and_is_resumed_by_the_next(
    tmp_path: Path, cluster: Slurm, token: str
) -> None:
    rig = srun_rig(
        tmp_path, cluster, [[{"tool": "bash", "run": TREE.format(t=token)}, "never said"], does("echo again > out")]
    )
    job = batch(tmp_path, cluster, rig, "start", "x", "--pi", rig.pi, "-m", "work", "--foreground")
    until(lambda: len(survivors(token)) >= 3, f"the tool\n{rig.log()}")
    cluster.run("scancel", job)
    until(lambda: not survivors(token), "nobody left")
    state = rig.wait_end()
    assert state["status"] == "stopped" and state["stopReason"] in ("stop", "kill"), state
    assert [one["outcome"] for one in rig.records()] == ["aborted"]
    wait_for("an empty queue", lambda: not cluster.queue())
    batch(tmp_path, cluster, rig, "resume", "x", "--foreground")
    wait_for("the end", lambda: rig.state()["status"] == "completed")
    assert [one["outcome"] for one in rig.records()] == ["aborted", "ok"]
    wait_for("an empty queue", lambda: not cluster.queue())
