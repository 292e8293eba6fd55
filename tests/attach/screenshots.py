"""Draws the pictures of the README: `python tests/attach/screenshots.py [FOLDER]`, by default docs/img."""

import asyncio
import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "runner")]

from ralph_rpc import clock
from ralph_rpc.attach.app import Attach
from tests.attach.said import Json, began, begun, deltas, ended, finished, message, stamped, step, told, tool
from tests.cli import forged

TEXT = """\
The failing test is `test_rotate`: the reader keeps the **old** file open.

1. Hold the directory, not the file.
2. Reopen when the inode changes.
"""
TASK = """\
Task (iteration 4), from .ralph/tests/task.md:
Make all tests pass, one at a time.
Run them with `make test`."""
FAILED = """\
tests/test_reader.py ....F.
E   AssertionError: 3 lines are missing
1 failed, 41 passed in 1.21s"""
OLD = "self.file = open(path)"
NEW = f"{OLD}\nself.inode = os.fstat(self.file.fileno()).st_ino"
EDIT = {"path": "src/reader.py", "edits": [{"oldText": OLD, "newText": NEW}]}
WISH = "please keep Python 3.11 working"
ANSWER = "Will do: nothing newer than 3.11 is used. Now the tests again."


def story() -> list[Json]:
    """A loop that fixes a test."""
    now = clock.now_ms()
    use = {"contextUsage": {"tokens": 42_000, "contextWindow": 200_000}}
    figures = {"turns": 9, "toolCalls": 14, "tokensIn": 41_000, "tokensOut": 3_900, "cost": 0.21}
    run: list[Json] = [
        {"type": "response", "command": "get_session_stats", "success": True, "data": use},
        {"type": "agent_start"},
        told(TASK),
        begun(),
        *deltas("One test fails since the log rotates. How does the reader follow it?", kind="thinking"),
        ended(""),
        *message("Let me see which test fails."),
        tool("start", "a", args={"command": "make test"}),
        tool("end", "a", result={"content": FAILED}, isError=True, durationMs=1_840),
        *message(TEXT),
        tool("start", "b", "edit", args=EDIT),
        tool("end", "b", "edit", result={"content": "ok"}, isError=False, durationMs=12),
        step("m", "accepted", message=WISH),
        step("m", "queued"),
        told(WISH),
        begun(),
        step("m", "delivered"),
        *deltas(ANSWER),
        ended(ANSWER),
    ]
    running = {**tool("start", "c", args={"command": "make test"}), "ralph": {"at": now - 2_300, "iteration": 4}}
    shows = {"content": "tests/test_reader.py ......\ntests/test_writer.py ..."}
    return [
        finished(3, commits=["4f2a91c0"], durationMs=184_000, **figures),
        {**began(4), "at": now - 65_000},
        *(stamped(event) for event in run),
        running,
        stamped(tool("update", "c", partialResult=shows)),
    ]


async def draw(folder: Path, project: Path) -> None:
    """Both pictures."""
    paths = forged.loop(project, "tests", alive=True, iteration=4, maxIterations=20, elapsedMs=754_000)
    forged.write_log(paths, story())
    with forged.runner_of(paths):
        app = Attach(paths)
        async with app.run_test(size=(100, 36)) as pilot:
            await pilot.pause(1)
            (folder / "attach.svg").write_text(app.export_screenshot(title="ralph-rpc attach tests"))
            await pilot.press("question_mark")
            await pilot.pause(0.5)
            (folder / "attach-help.svg").write_text(app.export_screenshot(title="ralph-rpc attach tests"))


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "img"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        os.environ |= {"HOME": scratch, "RALPH_HOME": f"{scratch}/.ralph"}
        asyncio.run(draw(folder, Path(scratch)))


if __name__ == "__main__":
    main()
