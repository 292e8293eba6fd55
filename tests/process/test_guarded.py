"""One guarded program: how its end is told, and that its tree ends with it."""

import asyncio
import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ralph_rpc.machine import identity
from ralph_runner.guarded import guard
from ralph_runner.guarded.process import Exit, Guarded
from ralph_runner.guarded.spawn import GuardFault
from tests.process.trees import guarded, is_gone, new_token, nothing_of, survivors

pytestmark = pytest.mark.usefixtures("no_leftovers")


@pytest.fixture
def token() -> Iterator[str]:
    token = new_token()
    with nothing_of(token):
        yield token


async def word(program: Guarded) -> str:
    """What the program says next on stdout; "" at the end."""
    return (await asyncio.to_thread(os.read, program.stdout_fd, 4096)).decode()


async def ended(program: Guarded) -> Exit:
    return await asyncio.wait_for(program.wait(), 30)


def open_fds() -> set[Path]:
    return set(Path("/proc/self/fd").iterdir())


def run_sh(code: str) -> Exit:
    async def run() -> Exit:
        async with guarded("sh", "-c", code) as program:
            return await ended(program)

    return asyncio.run(run())


def test_a_program_that_ends_by_itself_is_reported_with_its_exit_status() -> None:
    assert run_sh("exit 7") == Exit(7, "natural")


def test_a_program_killed_by_somebody_else_is_reported_with_minus_the_signal() -> None:
    assert run_sh("kill -KILL $$") == Exit(-signal.SIGKILL, "natural")


def test_a_program_that_ends_at_the_end_of_its_input_is_reported_as_eof() -> None:
    async def run() -> None:
        async with guarded("cat") as program:
            os.write(program.stdin_fd, b"hello")
            assert await word(program) == "hello"
            program.close_stdin()
            assert program.stdin_fd == -1
            assert await ended(program) == Exit(0, "eof")

    asyncio.run(run())


def test_a_program_that_stays_after_the_end_of_its_input_is_ended_after_a_grace(token: str) -> None:
    async def run() -> None:
        async with guarded("sleep", token) as program:
            program.close_stdin()
            before = time.monotonic()
            assert await ended(program) == Exit(-signal.SIGTERM, "sigterm")
            assert time.monotonic() - before >= guard.EOF_GRACE_S - 0.1

    asyncio.run(run())


COUNT_TERMS = """
import signal, sys, time
got = []
signal.signal(signal.SIGTERM, lambda *_: got.append(1))
print("ready", end="", flush=True)
while not got: time.sleep(0.01)
time.sleep(0.5)
sys.exit(len(got))
"""


def test_sigterm_is_sent_once_however_often_it_is_asked_for() -> None:
    async def run() -> None:
        async with guarded(sys.executable, "-c", COUNT_TERMS) as program:
            await word(program)
            for _ in range(3):
                program.terminate()
                await asyncio.sleep(0.05)
            assert await ended(program) == Exit(1, "sigterm")

    asyncio.run(run())


def test_a_program_deaf_to_sigterm_is_killed_after_the_grace(token: str) -> None:
    async def run() -> None:
        async with guarded("sh", "-c", f"trap '' TERM; echo ready; sleep {token}; sleep {token}") as program:
            await word(program)
            before = time.monotonic()
            program.terminate()
            assert await ended(program) == Exit(-signal.SIGKILL, "sigkill")
            took = time.monotonic() - before
            assert guard.TERM_GRACE_S <= took < guard.TERM_GRACE_S + guard.SWEEP_TERM_S + 5

    asyncio.run(run())
    assert not survivors(token)


def test_kill_ends_a_deaf_tree_without_the_long_grace(token: str) -> None:
    async def run() -> None:
        async with guarded("sh", "-c", f"trap '' TERM; echo ready; sleep {token}; sleep {token}") as program:
            await word(program)
            before = time.monotonic()
            program.kill()
            assert await ended(program) == Exit(-signal.SIGKILL, "sigkill")
            assert time.monotonic() - before < guard.TERM_GRACE_S

    asyncio.run(run())
    assert not survivors(token)


def test_kill_overtakes_a_polite_end_that_is_under_way(token: str) -> None:
    async def run() -> None:
        async with guarded("sh", "-c", f"trap '' TERM; echo ready; sleep {token}") as program:
            await word(program)
            before = time.monotonic()
            program.terminate()
            program.kill()
            assert (await ended(program)).method == "sigkill"
            assert time.monotonic() - before < guard.TERM_GRACE_S

    asyncio.run(run())


def test_a_stopped_program_is_woken_to_get_its_sigterm(token: str) -> None:
    async def run() -> None:
        async with guarded("sh", "-c", f"echo ready; exec sleep {token}") as program:
            await word(program)
            os.kill(program.pid, signal.SIGSTOP)
            before = time.monotonic()
            program.terminate()
            assert await ended(program) == Exit(-signal.SIGTERM, "sigterm")
            assert time.monotonic() - before < guard.TERM_GRACE_S

    asyncio.run(run())


def test_a_program_that_closes_its_stdout_is_seen_to_though_it_lives_on(token: str) -> None:
    async def run() -> None:
        async with guarded("sh", "-c", f"exec 1>&-; exec sleep {token}") as program:
            assert await asyncio.wait_for(word(program), 30) == ""
            assert not is_gone(program.pid)

    asyncio.run(run())


