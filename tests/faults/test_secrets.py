"""What must not be seen by others: keys of the environment stay where they are, and what we write is the user's alone."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import pytest

from ralph_rpc.machine import locks
from tests.faults.conftest import Note
from tests.process.trees import until
from tests.rig import Rig, fake_rig

pytestmark = pytest.mark.usefixtures("no_leftovers")
MARKER = "<promise>COMPLETE</promise>"

# -- row 44: secrets

CANARY = "canary-5c1f-sk-ant"
KEYS = ("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "MY_OWN_TOKEN", "AWS_SECRET_ACCESS_KEY", "RALPH_SOMETHING")


@contextmanager
def command_lines() -> Iterator[set[bytes]]:
    """Every command line that is seen on this machine while this lasts."""
    seen: set[bytes] = set()
    over = threading.Event()

    def sample() -> None:
        while not over.is_set():
            for entry in os.scandir("/proc"):
                if entry.name.isdigit():
                    try:
                        seen.add(Path(entry.path, "cmdline").read_bytes())
                    except OSError:
                        continue
            time.sleep(0.005)

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def holding(canary: str, *tops: Path) -> list[Path]:
    files = [path for top in tops for path in top.rglob("*") if path.is_file() and not path.is_symlink()]
    assert files
    return [path for path in files if canary.encode() in path.read_bytes()]


def everything(rig: Rig) -> tuple[Path, ...]:
    """All folders in which a loop writes, the user's and ours."""
    return rig.project, Path(rig.env["HOME"]), Path(rig.env["RALPH_HOME"])


def looked_at(rig: Rig) -> str:
    """What every command that shows something prints."""
    said = ""
    for args in (
        ["list", "--all"],
        ["list", "--json"],
        ["status"],
        ["status", "x"],
        ["status", "x", "--json"],
        ["logs", "x"],
        ["doctor"],
        ["start", "y", "--dry-run", "--pi", rig.pi, "-m", "t"],
        ["start", "y", "--dry-run", "--json", "--pi", rig.pi, "-m", "t"],
    ):
        done = rig.run(*args, check=None)
        said += done.stdout + done.stderr
    return said


def test_row_44_a_key_of_the_environment_is_found_nowhere(tmp_path: Path, figure: Note) -> None:
    """pi crashes once, a verification fails once, the runner is resumed: every kind of file is written."""
    rig = fake_rig(tmp_path, [["begun", {"exit": 3}], f"done\n{MARKER}", f"really\n{MARKER}"])
    rig.env |= dict.fromkeys(KEYS, CANARY)
    with command_lines() as seen:
        rig.start("--verify", "test -e verified || { touch verified; exit 1; }", "-n", "1")
        rig.wait_end()
        rig.run("steer", "x", "hello", check=None)
        said = looked_at(rig)
        rig.run("resume", "x", "-n", "5")
        assert rig.wait_end()["status"] == "completed"
        said += looked_at(rig)
    assert any(b"ralph_runner" in one for one in seen) and any(b"/proc/self/fd/" in one for one in seen)
    assert not [one for one in seen if CANARY.encode() in one]
    assert CANARY not in said
    assert holding(CANARY, *everything(rig)) == []
    figure(f"{len(KEYS)} keys, {len(seen)} command lines seen, every file and every output searched: 0 hits")


def test_row_44_a_key_that_a_tool_prints_is_in_pis_own_events_only(tmp_path: Path, figure: Note) -> None:
    rig = fake_rig(tmp_path, [[{"tool": "bash", "run": "env", "output": f"KEY={CANARY}"}, f"done\n{MARKER}"]])
    rig.env |= dict.fromkeys(KEYS, CANARY)
    rig.start()
    assert rig.wait_end()["status"] == "completed"
    assert holding(CANARY, *everything(rig)) == [rig.paths.events]
    lines = [orjson.loads(line) for line in rig.paths.events.read_bytes().splitlines() if CANARY.encode() in line]
    assert lines and not [line["type"] for line in lines if line["type"].startswith("ralph_")]
    figure(f"{len(lines)} hits, all in pi's own events")


@pytest.mark.parametrize(
    "how", [["--", "--api-key", CANARY], ["--", f"--api-key={CANARY}"], []], ids=["two words", "one", "toml"]
)
def test_row_44_a_key_for_pis_command_line_is_refused_and_not_repeated(tmp_path: Path, how: list[str]) -> None:
    """Command lines are open to every user of the machine, and are logged."""
    rig = fake_rig(tmp_path, ["never"])
    if not how:
        rig.paths.dir.parent.mkdir()
        (rig.paths.dir.parent / "config.toml").write_text(f'pi-args = ["--api-key", "{CANARY}"]\n')
    done = rig.start(*how, check=2)
    assert "environment" in done.stderr and CANARY not in done.stderr + done.stdout
    assert not rig.paths.dir.exists()


# -- row 45: modes


@pytest.mark.parametrize("mask", [0o000, 0o077])
def test_row_45_what_we_write_is_the_users_alone_under_any_umask(tmp_path: Path, mask: int, figure: Note) -> None:
    rig = fake_rig(tmp_path, [["begun", {"exit": 3}], [{"tool": "bash", "run": "touch made"}, f"done\n{MARKER}"]])
    before = os.umask(mask)
    try:
        rig.start("--verify", "true", "--reflect-every", "2", "--log-size", "4k")
        rig.run("steer", "x", "hello", check=None)
        rig.wait_end()
        until(lambda: not locks.is_held(rig.paths.runner_lock), "the runner has left")
        rig.start("-n", "1")  # the first run moves into the archive
        entry = next(Path(rig.env["RALPH_HOME"]).glob("registry/*.json"), None)
        mode = entry.stat().st_mode & 0o777 if entry else 0o600
        rig.wait_end()
    finally:
        os.umask(before)
    seen = 0
    for path in (rig.paths.dir.parent, *rig.paths.dir.parent.rglob("*"), *Path(rig.env["RALPH_HOME"]).rglob("*")):
        want = 0o700 if path.is_dir() else 0o600
        assert path.lstat().st_mode & 0o777 == want, path
        seen += 1
    assert mode == 0o600
    assert (rig.paths.dir.parent / ".gitignore").read_text() == "*\n"
    # What the agent makes is the user's, under the user's umask.
    assert (rig.project / "made").stat().st_mode & 0o777 == 0o666 & ~mask
    figure(f"umask {mask:03o}: {seen} files and folders, all 0600 and 0700")
