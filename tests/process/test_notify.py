"""--notify: what is told and when, and that the command which tells it holds nothing up and leaves nothing behind."""

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.model.state import State
from ralph_rpc.story import notifications
from ralph_runner.shell import notify as shell
from ralph_runner.shell.notify import Notifier
from tests.cli import forged
from tests.process.trees import is_gone, until

pytestmark = pytest.mark.usefixtures("no_leftovers")
AT = 1_770_400_200_123


class Desk:
    """A loop's folder, a notifier for it, and what the notifier said."""

    def __init__(self, project: Path) -> None:
        self.paths = LoopPaths.of(project, "api")
        self.paths.dir.mkdir(parents=True)
        self.noted: list[str] = []
        self.warned: list[str] = []

    def state(self, **changes: Any) -> State:
        return cast(State, forged.state(self.paths, **changes))

    def notice(self, **changes: Any) -> notifications.Notification:
        found = notifications.notification_of(
            "running", self.state(**{"status": "completed", "stopReason": "marker", **changes}), AT
        )
        assert found is not None
        return found

    def run(self, command: str | None, then: Callable[[Notifier], None]) -> float:
        """Lets `then` tell a notifier, closes that, and returns how long closing took."""

        async def live() -> float:
            notifier = Notifier(
                command, self.paths, self.paths.project, self.paths.project, self.noted.append, self.warned.append
            )
            before = time.monotonic()
            then(notifier)
            assert time.monotonic() - before < 5, "telling must not wait"
            before = time.monotonic()
            await asyncio.wait_for(notifier.close(), 60)
            return time.monotonic() - before

        return asyncio.run(live())

    def tell(self, command: str | None, *notices: notifications.Notification) -> float:
        def then(notifier: Notifier) -> None:
            for notice in notices or (self.notice(),):
                notifier.tell(notice)

        return self.run(command, then)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_the_command_gets_the_notice_as_json_and_in_its_environment(desk: Desk) -> None:
    desk.tell('cat > told; env | grep "^RALPH_" > env')
    told = json.loads((desk.paths.project / "told").read_bytes())
    assert told == {
        "event": "completed",
        "name": "api",
        "cwd": str(desk.paths.project),
        "ralphDir": str(desk.paths.dir),
        "kind": "task",
        "status": "completed",
        "stopReason": "marker",
        "error": None,
        "iteration": 4,
        "cost": 1.25,
        "message": "api: completed (marker)",
        "at": "2026-02-06T17:50:00.123Z",
    }
    given = dict(line.split("=", 1) for line in (desk.paths.project / "env").read_text().splitlines())
    expected = {
        "RALPH_LOOP": "api",
        "RALPH_LOOP_DIR": str(desk.paths.dir),
        "RALPH_EVENT": "completed",
        "RALPH_STATUS": "completed",
        "RALPH_STOP_REASON": "marker",
        "RALPH_MESSAGE": "api: completed (marker)",
        "RALPH_ITERATION": "4",
        "RALPH_COST": "1.2500",
    }
    assert expected.items() <= given.items()
    assert desk.warned == [] and desk.noted == []


def test_a_merge_that_a_person_must_do_names_the_ticket(desk: Desk) -> None:
    desk.tell("cat > told", notifications.needs_merge(desk.state(), "ab-12", "conflict in a.py", AT))
    told = json.loads((desk.paths.project / "told").read_bytes())
    assert (told["event"], told["ticket"]) == ("needs-merge", "ab-12")
    assert told["message"] == "api: ticket ab-12 needs a merge by hand: conflict in a.py"


def test_a_hostile_error_is_one_inert_line_and_no_shell_code(desk: Desk) -> None:
    evil = "$(touch pwned) `touch pwned`; \x1b]0;x\x07\nsecond\u202e" + "\u0301" * 100_000
    desk.tell('cat > told; printf %s "$RALPH_MESSAGE" > message', desk.notice(status="error", error=evil))
    assert not (desk.paths.project / "pwned").exists()
    message = (desk.paths.project / "message").read_text()
    assert "$(touch pwned)" in message and message.isprintable()
    assert (desk.paths.project / "told").stat().st_size < 32_768