def test_a_program_can_be_waited_for_twice_and_a_wait_cancelled(token: str) -> None:
    async def run() -> None:
        async with guarded("sleep", token) as program:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(program.wait(), 0.05)
            program.terminate()
            assert await ended(program) == await ended(program) == Exit(-signal.SIGTERM, "sigterm")

    asyncio.run(run())


def test_stderr_can_go_where_stdout_goes_and_stdin_can_be_empty() -> None:
    async def run() -> None:
        program = await Guarded.spawn(
            ["sh", "-c", "cat; echo out; echo err >&2"],
            cwd=Path("/"),
            env=os.environ,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
        )
        assert await ended(program) == Exit(0, "natural")
        assert await word(program) == "out\nerr\n"
        assert (program.stdin_fd, program.stderr_fd) == (-1, -1)
        program.close()

    asyncio.run(run())


LOOK_AROUND = """
ls /proc/$$/fd
grep -E 'Sig(Blk|Ign)' /proc/self/status
pwd
test "$(cut -d ' ' -f 6 /proc/$$/stat)" = $$ && echo leads its session
"""


def test_a_program_starts_with_three_fds_default_signals_and_a_session_of_its_own(tmp_path: Path) -> None:
    async def run() -> str:
        # What the runner ignores or blocks must not reach the program: python itself ignores SIGPIPE.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
        try:
            program = await Guarded.spawn(["sh", "-c", LOOK_AROUND], cwd=tmp_path, env=os.environ)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        assert await ended(program) == Exit(0, "natural")
        told = await word(program)
        program.close()
        return told

    nothing = "0" * 16
    assert asyncio.run(run()).split("\n") == [
        *("0", "1", "2", f"SigBlk:\t{nothing}", f"SigIgn:\t{nothing}"),
        *(str(tmp_path), "leads its session", ""),
    ]


@pytest.mark.parametrize(
    ("argv", "number"),
    [(["/nowhere/pi"], errno.ENOENT), (["no-program-of-this-name"], errno.ENOENT), (["/"], errno.EACCES)],
)
def test_a_program_that_cannot_be_executed_is_an_os_error_and_leaves_nothing(argv: list[str], number: int) -> None:
    async def run() -> None:
        before = open_fds()
        with pytest.raises(OSError) as caught:
            await Guarded.spawn(argv, cwd=Path("/"), env=os.environ)
        assert (caught.value.errno, caught.value.filename) == (number, argv[0])
        assert open_fds() == before

    asyncio.run(run())


def test_a_missing_folder_is_an_os_error_that_names_the_folder(tmp_path: Path) -> None:
    async def run() -> None:
        before = open_fds()
        with pytest.raises(GuardFault) as caught:
            await Guarded.spawn(["true"], cwd=tmp_path / "gone", env=os.environ)
        assert caught.value.errno == errno.ENOENT
        assert str(caught.value.filename) == str(tmp_path / "gone")
        assert open_fds() == before

    asyncio.run(run())


def test_fifty_runs_leak_no_fd_and_no_zombie() -> None:
    async def run() -> None:
        async with guarded("true") as program:
            await ended(program)
        before = len(open_fds())
        pids = []
        for _ in range(50):
            async with guarded("true") as program:
                pids += [program.pid, program.guard_pid]
                await ended(program)
        assert len(open_fds()) == before
        assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]

    asyncio.run(run())


def test_a_cancelled_start_leaves_no_process(token: str) -> None:
    async def run() -> None:
        task = asyncio.create_task(Guarded.spawn(["sleep", token], cwd=Path("/"), env=os.environ))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        # The task that watches the guard goes on until nothing is left.
        watching = asyncio.all_tasks() - {asyncio.current_task()}
        assert len(watching) == 1
        await asyncio.wait_for(asyncio.gather(*watching), 30)
        assert not survivors(token)

    asyncio.run(run())


def test_the_guard_takes_sigterm_as_kill_and_ignores_the_terminals_signals(token: str) -> None:
    async def run() -> None:
        async with guarded("sh", "-c", f"echo ready; exec sleep {token}") as program:
            await word(program)
            os.kill(program.guard_pid, signal.SIGINT)
            os.kill(program.guard_pid, signal.SIGHUP)
            os.kill(program.guard_pid, signal.SIGTERM)
            assert await ended(program) == Exit(-signal.SIGTERM, "sigterm")

    asyncio.run(run())
    assert not survivors(token)


def test_the_identities_of_program_and_guard_are_those_of_the_process_table(token: str) -> None:
    async def run() -> None:
        async with guarded("sleep", token) as program:
            assert identity.start_time(program.pid) == program.start_time
            assert identity.start_time(program.guard_pid) == program.guard_start_time
            assert os.getsid(program.pid) == program.pid
            assert os.getsid(program.guard_pid) == program.guard_pid

    asyncio.run(run())


def test_a_guard_takes_little_memory(token: str) -> None:
    async def run() -> None:
        async with guarded("sleep", token) as program:
            status = Path(f"/proc/{program.guard_pid}/status").read_text()
            resident_kb = int(status.partition("VmRSS:")[2].split()[0])
            assert resident_kb <= 12 * 1024

    asyncio.run(run())
