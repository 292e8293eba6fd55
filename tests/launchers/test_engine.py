"""Jobs on an engine: the head schedules, counts and merges; a job works in a clone, and may outlive the head."""

import importlib.util
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import processes_with
from tests.launchers.slurm import Slurm, kill, slurm, why_not
from tests.rig import git, wait_for
from tests.ticket_rig import TicketRig, does, fake_tickets

WITHOUT = "" if importlib.util.find_spec("psij") else "needs PSI/J: pip install -e '.[dev,cluster]'"
pytestmark = [pytest.mark.usefixtures("no_leftovers"), pytest.mark.timeout(300)]
needs_psij = pytest.mark.skipif(bool(WITHOUT), reason=WITHOUT)
needs_slurm = pytest.mark.skipif(bool(WITHOUT or why_not()), reason=WITHOUT or why_not() or "")


@pytest.fixture
def cluster() -> Iterator[Slurm]:
    with slurm() as made:
        yield made


@pytest.fixture(autouse=True)
def no_job_left(isolated: Path) -> Iterator[None]:
    """Jobs have a RALPH_HOME of their own, and so are not among those that `no_leftovers` finds."""
    yield
    home = f"HOME={isolated}"
    with suppress(AssertionError):
        wait_for("the end of all jobs", lambda: not processes_with(home), 15)
    left = processes_with(home)
    for pid in left:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert not left, left


def engine_rig(tmp_path: Path, count: int, scripts: dict[str, Any] | None = None) -> tuple[TicketRig, list[str]]:
    rig = fake_tickets(tmp_path, scripts)
    ids = [f"t-{n}" for n in range(1, count + 1)]
    for id in ids:
        rig.add(id, id)
    rig.commit()
    return rig, ids


def check_all(rig: TicketRig, ids: list[str]) -> None:
    """Each ticket is closed and merged once, the money is that of the records, and nothing is left at the hub."""
    rig.check_done(*ids)
    state = rig.state()
    assert state["stats"]["cost"] == pytest.approx(sum(record["cost"] for record in rig.records()))
    assert state["stats"]["iterations"] == sum(record["outcome"] != "crashed" for record in rig.records())
    assert git(rig.project, "for-each-ref", "refs/ralph") == ""


@needs_psij
def test_local_jobs_do_the_tickets_and_leave_nothing(tmp_path: Path, isolated: Path) -> None:
    rig, ids = engine_rig(tmp_path, 3)
    rig.begin("--engine", "local", "--parallel", "3", "--verify", "grep -q work t-*.txt")
    rig.wait_end(120)
    check_all(rig, ids)
    assert {record["job"] for record in rig.records()} == {"1.1"}
    assert not list((isolated / "tmp").glob("ralph-work-*/*"))


def _jobs(cluster: Slurm) -> list[str]:
    return [row for row in cluster.queue() if row.startswith("ralph-")]


def workers(home: Path) -> list[int]:
    """The `ralph-rpc work` of each job that runs."""
    return [pid for pid, command in processes_with(f"HOME={home}").items() if "-m ralph_rpc work " in command]


@needs_slurm
def test_jobs_on_slurm_survive_a_killed_worker_and_a_killed_head(
    tmp_path: Path, cluster: Slurm, isolated: Path
) -> None:
    rig, ids = engine_rig(tmp_path, 5, {"usual": [does("while [ ! -e $HOME/go ]; do sleep 0.05; done")]})
    rig.env |= cluster.env
    rig.begin("--engine", "slurm", "--parallel", "3", "--max-cost", "5")
    wait_for(f"three agents\n{rig.log()}", lambda: len(workers(isolated)) >= 3, 120)
    rig.kill_runner()
    assert len(_jobs(cluster)) == 3
    (isolated / "go").touch()
    wait_for("the end of the jobs", lambda: not _jobs(cluster), 120)
    (isolated / "go").unlink()
    rig.resume()
    wait_for(f"the others\n{rig.log()}", lambda: workers(isolated), 120)
    kill(workers(isolated)[0])
    (isolated / "go").touch()
    rig.wait_end(200)
    check_all(rig, ids)
    assert not _jobs(cluster)
    assert [record["errorKind"] for record in rig.records() if record["outcome"] == "crashed"] == ["lost"]


