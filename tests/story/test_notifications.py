"""What a person is told about a loop, and how the desktop's notifier is called. What runs it: tests/process."""

from pathlib import Path
from typing import Any, cast

import pytest

from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.model.state import State
from ralph_rpc.story import notifications
from tests.cli import forged

AT = 1_770_400_200_123


def state(project: Path, **changes: Any) -> State:
    return cast(State, forged.state(LoopPaths.of(project, "api"), **changes))


@pytest.mark.parametrize(
    ("before", "changes", "event"),
    [
        ("running", {"status": "completed", "stopReason": "verified"}, "completed"),
        ("running", {"status": "error", "stopReason": "auth", "error": "401: no key"}, "error"),
        ("starting", {"status": "error", "stopReason": "failures", "error": None}, "error"),
        ("running", {"status": "paused"}, "needs-person"),
        ("stopping", {"status": "stopped", "stopReason": "max-cost"}, "needs-person"),
        ("running", {"status": "waiting", "error": "429: rate limit"}, None),
        ("stopping", {"status": "stopped", "stopReason": "stop"}, None),
        ("stopping", {"status": "stopped", "stopReason": "kill"}, "needs-person"),
        ("starting", {"status": "running"}, None),
        ("running", {"status": "stopping"}, None),
        ("paused", {"status": "paused"}, None),
        (None, {"status": "starting"}, None),
    ],
)
def test_only_what_a_person_must_know_is_told(
    tmp_path: Path, before: str | None, changes: dict[str, Any], event: str | None
) -> None:
    notice = notifications.notification_of(before, state(tmp_path, **changes), AT)
    assert (notice and notice["event"]) == event


def test_osascript_gets_the_texts_as_arguments_of_a_fixed_script(tmp_path: Path) -> None:
    evil = '"; do shell script "touch pwned'
    notice = notifications.notification_of("running", state(tmp_path, status="error", error=evil), AT)
    assert notice is not None
    argv = notifications.desktop_argv("/usr/bin/osascript", notice)
    assert argv[-2:] == [f"api: ended in error: {evil}", "ralph-rpc: api"]
    assert not any("touch" in part for part in argv[:-2])


def test_a_kill_is_told_unless_it_was_ordered_through_this_program(tmp_path: Path) -> None:
    ended = state(tmp_path, status="stopped", stopReason="kill", error="the runner was told to end (SIGTERM)")
    notice = notifications.notification_of("stopping", ended, AT)
    assert notice is not None and "SIGTERM" in notice["message"]
    assert notifications.notification_of("stopping", ended, AT, kill_ordered=True) is None


def outage(since: str, kind: str = "billing", model: str | None = None) -> dict[str, Any]:
    return {"model": model, "kind": kind, "since": since, "until": None, "words": "402 Insufficient\x1b Balance"}


def test_a_bill_is_told_once_for_each_outage(tmp_path: Path) -> None:
    first = state(tmp_path, status="waiting", outages=[outage("2026-01-01T00:00:00.000Z")])
    told, notice = notifications.unpaid(first, frozenset(), AT)
    assert notice is not None and notice["event"] == "needs-person"
    assert "fake/m1 wants to be paid: 402 Insufficient␛ Balance" in notice["message"]
    told, again = notifications.unpaid(first, told, AT)
    assert again is None
    told, paid = notifications.unpaid(state(tmp_path, outages=[]), told, AT)
    assert paid is None
    other = state(tmp_path, outages=[outage("2026-01-02T00:00:00.000Z", model="other/small")])
    _, new = notifications.unpaid(other, told, AT)
    assert new is not None and "other/small wants" in new["message"]


def test_other_waits_are_not_told(tmp_path: Path) -> None:
    waiting = state(tmp_path, status="waiting", outages=[outage("2026-01-01T00:00:00.000Z", kind="quota")])
    assert notifications.unpaid(waiting, frozenset(), AT) == (frozenset(), None)
