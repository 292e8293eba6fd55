"""One loop has one set of figures, whether it is asked for by its folder or by the registry."""

from pathlib import Path
from typing import Any, cast

import pytest

from ralph_rpc.attach.headline import HeadlineFacts, headline
from ralph_rpc.cli.bar import progress_line
from ralph_rpc.cli.main import run
from ralph_rpc.clock import iso, now_ms, up_ms
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.loops.figures import of_entry, of_state
from ralph_rpc.model.registry import RegistryEntry
from ralph_rpc.model.state import State
from ralph_rpc.report import markdown
from ralph_rpc.report.gather import gather
from tests.cli import forged

QUEUED: dict[str, Any] = {"ticketsClosed": 1, "ticketsTotal": 4}


def both(tmp_path: Path, passed_ms: int, **changes: Any) -> tuple[State, RegistryEntry]:
    """A state that was written so long ago, and the entry that a heartbeat has renewed since."""
    at = {"updatedAt": iso(now_ms() - passed_ms), "monotonicMs": up_ms() - passed_ms, "elapsedMs": 50_000, **changes}
    paths = forged.loop(tmp_path, **at)
    state = forged.state(paths, **at)
    entry = forged.entry(
        tmp_path,
        status=state["status"],
        iteration=state["iteration"],
        cost=state["stats"]["cost"],
        counted=state["stats"]["iterations"],
        elapsedMs=state["elapsedMs"],
        updatedAt=state["updatedAt"],
        updatedMonotonicMs=state["monotonicMs"],
        tokens=17_700,
        **(QUEUED if "tickets" in changes else {}),
        lastSeen=iso(now_ms()),
    )
    return cast(State, state), cast(RegistryEntry, entry)


@pytest.mark.parametrize("status", ["running", "waiting", "stopping", "starting", "paused", "stopped", "error"])
@pytest.mark.parametrize("runner", ["alive", "stale", "dead"])
def test_state_and_entry_tell_the_same(tmp_path: Path, status: str, runner: Any) -> None:
    state, entry = both(tmp_path, 20_000, status=status)
    one, other = of_state(state, runner), of_entry(entry, runner)
    assert one[:3] == other[:3] == (4, 3, 1.25)
    assert one[4:] == other[4:] == (17_700, 50, None)
    assert abs(one.elapsed_ms - other.elapsed_ms) < 1000
    passes = runner == "alive" and status in ("running", "waiting", "stopping", "starting")
    assert one.elapsed_ms // 1000 == pytest.approx(70 if passes else 50, abs=2)


def test_an_entry_of_an_older_version_tells_what_it_can(tmp_path: Path) -> None:
    entry = cast(RegistryEntry, forged.entry(tmp_path, startedAt=forged.ago(100), lastSeen=forged.ago(40)))
    found = of_entry(entry, "alive")
    assert (found.counted, found.cost, found.elapsed_ms // 1000) == (None, 0.75, 60)


def test_every_view_tells_the_same_of_one_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    queue = {"total": 4, "closed": 1, "failed": 0, "needsMerge": 0, "running": []}
    state, entry = both(tmp_path / "here", 0, kind="tickets", status="paused", tickets=queue)
    forged.register("api", cast(dict[str, Any], entry))
    figures = of_state(state, "dead")
    assert figures == of_entry(entry, "dead")
    (tmp_path / "elsewhere").mkdir()
    told = [
        headline(HeadlineFacts("api", "paused", state, figures), 0, 200).plain,
        progress_line(state, "paused", 200),
        markdown.render(gather(LoopPaths.of(tmp_path / "here", "api"))),
    ]
    for args, folder in ((["list"], "here"), (["list", "--all"], "elsewhere"), (["status"], "here")):
        monkeypatch.chdir(tmp_path / folder)
        assert run(args) == 0
        told.append(capsys.readouterr().out)
    for view in told:
        assert "1/4" in view and "tickets" in view.lower() and "1.25" in view, view
    for view in (told[0], *told[2:]):
        assert "50s" in view or "50.0s" in view, view
