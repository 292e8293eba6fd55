"""Counted equals billed: what state.json, the records and `report` say against what the model charged.

Runner and pi are killed, iterations aborted and paused, at any instant, while pi retries, compacts its context and keeps
its cache warm. Every request of these models costs the same, so what is missing is a number of requests, and no more
may be missing than are flagged as unpriced. What a pi still asks in the instants between its runner's death and its own
nobody can read; that is told apart by the time on the bill.
"""

import json
import os
import random
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from ralph_rpc.clock import now_ms
from ralph_rpc.loops.launch import launch
from ralph_rpc.machine import locks
from tests.faults.conftest import Note
from tests.faults.tiers import times
from tests.rig import Rig, alive, fake_rig, wait_for
from tests.ticket_rig import fake_tickets

pytestmark = [pytest.mark.usefixtures("no_leftovers"), pytest.mark.timeout(900)]
PRICE = 0.01
"""Of every request."""
WARMING = {"every": 0.2, "cost": PRICE}
PROMPTS: list[list[dict[str, Any]]] = [
    [{"tool": "bash", "seconds": 0.15, "cost": PRICE}, {"reply": "one two three four", "pace": 0.05, "cost": PRICE}],
    [{"error": "529: Overloaded", "retries": 2, "delay": 0.05}, {"reply": "at last", "cost": PRICE}],
    [{"compaction": "threshold", "price": PRICE}, {"reply": "a b c", "pace": 0.05, "cost": PRICE}],
    [{"warm": PRICE}, {"tool": "bash", "seconds": 0.1, "cost": PRICE}, {"warm": PRICE}, {"reply": "x", "cost": PRICE}],
    [{"reply": "short", "cost": PRICE}],
]
DYING_MS = 1_000
"""Longer than a pi outlives its runner."""
PI_KILLS = 2
"""A loop waits longer for each pi that it starts anew."""


def billed(file: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in file.read_bytes().splitlines()]
    except FileNotFoundError:
        return []


def wait_for_bills(file: Path, count: int) -> None:
    wait_for(f"{count} requests on the bill", lambda: len(billed(file)) >= count)


def check(rig: Rig, bill: list[dict[str, Any]], slack: int, deaths: Sequence[int] = ()) -> str:
    """All that counts says the same, and nothing of the bill is missing without a flag.

    `slack`: how many flags may be too many; `deaths`: when runners were killed, epoch milliseconds.
    """
    unheard = sum(any(0 <= one["at"] - death < DYING_MS for death in deaths) for one in bill)
    stats, records = rig.state()["stats"], rig.records()
    report = json.loads(rig.run("report", rig.name, "--format", "json", "-o", "-").stdout)["summary"]
    unpriced = stats["unpricedRequests"]
    for key in ("cost", "tokensIn", "tokensOut", "cacheRead", "cacheWrite", "unpricedRequests"):
        assert sum(one[key] for one in records) == pytest.approx(stats[key]), key
    assert (report["cost"], report["unpriced"]) == (pytest.approx(stats["cost"]), unpriced)
    missing = sum(one["cost"] for one in bill) - stats["cost"]
    requests = round(missing / PRICE)
    told = f"{len(bill)} requests billed, {requests} not counted, {unpriced} flagged, {unheard} unheard"
    assert missing == pytest.approx(requests * PRICE, abs=1e-6), told
    assert 0 <= requests <= unpriced + unheard and unpriced <= requests + slack, told
    return told


class Life:
    """One loop that is disturbed at random."""

    def __init__(self, rig: Rig, bill: Path, seed: int) -> None:
        self.rig, self.bill, self.random = rig, bill, random.Random(seed)
        rig.env["FAKE_PI_BILL"] = os.environ["FAKE_PI_BILL"] = str(bill)
        self.kills = self.pi_kills = 0
        self.deaths: list[int] = []

    def kill_runner(self) -> None:
        runner = self.rig.state()["pid"]
        self.deaths.append(now_ms() - 5)
        os.kill(runner, signal.SIGKILL)
        wait_for("the runner's death", lambda: not alive(runner))
        self.kills += 1
        lock = locks.acquire(self.rig.paths.runner_lock, 5.0)
        assert lock, "the runner's lock is held after its death"
        runner = launch(self.rig.paths, lock, resume=True).pid
        wait_for(f"the next runner\n{self.rig.log()}", lambda: self.rig.state()["pid"] == runner)

    def kill_pi(self) -> None:
        pi = self.rig.state()["piPid"]
        if pi is not None and self.pi_kills < PI_KILLS:
            with suppress(ProcessLookupError):
                os.kill(pi, signal.SIGKILL)
            self.kills += 1
            self.pi_kills += 1

    def pause(self) -> None:
        """Long enough for an idle session to be warmed several times, if there were one."""
        self.rig.run("pause", self.rig.name)
        wait_for("the pause", lambda: self.rig.state()["status"] in ("paused", "waiting"))
        time.sleep(3 * WARMING["every"])
        self.rig.run("resume", self.rig.name)

    def abort(self) -> None:
        self.rig.run("abort", self.rig.name)
        self.kills += 1

    def live(self, faults: int) -> str:
        self.rig.start("-n", "0", "--max-failures", "0", "--stall-after", "0")
        for _ in range(faults):
            time.sleep(self.random.uniform(0, 0.7))
            self.random.choice([self.kill_runner, self.kill_runner, self.kill_pi, self.abort, self.pause])()
        time.sleep(self.random.uniform(0, 0.5))
        self.rig.run("stop", self.rig.name, *self.random.choice([[], ["--now"]]))
        self.rig.wait_end()
        return check(self.rig, billed(self.bill), slack=self.kills + 1, deaths=self.deaths)