def test_a_command_that_fails_is_told_with_its_output_and_nothing_else_happens(desk: Desk) -> None:
    desk.tell("echo no \x1b[31mluck >&2; exit 3")
    assert desk.noted == ["notify: no ␛[31mluck"]
    assert len(desk.warned) == 1 and "exit code 3" in desk.warned[0] and "api: completed" in desk.warned[0]


def test_a_folder_that_is_gone_costs_one_line(desk: Desk) -> None:
    def then(notifier: Notifier) -> None:
        notifier._workdir = desk.paths.project / "gone"
        notifier.tell(desk.notice())

    desk.run("true", then)
    assert len(desk.warned) == 1 and "No such file" in desk.warned[0]


def test_a_command_that_hangs_is_ended_with_its_whole_tree(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell, "LONGEST_S", 0.5)
    desk.tell("setsid sleep 600 & echo $! > child; sleep 600")
    assert len(desk.warned) == 1 and "was ended after" in desk.warned[0]
    child = int((desk.paths.project / "child").read_text())
    until(lambda: is_gone(child), "the end of what the command started")


def test_a_runner_that_leaves_ends_what_takes_too_long(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell, "PATIENCE_S", 0.5)
    desk.tell("echo $$ > child; exec sleep 600", desk.notice(), desk.notice())
    assert desk.noted == ["2 notifications were not delivered: the command takes too long"]
    child = int((desk.paths.project / "child").read_text())
    until(lambda: is_gone(child), "the end of the command")


def test_notices_are_told_one_after_the_other(desk: Desk) -> None:
    notices = [desk.notice(iteration=n) for n in range(5)]
    desk.tell("mkdir busy && echo $RALPH_ITERATION >> told; sleep 0.05; rmdir busy", *notices)
    assert (desk.paths.project / "told").read_text().split() == list("01234")


def test_a_flood_of_notices_is_cut_and_said_so(desk: Desk) -> None:
    desk.tell("echo x >> told", *[desk.notice()] * (shell.WAITING_AT_MOST + 2))
    assert len((desk.paths.project / "told").read_text().split()) == shell.WAITING_AT_MOST
    assert len(desk.warned) == 2 and "are waiting already" in desk.warned[0]


def test_a_command_may_take_longer_than_the_guard_allows_after_the_end_of_stdin(desk: Desk) -> None:
    """A guard ends a program 5 s after it has closed its stdin; a notice may take longer than that."""
    desk.tell("cat > told; sleep 6; echo done >> told")
    assert (desk.paths.project / "told").read_text().endswith("done\n")


def test_without_a_command_nothing_is_started(desk: Desk) -> None:
    assert desk.tell(None) < 0.1
    assert desk.warned == []


def test_desktop_calls_the_systems_notifier_with_texts_as_arguments(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "bin" / "notify-send"
    fake.parent.mkdir()
    fake.write_text(f'#!/bin/sh\nfor a in "$@"; do printf "%s\\n" "$a"; done > {tmp_path}/shown\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:/usr/bin:/bin")
    desk.tell("desktop", desk.notice(status="error", error="--help <b>& $(touch pwned)"))
    assert (tmp_path / "shown").read_text().splitlines() == [
        "--app-name=ralph-rpc",
        "--urgency=critical",
        "--",
        "ralph-rpc: api",
        "api: ended in error: --help &lt;b&gt;&amp; $(touch pwned)",
    ]
    assert desk.warned == []


def test_desktop_without_a_notifier_says_so_once(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(desk.paths.project))
    desk.tell("desktop", desk.notice(), desk.notice())
    assert desk.warned == ["--notify desktop: this system has no notifier (notify-send); no notification will be sent"]
