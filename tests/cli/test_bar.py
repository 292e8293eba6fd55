"""The line that shows how far a loop is."""

import io
from pathlib import Path
from typing import Any

import pytest

from ralph_rpc.cli.bar import Bar, progress_line
from ralph_rpc.loops.status import loop_status
from tests.cli import forged


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def tickets(*running: dict[str, Any]) -> dict[str, Any]:
    return {"total": 12, "closed": 6, "failed": 0, "needsMerge": 0, "running": list(running)}


@pytest.fixture
def state(tmp_path: Path) -> Any:
    one = {"ticket": "ab-1", "title": "x", "doing": "working: bash", "status": "running"}
    paths = forged.loop(tmp_path, alive=True, kind="tickets", tickets=tickets(one))
    return forged.state(paths, alive=True, kind="tickets", tickets=tickets(one))


def test_it_tells_how_much_is_done_and_what_runs(state: Any) -> None:
    line = progress_line(state, "running", 120)
    assert line == "[##########..........]  api  running  6/12 tickets  $1.25  ab-1: working: bash"


def test_a_task_loop_counts_its_iterations(tmp_path: Path) -> None:
    paths = forged.loop(tmp_path)
    line = progress_line(forged.state(paths), "running", 120)  # type: ignore[arg-type]
    assert line == "[#...................]  api  running  3/50 iterations  $1.25"
    endless: Any = forged.state(paths, maxIterations=0)
    assert progress_line(endless, "running", 120) == "api  running  3 iterations  $1.25"


def test_no_line_is_longer_than_the_terminal_or_acts_on_it(state: Any) -> None:
    state["tickets"]["running"][0]["doing"] = "\x1b[31mred\n" + "x" * 400
    line = progress_line(state, "running", 60)
    assert len(line) <= 60 and "\x1b" not in line and "\n" not in line


def test_it_is_drawn_over_itself_and_gone_at_the_end(tmp_path: Path) -> None:
    paths = forged.loop(tmp_path)
    terminal = Terminal()
    with Bar(terminal) as bar:
        bar.show(loop_status(paths))
        drawn = terminal.getvalue()
        bar.show(loop_status(paths))
        assert terminal.getvalue() == drawn, "nothing changed, nothing is drawn"
    assert terminal.getvalue().endswith("\r\x1b[K")


def test_nothing_is_drawn_where_there_is_no_terminal(tmp_path: Path) -> None:
    out = io.StringIO()
    with Bar(out) as bar:
        bar.show(loop_status(forged.loop(tmp_path)))
    assert out.getvalue() == ""