@pytest.mark.parametrize("generation", ["new", "old"])
@times(quick=2, full=60)
def test_row_50_counted_equals_billed_whatever_is_killed_aborted_paused_and_retried(
    tmp_path: Path, generation: str, count: int, figure: Note, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FAKE_PI_BILL", raising=False)
    for seed in range(count):
        folder = tmp_path / f"{seed}"
        folder.mkdir()
        chosen = random.Random(seed)
        prompts = [chosen.choice(PROMPTS) for _ in range(20)] + [PROMPTS[0]]
        rig = fake_rig(folder, {"prompts": prompts, "warming": WARMING}, generation)
        figure(f"{generation}, seed {seed}: {Life(rig, folder / 'bill', seed).live(faults=8)}")


@times(quick=1, full=20)
def test_row_50_counted_equals_billed_for_workers_side_by_side_whose_runner_is_killed(
    tmp_path: Path, count: int, figure: Note, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FAKE_PI_BILL", raising=False)
    for seed in range(count):
        folder, chosen = tmp_path / f"{seed}", random.Random(seed)
        folder.mkdir()
        work = [[*chosen.choice(PROMPTS), *chosen.choice(PROMPTS)] for _ in range(8)]
        tickets = ("a", "b", "c", "d")
        rig = fake_tickets(folder, {id: chosen.sample(work, len(work)) for id in tickets})
        rig.env["FAKE_PI_BILL"] = os.environ["FAKE_PI_BILL"] = str(folder / "bill")
        for id in tickets:
            rig.add(id, id)
        rig.commit()
        deaths: list[int] = []
        rig.begin("--parallel", "3", "--attempts", "3")
        for _ in range(3):
            time.sleep(chosen.uniform(0.2, 1.5))
            if rig.state()["status"] in ("completed", "stopped", "error"):
                break
            deaths.append(now_ms() - 5)
            rig.kill_runner()
            rig.resume()
        if rig.state()["status"] not in ("completed", "stopped", "error"):
            rig.run("stop", "x", "--now")
        rig.wait_end()
        figure(f"seed {seed}: {check(rig, billed(folder / 'bill'), slack=12, deaths=deaths)}")


def test_row_50_an_idle_session_is_left_so_that_pi_warms_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bill = tmp_path / "bill"
    monkeypatch.setenv("FAKE_PI_BILL", str(bill))
    rig = fake_rig(tmp_path, {"prompts": [[{"reply": "done", "cost": PRICE}]], "warming": WARMING})
    rig.start("--verify", "sleep 0.6", "--marker", "done", "-n", "2")
    assert rig.wait_end()["status"] == "completed"
    assert len(billed(bill)) == 1, "during the verification"
    rig.start("-n", "0", "--stall-after", "0")
    rig.run("pause", "x")
    rig.wait_status("paused")
    before = len(billed(bill))
    time.sleep(4 * WARMING["every"])
    assert len(billed(bill)) == before
    rig.run("stop", "x")
    rig.wait_end()


def test_row_50_what_is_charged_in_a_pause_is_counted_and_ends_a_loop_at_its_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bill = tmp_path / "bill"
    monkeypatch.setenv("FAKE_PI_BILL", str(bill))
    prompts = [[{"tool": "bash", "seconds": 2, "cost": PRICE}, {"reply": "x", "cost": PRICE}]]
    rig = fake_rig(tmp_path, {"prompts": prompts, "warming": {**WARMING, "sticky": True}})
    rig.start("-n", "0", "--stall-after", "0", "--max-cost", "0.05")
    rig.run("pause", "x")
    rig.wait_event("ralph_status", to="paused")
    state = rig.wait_end()
    assert (state["status"], state["stopReason"]) == ("stopped", "max-cost")
    assert len(rig.records()) == 1
    check(rig, billed(bill), slack=0)


def test_row_50_a_runner_killed_after_an_answer_has_counted_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bill = tmp_path / "bill"
    monkeypatch.setenv("FAKE_PI_BILL", str(bill))
    rig = fake_rig(tmp_path, [[{"tool": "bash", "seconds": 30, "cost": PRICE}, "never"]])
    life = Life(rig, bill, 0)
    rig.start("-n", "0", "--stall-after", "0")
    for kill in range(4):
        wait_for_bills(bill, kill + 1)
        time.sleep(0.15)
        life.kill_runner()
        assert rig.state()["stats"]["cost"] == pytest.approx((kill + 1) * PRICE)
    wait_for_bills(bill, 5)
    rig.run("stop", "x", "--now")
    rig.wait_end()
    check(rig, billed(bill), slack=1)
