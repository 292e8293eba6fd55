"""The status that is shown for a loop."""

from pathlib import Path

import pytest

from ralph_rpc.loops.status import loop_status
from tests.cli import forged


@pytest.mark.parametrize(
    ("changes", "alive", "runner", "shown"),
    [
        ({"status": "running"}, True, "alive", "running"),
        ({"status": "waiting"}, True, "alive", "waiting"),
        ({"status": "running"}, False, "dead", "crashed"),
        ({"status": "paused"}, False, "dead", "crashed"),
        ({"status": "stopped", "pid": None}, False, "dead", "stopped"),
        ({"status": "completed", "pid": None}, False, "dead", "completed"),
        ({"status": "running", "updatedAt": forged.ago(60)}, True, "stale", "stale"),
        ({"status": "running", "bootId": "another boot"}, False, "dead", "crashed"),
    ],
)
def test_the_status_that_is_shown(project: Path, changes: forged.Json, alive: bool, runner: str, shown: str) -> None:
    paths = forged.loop(project, "api", alive, **changes)
    status = loop_status(paths)
    assert (status.runner, status.shown) == (runner, shown)


def test_a_held_lock_is_life_whatever_the_state_says(project: Path) -> None:
    paths = forged.loop(project, status="running")
    with forged.runner_of(paths):
        assert loop_status(paths).runner == "alive"
        paths.state.unlink()
        assert (loop_status(paths).runner, loop_status(paths).shown) == ("alive", "starting")
    assert loop_status(paths).shown == "crashed"


def test_a_runner_that_refreshes_its_registry_entry_is_not_stale(project: Path) -> None:
    paths = forged.loop(project, "api", alive=True, updatedAt=forged.ago(600))
    slug = str(project).lstrip("/").replace("/", "-")
    forged.register(f"--{slug}--api", forged.entry(project, "api", alive=True, lastSeen=forged.ago(3)))
    assert loop_status(paths).shown == "running"
    forged.register(f"--{slug}--api", forged.entry(project, "api", alive=True, lastSeen=forged.ago(45)))
    assert loop_status(paths).shown == "stale"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"status": 1}', b"\xff"])
def test_a_state_that_cannot_be_read_is_a_crash_and_no_error(project: Path, content: bytes) -> None:
    paths = forged.loop(project)
    paths.state.write_bytes(content)
    assert (loop_status(paths).state, loop_status(paths).shown) == (None, "crashed")
