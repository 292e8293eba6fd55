"""The runner's working folder is the loop's, which the agent may write: nothing in it stands in for a module."""

import os
from pathlib import Path

from ralph_rpc.loops.launch import launch
from ralph_rpc.machine import identity, locks
from tests.cli import forged
from tests.rig import wait_for

PLANTED = ("json", "random", "orjson", "asyncio", "ralph_rpc", "ralph_runner", "sitecustomize", "usercustomize")


def test_a_started_runner_executes_no_file_of_the_loops_folder(tmp_path: Path) -> None:
    """It gets as far as its config, which is no JSON here, so that it ends at once and by itself."""
    paths = forged.loop(tmp_path)
    paths.config.write_text("{")
    for name in PLANTED:
        (paths.dir / f"{name}.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'a').write({name!r})\n")
    lock = locks.acquire(paths.runner_lock)
    assert lock is not None
    runner = launch(paths, lock, resume=False)
    wait_for("the runner's end", lambda: identity.start_time(runner.pid) is None)
    os.waitpid(runner.pid, 0)
    assert "JSONDecodeError" in paths.log.read_text()
    assert not (tmp_path / "executed").exists()