@needs_slurm
@pytest.mark.parametrize("how", ["stop", "kill", "kill -9 and doctor"])
def test_what_ends_the_loop_ends_its_jobs_and_counts_their_money(
    tmp_path: Path, cluster: Slurm, isolated: Path, how: str
) -> None:
    """Six places for eight jobs: some run, two are queued."""
    steps = [{"tool": "bash", "run": "touch $HOME/at-$RALPH_TICKET; sleep 1000"}, "never said"]
    rig, _ = engine_rig(tmp_path, 8, {"usual": [steps]})
    rig.env |= cluster.env
    rig.begin("--engine", "slurm", "--parallel", "8")
    wait_for(f"six agents\n{rig.log()}", lambda: len(list(isolated.glob("at-*"))) == 6, 120)
    wait_for("eight jobs", lambda: len(_jobs(cluster)) == 8)
    match how:
        case "stop":
            rig.run("stop", "x", "--now")
        case "kill":
            rig.run("kill", "x")
        case _:
            rig.kill_runner()
            rig.run("clean", "x", "--yes", check=None)
            told = rig.run("doctor", "--fix", check=None).stdout
            assert "ended job" in told, told
    wait_for(f"an empty queue, has {cluster.queue()}", lambda: not _jobs(cluster), 100)
    if how == "kill -9 and doctor":
        rig.run("resume", "x")
        wait_for(f"six records\n{rig.log()}", lambda: len(rig.records()) >= 6)
        rig.run("stop", "x", "--now")
    state = rig.wait_end(90)
    assert state["status"] == "stopped", state
    ended = [record for record in rig.records() if record["job"] == "1.1"]
    assert len(ended) == 6 and {record["outcome"] for record in ended} <= {"aborted", "crashed"}, rig.records()
    assert min(record["cost"] for record in ended) > 0, ended
    assert state["stats"]["cost"] == pytest.approx(sum(record["cost"] for record in rig.records()))
    assert {rig.dispatch(f"t-{n}")["status"] for n in range(1, 9)} == {"orphaned"}


@needs_slurm
@pytest.mark.parametrize("how", ["scancel", "requeue"])
def test_a_job_that_slurm_ends_is_paid_for_and_submitted_again(
    tmp_path: Path, cluster: Slurm, isolated: Path, how: str
) -> None:
    """Its record comes although the shell around it got the signal too; begun again by Slurm, it finds nothing to do."""
    rig, ids = engine_rig(
        tmp_path, 1, {"usual": [does("touch $HOME/at; while [ ! -e $HOME/go ]; do sleep 0.05; done")]}
    )
    rig.env |= cluster.env
    rig.begin("--engine", "slurm")
    wait_for(f"the agent\n{rig.log()}", (isolated / "at").exists, 120)
    wait_for("its job's number", lambda: (rig.dispatch("t-1")["job"] or {}).get("state") == "active")
    id = rig.dispatch("t-1")["job"]["id"]
    cluster.run(*(["scancel", id] if how == "scancel" else ["scontrol", "requeue", id]))
    wait_for(f"the record\n{rig.log()}", rig.records, 60)
    (isolated / "go").touch()
    rig.wait_end(120)
    check_all(rig, ids)
    first, second = rig.records()
    assert first["job"] == "1.1" and first["outcome"] in ("aborted", "crashed") and first["cost"] > 0
    assert second["job"] == "2.1" and rig.dispatch("t-1")["attempt"] == 1
    cluster.run("scancel", id)


@needs_slurm
@pytest.mark.full
@pytest.mark.timeout(1200)
def test_sixty_tickets_with_six_workers_and_the_head_killed(tmp_path: Path, isolated: Path) -> None:
    rig, ids = engine_rig(tmp_path, 60, {"usual": [does("sleep 2")]})
    with slurm(cpus=4) as cluster:
        rig.env |= cluster.env
        rig.begin("--engine", "slurm", "--parallel", "12", "--verify", "grep -q work t-*.txt")
        killed: set[int] = set()

        def closed() -> int:
            return sum(rig.dispatch(id).get("status") == "closed" for id in ids)

        for victims in range(1, 7):
            goal = victims * 5
            wait_for(f"progress\n{rig.log()}", lambda: closed() >= goal, 400)  # noqa: B023
            found = wait_for("a worker", lambda: [pid for pid in workers(isolated) if pid not in killed], 120)
            killed.add(found[0])
            kill(found[0])
            if victims == 3:
                rig.kill_runner()
                rig.resume()
        rig.wait_end(600)
        check_all(rig, ids)
        wait_for(f"an empty queue, has {cluster.queue()}", lambda: not _jobs(cluster), 30)
    assert len(killed) == 6
    assert sum(record["outcome"] == "ok" for record in rig.records()) == 60
