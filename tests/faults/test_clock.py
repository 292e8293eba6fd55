"""Time that misleads: a pi that ends again and again, and a clock that is set or sleeps while a loop runs.

Back-off and budget of restarts are exact and outlive the runner. Every timer of the core is monotonic, so neither
a clock that is set by a day nor a suspend ends a run, a loop, or the belief that its runner lives.
"""

import json
import os
from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

from ralph_rpc import clock
from ralph_rpc.files import registry
from ralph_rpc.loops.status import loop_status
from ralph_runner.core import effects as fx
from ralph_runner.core.failures import RESTART_BUDGET, RESTART_WINDOW_MS, restart_delay, restarts_found
from ralph_runner.core.phases import Waiting
from ralph_runner.core.results import Now, Tick
from ralph_runner.core.snapshot import Facts, resumed_loop, snapshot
from ralph_runner.core.step import Input
from tests.cli import forged
from tests.core.talk import Talk, config
from tests.faults.conftest import Note
from tests.process.trees import is_gone
from tests.rig import Rig, fake_rig, wait_for

starts_processes = pytest.mark.usefixtures("no_leftovers")
MARKER = "<promise>COMPLETE</promise>"
DAY = 86_400_000
SCHEDULE = [1_000, 2_000, 4_000, 8_000, 16_000]
"""What a pi that ends at once waits before each restart, at the most; jitter takes off up to one half."""


# Row 9


def waits(talk: Talk) -> int:
    """Milliseconds until pi is started again."""
    assert isinstance(talk.loop.phase, Waiting), talk.loop.phase
    return talk.loop.phase.until_mono - talk.mono


def crash(talk: Talk) -> int | None:
    """pi takes its prompt and ends; how long the loop waits then, None where it has ended."""
    talk.accept()
    talk.exit(1)
    return waits(talk) if talk.status == "waiting" else None


def crash_loop(talk: Talk, rand: float) -> list[int]:
    """The waits of a pi that always ends at once, until the loop gives up."""
    talk.rand = rand
    talk.boot()
    found = []
    while (delay := crash(talk)) is not None:
        found.append(delay)
        talk.wait_over()
    return found


def after_the_runner(talk: Talk, mono: int, away_ms: int = 1_000) -> Talk:
    """The loop under a new runner, by what state.json keeps; `mono` is another boot's clock, if you like."""
    facts = Facts("x", "/p", "/p/.ralph/x", 5, 1.0, "boot", "", None)
    state = json.loads(json.dumps(snapshot(talk.loop, facts, Now(talk.mono, talk.wall))))
    fresh = Talk()
    fresh.mono, fresh.wall, fresh.rand = mono, talk.wall + away_ms, talk.rand
    fresh.loop = resumed_loop(config(), talk.loop.task_path, state, talk.loop.iteration, Now(mono, fresh.wall))
    fresh.boot()
    return fresh


@pytest.mark.parametrize("rand", [0.0, 0.25, 0.5, 1.0])
def test_row_09_a_crash_loop_keeps_the_exact_schedule_and_ends_in_error(rand: float) -> None:
    talk = Talk()
    assert crash_loop(talk, rand) == [int(full * (0.5 + 0.5 * rand)) for full in SCHEDULE]
    assert (talk.status, talk.loop.stop_reason) == ("error", "crash")
    assert len(SCHEDULE) == RESTART_BUDGET and f"{RESTART_BUDGET + 1} times within 10 minutes" in str(talk.loop.error)


def test_row_09_delays_grow_to_a_minute_and_no_further() -> None:
    delays = [restart_delay(n, 1.0) for n in range(1, 40)]
    assert delays[:8] == [*SCHEDULE, 32_000, 60_000, 60_000] and set(delays[8:]) == {60_000}


