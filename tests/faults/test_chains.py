"""Whatever a program starts ends with it, however it tries to slip away, and no open pipe delays its end.

The children are real: background, setsid, double-forked, deaf and env-wiped ones, and chains in which each process
forks the next and dies.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from ralph_rpc.machine import identity, locks
from ralph_runner.guarded import guard
from ralph_runner.guarded.process import Exit, Guarded
from ralph_runner.pi.reader import DRAIN_S
from ralph_runner.shell.orphans import TERM_S, sweep_orphans
from tests.faults.conftest import Note
from tests.faults.lives import GONE_S
from tests.faults.tiers import times
from tests.process.trees import KINDS, guarded, new_token, nothing_of, subreaper, survivors, until
from tests.rig import fake_rig

pytestmark = [pytest.mark.usefixtures("no_leftovers"), pytest.mark.timeout(600)]
MARKER = "<promise>COMPLETE</promise>"


@pytest.fixture
def token() -> Iterator[str]:
    token = new_token()
    with nothing_of(token):
        yield token


async def ended(program: Guarded) -> Exit:
    return await asyncio.wait_for(program.wait(), 30)


def test_row_11_what_a_program_leaves_behind_ends_with_it(token: str) -> None:
    async def run(code: str) -> None:
        async with guarded("sh", "-c", f"{code}\nsleep 0.2; exit 0") as program:
            assert await ended(program) == Exit(0, "natural")

    async def all_kinds() -> None:
        await asyncio.gather(*(run(code.replace("TOKEN", token)) for code in KINDS.values()))

    asyncio.run(all_kinds())
    assert not survivors(token)


def test_row_11_kill_ends_every_kind_of_descendant(token: str) -> None:
    async def run(code: str, token: str) -> None:
        async with guarded("sh", "-c", f"{code.replace('TOKEN', token)}\necho ready; sleep {token}") as program:
            await asyncio.to_thread(os.read, program.stdout_fd, 100)
            assert len(survivors(token)) >= 3  # guard, program, descendant
            program.kill()
            assert await ended(program) == Exit(-signal.SIGTERM, "sigterm")

    async def all_kinds() -> None:
        await asyncio.gather(*(run(code, f"{token}{i}") for i, code in enumerate(KINDS.values())))

    asyncio.run(all_kinds())
    assert not survivors(token)


CHAIN = """
import fcntl, os, signal, sys, time
session, gap, lock, first = sys.argv[1], float(sys.argv[2]), sys.argv[3], sys.argv[4]
fcntl.flock(os.open(lock, os.O_RDWR | os.O_CREAT, 0o600), fcntl.LOCK_EX)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
end = time.monotonic() + 15
if os.fork():
    signal.pause() if first == "stays" else os._exit(0)
while time.monotonic() < end:
    if os.fork(): os._exit(0)
    if session == "setsid": os.setsid()
    if gap: time.sleep(gap)
