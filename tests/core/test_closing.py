"""Conversations about the end of an iteration: is the task done, what does its record say, what counts as a change."""

import pytest

from ralph_runner.core import effects as fx
from ralph_runner.core.results import Terminate, Verified
from tests.core.talk import MARKER, Talk, done


def test_a_marker_alone_on_the_last_line_completes() -> None:
    talk = Talk()
    talk.boot()
    talk.iterate(f"all done\n\n{MARKER}\n")
    assert done(talk) == ("completed", "marker")


@pytest.mark.parametrize(
    "text", [f"I will write {MARKER} when done", f"{MARKER}\nbut one thing is left", f"say `{MARKER}`"]
)
def test_a_marker_in_prose_does_not_complete(text: str) -> None:
    talk = Talk()
    talk.boot()
    talk.iterate(text)
    assert talk.status == "running"


def test_a_marker_in_a_truncated_answer_does_not_complete() -> None:
    talk = Talk()
    talk.boot()
    talk.iterate(MARKER, stop="length")
    assert talk.status == "running"


def test_a_fully_ticked_checklist_completes() -> None:
    talk = Talk()
    talk.boot()
    talk.task = "- [x] one\n- [X] two\n```\n- [ ] example\n```\n"
    talk.iterate()
    assert done(talk) == ("completed", "checklist")


def test_verify_has_the_last_word() -> None:
    talk = Talk(verify="make test")
    talk.boot()
    talk.accept()
    talk.turn(MARKER)
    talk.settle()
    assert talk.did(fx.RunVerify) == [fx.RunVerify("make test", 3_600_000)]
    talk.say(Verified({"command": "make test", "exitCode": 2, "durationMs": 5, "tail": "1 failed"}))
    talk.reply("new_session")
    assert talk.status == "running"
    assert talk.prompt.startswith("The last iteration claimed that the task is complete, but it is not")
    assert "exit code 2" in talk.prompt and "1 failed" in talk.prompt
    talk.accept()
    talk.turn(MARKER)
    talk.settle()
    talk.say(Verified({"command": "make test", "exitCode": 0, "durationMs": 5, "tail": "ok"}))
    assert done(talk) == ("completed", "verified")
    assert talk.records[-1].get("verify", {}).get("exitCode") == 0


def test_iterations_that_change_nothing_stall() -> None:
    talk = Talk(stallAfter=3)
    talk.boot()
    talk.iterate()
    for _ in range(3):
        talk.iterate(change=False)
    assert done(talk) == ("error", "stalled")


def test_an_edit_of_the_task_file_is_a_change() -> None:
    talk = Talk(stallAfter=2)
    talk.boot()
    talk.iterate()
    for i in range(5):
        talk.task += f"\nnote {i}"
        talk.iterate(change=False)
    assert talk.status == "running"


@pytest.mark.parametrize(("how", "graceful"), [("stop", True), ("sigterm", False)])
def test_after_the_last_iteration_pi_may_end_by_itself_unless_the_runner_is_being_killed(
    how: str, graceful: bool
) -> None:
    talk = Talk()
    talk.boot()
    talk.accept()
    if how == "stop":
        talk.command("stop")
        talk.turn()
    else:
        talk.say(Terminate())
        talk.turn("", stop="aborted")
    talk.settle()
    assert [e for e in talk.all if isinstance(e, fx.EndPi)] == [fx.EndPi(graceful)]


def test_a_change_of_the_project_alone_and_of_the_task_alone_each_end_a_stall() -> None:
    talk = Talk(stallAfter=2)
    talk.boot()
    talk.iterate()
    talk.iterate(change=False)
    assert talk.loop.unchanged == 1
    talk.iterate(change=True)
    assert talk.loop.unchanged == 0
    talk.iterate(change=False)
    talk.task += "\nlearned something"
    talk.iterate(change=False)
    assert talk.loop.unchanged == 0


def test_failures_in_a_row_end_the_loop_and_a_good_iteration_forgives_them() -> None:
    talk = Talk(maxFailures=2)
    talk.boot()
    for _ in range(2):
        talk.iterate("", stop="error", error="something odd")
        talk.wait_over()
        talk.iterate()
    assert talk.status == "running"
    talk.iterate("", stop="error", error="something odd")
    talk.wait_over()
    talk.iterate("", stop="error", error="something odd")
    assert done(talk) == ("error", "failures")
    assert talk.loop.error == "2 iterations failed in a row; the last: something odd"