def test_row_09_only_the_last_ten_minutes_count() -> None:
    talk = Talk(maxFailures=0)
    talk.boot()
    for _ in range(50):  # one every two minutes and a little more: never six within ten minutes
        delay = crash(talk)
        assert delay is not None and delay <= SCHEDULE[-1]
        talk.due()
        talk.later(RESTART_WINDOW_MS // RESTART_BUDGET)
        talk.greet()
    for _ in range(RESTART_BUDGET + 1):
        if crash(talk) is not None:
            talk.wait_over()
    assert talk.loop.stop_reason == "crash"


@pytest.mark.parametrize("mono", [50, 10**9])
@pytest.mark.parametrize("before", range(1, RESTART_BUDGET + 1))
def test_row_09_schedule_and_budget_outlive_the_runner(before: int, mono: int) -> None:
    talk = Talk()
    talk.rand = 1.0
    talk.boot()
    found = []
    for crashes in range(1, RESTART_BUDGET + 1):
        found.append(crash(talk))
        if crashes == before:
            talk = after_the_runner(talk, mono)
        else:
            talk.wait_over()
    assert found == SCHEDULE
    assert crash(talk) is None and (talk.status, talk.loop.stop_reason) == ("error", "crash")


def test_row_09_a_runner_that_comes_back_after_ten_minutes_begins_a_new_count() -> None:
    talk = Talk()
    talk.boot()
    talk.rand = 1.0
    for _ in SCHEDULE[1:]:
        crash(talk)
        talk.wait_over()
    assert crash(talk) == SCHEDULE[-1]
    assert crash(after_the_runner(talk, 50, RESTART_WINDOW_MS + 1)) == SCHEDULE[0]


def test_row_09_a_kept_restart_counts_by_its_age_and_one_of_the_future_as_new() -> None:
    wall = 1_700_000_000_000
    assert restarts_found([wall - RESTART_WINDOW_MS - 1, wall - 1_000, wall + DAY], 50, wall) == (-950, 50)


def waiting_after(rig: Rig, crashes: int) -> dict[str, Any] | None:
    state = rig.state()
    return state if len(state.get("restarts", [])) == crashes and state["nextWakeAt"] else None


@starts_processes
def test_row_09_a_real_crash_loop_is_counted_through_five_killed_runners(tmp_path: Path, figure: Note) -> None:
    rig = fake_rig(tmp_path, [["begun", {"exit": 3}]])
    rig.start(check=None)
    waited = []
    for crashes in range(1, RESTART_BUDGET + 1):
        state = wait_for(f"crash {crashes}\n{rig.log()}", partial(waiting_after, rig, crashes))
        told = rig.of("ralph_status")[-1]
        waited.append((clock.parse_iso(state["nextWakeAt"]) or 0) - told["at"])
        assert state["status"] == told["to"] == "waiting"
        os.kill(state["pid"], 9)
        wait_for("its end", partial(is_gone, state["pid"]))
        rig.run("resume", "x", check=None)
    state = rig.wait_end()
    assert (state["status"], state["stopReason"]) == ("error", "crash")
    assert all(full // 2 <= wait <= full for wait, full in zip(waited, SCHEDULE, strict=True)), waited
    assert [r["outcome"] for r in rig.records()] == ["crashed"] * (RESTART_BUDGET + 1)
    figure(f"{RESTART_BUDGET} killed runners, waits {waited} ms of at most {SCHEDULE}, error at crash 6")


# Row 18


class Jumping(Talk):
    """A wall clock that is set before every single input."""

    def __init__(self, jumps: Iterator[int], **changes: Any) -> None:
        super().__init__(**changes)
        self.jumps = jumps

    def say(self, *inputs: Input) -> list[fx.Effect]:
        self.wall += next(self.jumps)
        return super().say(*inputs)


def long_life(talk: Talk) -> list[object]:
    """Through every kind of deadline there is; what the core knew and did at each of them."""
    seen: list[object] = []

    def note() -> None:
        loop = talk.loop
        seen.append((loop.status, loop.stop_reason, loop.elapsed_ms, type(loop.phase).__name__))

    talk.boot()
    talk.iterate("one")
    talk.accept()
    talk.turn("a tool", stop="toolUse", tools=1)
    talk.due()  # silence: asked
    talk.due()  # no answer: killed
    note()
    talk.exit(None)
    note()
    talk.greet()
    talk.iterate("", stop="error", error="529 overloaded")
    note()
    talk.wait_over()
    for _ in range(3):
        talk.accept()
        talk.exit(1)
        note()
        talk.wait_over()
    talk.accept()
    while not talk.did(fx.EndPi):
        talk.turn("still busy", stop="toolUse")
        if not talk.did(fx.EndPi):
            talk.later(600_000)
    note()
    talk.exit(None)
    note()
    return seen


def timeless(effect: fx.Effect) -> object:
    """An effect without the times that it shows to people."""
    match effect:
        case fx.Emit(event):
            return {**event, "at": 0}
        case fx.EndIteration(record):
            return {**record, "startedAt": "", "endedAt": ""}
        case _:
            return effect


@pytest.mark.parametrize(
    "jumps", [(DAY,), (-DAY,), (DAY, -DAY), (0, 0, -30 * DAY, 0, 365 * DAY), (-3_600_000, 1)], ids=str
)
@pytest.mark.parametrize("limits", [{"maxTimeMs": 7_200_000}, {"iterationTimeoutMs": 3_600_000}], ids=str)
def test_row_18_a_wall_clock_that_is_set_changes_no_decision(jumps: tuple[int, ...], limits: dict[str, Any]) -> None:
    straight, jumping = Talk(**limits), Jumping(cycle(jumps), **limits)
    assert long_life(jumping) == long_life(straight)
    assert [timeless(e) for e in jumping.all] == [timeless(e) for e in straight.all]
    assert [r["durationMs"] for r in jumping.records] == [r["durationMs"] for r in straight.records]
    assert straight.loop.stop_reason == ("max-time" if "maxTimeMs" in limits else None)
    assert [r["outcome"] for r in straight.records].count("timeout") == (1 if "maxTimeMs" in limits else 2)


def test_row_18_setting_the_clock_forgives_no_crash_loop() -> None:
    for jump in (DAY, -DAY):
        assert crash_loop(Jumping(cycle([jump])), 1.0) == SCHEDULE


def test_row_18_a_clock_set_back_makes_no_wait_longer_and_one_set_forward_ends_it() -> None:
    for jump in (-DAY, DAY):
        talk = Talk()
        talk.boot()
        delay = crash(talk)
        assert delay is not None
        talk.wall += jump
        talk.say(Tick())
        assert (talk.status == "waiting") == (jump < 0)  # what was to be waited for is over by then
        if jump < 0:
            talk.mono += delay
            talk.say(Tick())
            assert talk.did(fx.StartPi)


SET_CLOCK = """
import os, time

real, ahead = time.time_ns, os.environ["CLOCK_AHEAD"]

def time_ns():
    with open(ahead) as file:
        return real() + int(file.read()) * 10**9

time.time_ns, time.time = time_ns, lambda: time_ns() / 1e9
"""


def clock_of(rig: Rig, folder: Path) -> Callable[[int], None]:
    """Gives every Python of the loop a wall clock that the test sets (in seconds from the true time)."""
    hook, ahead = folder / "clock", folder / "ahead"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(SET_CLOCK)
    rig.env |= {"PYTHONPATH": os.pathsep.join([str(hook), rig.env.get("PYTHONPATH", "")]), "CLOCK_AHEAD": str(ahead)}

    def set_to(seconds: int) -> None:
        fresh = folder / "ahead.new"
        fresh.write_text(str(seconds))
        fresh.rename(ahead)

    set_to(0)
    return set_to


def shown(rig: Rig) -> set[tuple[str, str]]:
    """How viewers with that clock show the loop: one that reads its folder, one that knows only the registry."""
    here = json.loads(rig.run("list", "--json").stdout)
    elsewhere = rig.project.parent / "elsewhere"
    (elsewhere / ".ralph").mkdir(parents=True, exist_ok=True)
    away = json.loads(rig.run("list", "--all", "--json", "--project", str(elsewhere), check=None).stdout or "[]")
    return {(row["shown"], row["runner"]) for row in (*here, *away)}


@starts_processes
def test_row_18_a_running_loop_outlives_a_clock_that_is_set(tmp_path: Path, figure: Note) -> None:
    rig = fake_rig(tmp_path, [["hello", {"hang": True}], f"done\n{MARKER}"])
    set_to = clock_of(rig, tmp_path)
    rig.start()
    pids = rig.pids()
    looks = 0
    for day in (1, -1, 0, 400):
        set_to(day * 86_400)
        assert shown(rig) == {("running", "alive")}  # at once: no heartbeat has been since
        looks += 1
        rig.drop(f"steer-{day}.json", json.dumps({"id": f"day {day}", "message": "are you there"}))
        rig.wait_step(f"day {day}", "accepted")
        wait_for("a sign of life by the new clock", partial(is_seen_at, rig, clock.now_ms() + day * DAY))
        assert shown(rig) == {("running", "alive")} and rig.pids() == pids
        looks += 1
    rig.run("abort", "x")
    assert rig.wait_end()["status"] == "completed"
    assert all(r["durationMs"] < 60_000 for r in rig.records())
    assert rig.state()["elapsedMs"] < 60_000
    figure(f"clock set by +1, -2, +1, +400 days: {looks} looks, 0 stale, 0 dead, 0 timeouts, no pi lost")


def is_seen_at(rig: Rig, wall: int) -> bool:
    """The runner has shown itself with that time, or within a minute of it."""
    return any(abs((clock.parse_iso(entry["lastSeen"]) or 0) - wall) < 60_000 for entry in rig.registry())


@pytest.mark.parametrize("held", [True, False], ids=["lock held", "lock deleted"])
@pytest.mark.parametrize("told", [True, False], ids=["monotonic too", "wall clock only"])
@pytest.mark.parametrize("days", [-1, 1])
def test_row_18_a_heartbeat_of_another_day_is_never_a_death(tmp_path: Path, days: int, told: bool, held: bool) -> None:
    """`wall clock only`: written by a release that knew no better; then a clock set forward looks like silence."""
    at = forged.ago(-days * 86_400)
    up = {"monotonicMs": clock.up_ms()} if told else {}
    paths = forged.loop(tmp_path / "p", "api", alive=True, updatedAt=at, **up)
    entry = forged.entry(paths.project, "api", alive=True, lastSeen=at, **up)
    path = forged.register("unused", entry)
    path.rename(registry.entry_path(paths.project, "api"))
    expected = "alive" if told or days > 0 else "stale"
    if held:
        with forged.runner_of(paths):
            assert loop_status(paths).runner == expected
    else:
        assert loop_status(paths).runner == expected
    assert registry.liveness(registry.entries()[0][0].entry) == expected


@pytest.mark.parametrize("days", [-1, 0, 1])
def test_row_18_a_runner_that_hangs_is_seen_though_the_clock_was_set(tmp_path: Path, days: int) -> None:
    at, up = forged.ago(-days * 86_400), clock.up_ms()
    old = {"monotonicMs": up - registry.STALE_AFTER_MS - 1_000}
    if old["monotonicMs"] < 0:
        pytest.skip("this machine has been up for less than half a minute")
    paths = forged.loop(tmp_path / "p", "api", alive=True, updatedAt=at, **old)
    assert loop_status(paths).shown == "stale"
    assert registry.liveness(forged.entry(paths.project, "api", alive=True, lastSeen=at, **old)) == "stale"  # type: ignore[arg-type]


def test_row_18_a_resumed_loop_is_not_stale_before_its_runner_has_said_a_word(tmp_path: Path) -> None:
    """It holds the lock already; what state.json says is the word of the runner that crashed an hour ago."""
    paths = forged.loop(tmp_path / "p", status="running", updatedAt=forged.ago(3_600))
    with forged.runner_of(paths):
        found = loop_status(paths)
    assert (found.runner, found.shown, found.ended) == ("alive", "starting", False)