"""
"""Deaf processes that fork the next one and die. All of them hold `lock`, which no look at a table can miss."""
CHAINS = [(session, gap_ms) for session in ("same", "setsid") for gap_ms in (0, 1, 2, 5, 10)]


def chain(session: str, gap_ms: int, lock: Path, first: str) -> list[str]:
    return [sys.executable, "-S", "-c", CHAIN, session, str(gap_ms / 1000), str(lock), first]


async def longest_of(run: Callable[[str, int], Awaitable[float]], count: int) -> float:
    """The hardest of the chains, or all of them as often as told."""
    return max([await run(*one) for _ in range(count) for one in (CHAINS if count > 1 else [("setsid", 0)])])


@times(quick=1, full=3)
def test_row_11_a_chain_of_forks_that_never_rests_is_ended(tmp_path: Path, count: int, figure: Note) -> None:
    async def run(session: str, gap_ms: int) -> float:
        lock = tmp_path / session
        async with guarded(*chain(session, gap_ms, lock, "stays")) as program:
            until(lambda: locks.is_held(lock), "the chain runs")
            began = time.monotonic()
            program.kill()
            assert await ended(program) == Exit(-signal.SIGKILL, "sigkill")
            assert not locks.is_held(lock), "the chain goes on"
            return time.monotonic() - began - guard.SWEEP_TERM_S

    longest = asyncio.run(longest_of(run, count))
    figure(f"deaf chains, gaps 0-10 ms: ended within {longest * 1000:.0f} ms of the first SIGKILL")


@times(quick=1, full=3)
def test_row_11_a_chain_of_forks_is_ended_by_the_runner_whose_guard_was_killed(
    tmp_path: Path, count: int, figure: Note
) -> None:
    async def run(session: str, gap_ms: int) -> float:
        lock = tmp_path / session
        async with guarded(*chain(session, gap_ms, lock, "stays")) as program:
            until(lambda: locks.is_held(lock), "the chain runs")
            began = time.monotonic()
            os.kill(program.guard_pid, signal.SIGKILL)
            assert await ended(program) == Exit(None, "sigkill")
            assert not locks.is_held(lock), "the chain goes on"
            return time.monotonic() - began

    with subreaper():
        longest = asyncio.run(longest_of(run, count))
    assert longest < GONE_S
    figure(f"deaf chains, gaps 0-10 ms: ended {longest:.2f} s after the guard at most")


@times(quick=1, full=3)
def test_row_11_a_chain_of_forks_that_survived_runner_and_guard_is_ended_at_the_next_start(
    tmp_path: Path, count: int, figure: Note
) -> None:
    def run(session: str, gap_ms: int) -> float:
        loop = tmp_path / session
        loop.mkdir(exist_ok=True)
        command = ["setsid", *chain(session, gap_ms, loop / "chain", "goes")]
        subprocess.run(command, check=True, env={**os.environ, "RALPH_LOOP_DIR": str(loop)})
        until(lambda: locks.is_held(loop / "chain"), "the chain runs")
        began = time.monotonic()
        sweep_orphans(loop, [], identity.boot_id())
        assert not locks.is_held(loop / "chain"), "the chain goes on"
        return time.monotonic() - began - TERM_S

    longest = asyncio.run(longest_of(lambda *one: asyncio.to_thread(run, *one), count))
    figure(f"deaf chains, gaps 0-10 ms: ended within {longest * 1000:.0f} ms of the first SIGKILL")


def test_row_38_the_end_of_stdout_comes_once_the_tree_is_gone_though_a_grandchild_held_it(token: str) -> None:
    async def run() -> None:
        async with guarded("sh", "-c", f"setsid sh -c 'trap \"\" TERM; sleep {token}' & echo last; exit 0") as p:
            heard = b""
            while data := await asyncio.to_thread(os.read, p.stdout_fd, 4096):
                heard += data
            assert heard == b"last\n"
            assert not [command for command in survivors(token).values() if guard.IN_MEMORY not in command]
            assert await ended(p) == Exit(0, "natural")

    asyncio.run(run())


CHATTER = """
import time
while True:
    print('{"type":"noise"}', flush=True)
    time.sleep(0.001)
"""


@pytest.mark.parametrize("says", ["nothing", pytest.param("something without end", marks=pytest.mark.full)])
def test_row_38_who_holds_pis_stdout_from_outside_of_its_tree_does_not_delay_its_end(
    tmp_path: Path, says: str, figure: Note
) -> None:
    rig = fake_rig(tmp_path, [["hello", {"hang": True}], f"done\n{MARKER}"])
    rig.start()
    pi = rig.pids()[2]
    with contextlib.ExitStack() as stack:
        stdout = stack.enter_context(Path(f"/proc/{pi}/fd/1").open("wb"))
        if says != "nothing":
            stranger = subprocess.Popen([sys.executable, "-S", "-c", CHATTER], stdout=stdout, stderr=subprocess.DEVNULL)
            stack.enter_context(stranger)
            stack.callback(stranger.kill)
            rig.wait_event("noise")
        rig.kill(pi)
        began = time.monotonic()
        rig.wait_event("ralph_pi_exit", pid=pi)
        took = time.monotonic() - began
        assert rig.wait_end()["status"] == "completed"
    assert [record["outcome"] for record in rig.records()] == ["crashed", "ok"]
    assert took < DRAIN_S + 1.0
    figure(f"a stranger who says {says}: pi's end is told after {took:.2f} s")
