"""The far guard, behind a pipe as a launcher has it: what it says, what it takes, and that nothing outlives it."""

import ast
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ralph_rpc.launchers import far_guard
from ralph_rpc.machine import carried
from tests.launchers.far import far_pipe
from tests.process.trees import KINDS, new_token, nothing_of, survivors, until

WORDS = carried.carried(Path(far_guard.__file__))
TREE = "\n".join(KINDS.values())


@pytest.fixture
def token() -> Iterator[str]:
    token = new_token()
    with nothing_of(token):
        yield token


def test_it_needs_nothing_that_an_old_python_lacks() -> None:
    source = Path(far_guard.__file__).read_text()
    ast.parse(source, feature_version=(3, 8))
    imported = {
        name.name for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import) for name in node.names
    }
    assert imported <= {"ctypes", "json", "os", "select", "signal", "sys", "time"}


def test_no_shell_finds_anything_to_interpret_in_what_is_carried() -> None:
    *_, code, data = WORDS
    assert not set(code) & set("'\"`$!\\\n~#&|<>"), "what quotes do not keep from every shell"
    assert re.fullmatch("[A-Za-z0-9+/=]+", data)
    assert len(data) < 16_000


def test_it_says_nothing_before_it_is_spoken_to(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, *WORDS, "true"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with process:
        assert process.stdin is not None
        os.set_blocking(process.stdout.fileno(), False)  # type: ignore[union-attr]
        until(lambda: Path(f"/proc/{process.pid}/comm").read_text() == "ralph-far\n", "the far guard's name")
        assert process.stdout.read() is None  # type: ignore[union-attr]
        process.stdin.close()
    assert process.returncode == 0


def test_its_first_line_says_where_it_runs_and_the_next_ones_are_pis(tmp_path: Path) -> None:
    with far_pipe(tmp_path, "cat") as far:
        told = far.line()
        assert (told["type"], told["key"], told["host"]) == ("ralph_far", "k", os.uname().nodename)
        assert told["pid"] == far.process.pid and len(told["bootId"]) == 36
        far.write(b'{"id":"1"}\n{"type":"ralph_keep"}\n{"id":"2"}\n')
        assert (far.line(), far.line()) == ({"id": "1"}, {"id": "2"})
        assert far.process.stderr is not None and far.process.stderr.readline() == b"ralph-far k\n"
        far.close()
        assert far.until_exit() == {"type": "ralph_far_exit", "key": "k", "code": 0, "method": "eof", "by": "near"}


@pytest.mark.parametrize(("ending", "code"), [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", -9), ("kill -15 $$", -15)])
def test_it_says_how_pi_ended(tmp_path: Path, ending: str, code: int) -> None:
    with far_pipe(tmp_path, "sh", "-c", ending) as far:
        last = far.until_exit()
        assert (last["code"], last["method"], last["by"]) == (code, "natural", "pi")


@pytest.mark.parametrize("end", ["eof", "end", "sigterm", "lease"])
def test_nothing_of_the_tree_outlives_the_near_side(tmp_path: Path, token: str, end: str) -> None:
    tree = TREE.replace("TOKEN", token)
    lease = 3 if end == "lease" else 30
    with far_pipe(tmp_path, "sh", "-c", f"{tree}\ntrap '' TERM; sleep {token}; sleep {token}", lease=lease) as far:
        until(lambda: len(survivors(token)) >= 7, f"the tree, {survivors(token)}")
        began = time.monotonic()
        if end == "eof":
            far.close()
        elif end == "end":
            far.write(b'{"type":"ralph_end","grace":0}\n')
        elif end == "sigterm":
            far.process.terminate()
        last = far.until_exit()
        assert last["by"] == {"eof": "near", "end": "near", "sigterm": "signal", "lease": "lease"}[end]
        assert not survivors(token)
        assert time.monotonic() - began < 25, "before a lease that was not to end"


def test_a_line_from_time_to_time_keeps_pi_alive(tmp_path: Path) -> None:
    with far_pipe(tmp_path, "cat", lease=3) as far:
        far.line()
        for _ in range(13):
            far.write(b'{"type":"ralph_keep"}\n')
            assert far.process.stderr is not None and far.process.stderr.readline()  # it has come
            time.sleep(0.3)  # what is tested is time itself
        far.write(b'{"id":"1"}\n')
        assert far.line() == {"id": "1"}


def test_a_signal_from_inside_pis_tree_means_other_processes(tmp_path: Path) -> None:
    with far_pipe(tmp_path, "sh", "-c", "kill -TERM $PPID; echo '{\"still\":1}'; cat") as far:
        far.line()
        assert far.line() == {"still": 1}
        far.close()
        assert far.until_exit()["by"] == "near"


@pytest.mark.parametrize("dies", ["kill -TERM $$", "exit 143"])
def test_a_signal_that_pi_got_first_is_still_somebodys_outside(tmp_path: Path, dies: str) -> None:
    """So Slurm ends a job: a signal for each of its processes, one after the other."""
    with far_pipe(tmp_path, "sh", "-c", f"echo $$; read line; {dies}") as far:
        far.line()
        assert far.process.stdout is not None
        pi = int(far.process.stdout.readline())
        far.write(b"end\n")
        until(lambda: not Path(f"/proc/{pi}").exists(), "pi's end, of which the far guard knows")
        far.process.terminate()
        assert far.until_exit()["by"] == "signal"


def test_a_pi_that_its_own_tree_has_ended_has_crashed(tmp_path: Path) -> None:
    with far_pipe(tmp_path, "sh", "-c", "kill -TERM $$") as far:
        far.line()
        last = far.until_exit()
        assert (last["code"], last["by"]) == (-15, "pi")


def test_folders_are_made_and_its_own_tmpdir_goes_with_it(tmp_path: Path) -> None:
    cwd = tmp_path / "not" / "there"
    tmp = tmp_path / "tmp"
    tmp.mkdir()
    show = 'touch $TMPDIR/left; mkdir $TMPDIR/in; ln -s / $TMPDIR/in/link; echo "{\\"cwd\\":\\"$PWD\\",\\"tmp\\":\\"$TMPDIR\\"}"'
    with far_pipe(tmp_path, "sh", "-c", show, cwd=str(cwd), tmp="/no/such", env={"TMPDIR": str(tmp)}) as far:
        assert far.line()["made"] is True
        told = far.line()
        assert told["cwd"] == str(cwd) and Path(told["tmp"]).parent == tmp
        far.until_exit()
    assert list(tmp.iterdir()) == []


def test_variables_come_by_stdin_alone(tmp_path: Path) -> None:
    with far_pipe(tmp_path, "sh", "-c", 'echo "{\\"key\\":\\"$SOME_KEY\\"}"', env={"SOME_KEY": "canary"}) as far:
        far.line()
        assert far.line() == {"key": "canary"}
        assert b"canary" not in b" ".join(map(os.fsencode, far.process.args))  # type: ignore[arg-type]


def test_a_program_that_is_not_there_is_said_in_one_line(tmp_path: Path) -> None:
    with far_pipe(tmp_path, "no-such-pi") as far:
        far.line()
        assert far.until_exit()["error"] == "no-such-pi: No such file or directory"


def test_what_an_earlier_far_guard_of_that_name_has_left_is_ended_first(tmp_path: Path, token: str) -> None:
    with far_pipe(tmp_path, "sh", "-c", f"setsid sleep {token} & sleep {token}") as far:
        until(lambda: len(survivors(token)) >= 4, "its processes")
        os.kill(far.process.pid, signal.SIGKILL)
        far.process.wait()
        until(lambda: len(survivors(token)) == 2, "pi's end by the kernel")
        with far_pipe(tmp_path, "true") as other:
            other.line()
            assert not survivors(token)
            other.until_exit()


def test_a_last_line_that_pi_left_unfinished_does_not_hide_the_last_word(tmp_path: Path) -> None:
    with far_pipe(tmp_path, "sh", "-c", "printf '{\"torn\":'") as far:
        assert far.process.stdout is not None
        *_, torn, last = far.process.stdout.read().strip().splitlines()
        assert (torn, json.loads(last)["code"]) == (b'{"torn":', 0)


def test_a_pi_that_reads_nothing_holds_nothing_up(tmp_path: Path) -> None:
    with far_pipe(tmp_path, "sleep", "300", lease=2) as far:
        far.line()
        far.write(b'{"long":"%s"}\n' % (b"x" * 4_000_000))
        far.write(b'{"type":"ralph_end","grace":0}\n')
        assert far.until_exit()["code"] == -15


def test_four_megabytes_in_one_line_arrive_whole(tmp_path: Path) -> None:
    with far_pipe(tmp_path, "wc", "-c") as far:
        far.line()
        far.write(b"x" * 4_000_000 + b"\n")
        far.close()
        assert far.process.stdout is not None
        assert int(far.process.stdout.readline()) == 4_000_001
