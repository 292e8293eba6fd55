"""The next prompt begins with what cut the last iteration off, or with a claim that was nearly made; and true stalls."""

from typing import Any

import pytest

from ralph_rpc.prompts.phrases import cut_off
from ralph_runner.core import effects as fx
from ralph_runner.core.inputs import AgentEnd, Settled, ToolEnd, ToolStart
from ralph_runner.core.results import Measure, Now, Verified, WorkMeasured
from ralph_runner.core.snapshot import resumed_loop, snapshot
from ralph_runner.core.tickets import results
from tests.core.talk import MARKER, Talk
from tests.core.ticket_talk import World, facts, ticket

EDITOR = ToolStart("t", "bash", "git commit")


def hang(talk: Talk, *tools: ToolStart) -> None:
    """An iteration that times out while these tools run."""
    talk.accept()
    talk.turn("", stop="toolUse", tools=0)
    talk.say(*tools)
    talk.later(60_000)
    talk.say(*(ToolEnd(tool.id, tool.name, True) for tool in tools))
    talk.say(AgentEnd(False), Settled(True))
    talk.reply("get_session_stats", {})


def begin_again(talk: Talk) -> str:
    if talk.status == "waiting":
        talk.due()
    if talk.loop.pi is None:
        talk.greet()
    else:
        talk.reply("new_session", {"cancelled": False})
    return talk.prompt


def test_a_timeout_is_told_with_the_tool_call_that_ran() -> None:
    talk = Talk(iterationTimeoutMs=60_000)
    talk.boot()
    hang(talk, EDITOR)
    assert talk.records[-1].get("cutOff") == ["bash git commit"]
    first = begin_again(talk).split("\n\n---\n\n")[0]
    assert first.startswith(
        "The last iteration was cut off: longer than --iteration-timeout; ended by an abort. `bash git commit` was"
    )
    assert "\n" not in first and "an editor" in first


def test_silence_and_a_crash_are_told_with_every_call_that_ran() -> None:
    talk = Talk(toolTimeoutMs=60_000)
    talk.boot()
    talk.accept()
    talk.turn("", stop="toolUse")
    talk.say(EDITOR, ToolStart("u", "bash", "npm init"))
    talk.later(60_000)
    talk.later(5_000)
    talk.exit(-9)
    assert "`bash git commit` and `bash npm init` were running then" in begin_again(talk)
    talk.accept()
    talk.turn("", stop="toolUse")
    talk.say(ToolStart("v", "bash", "kill -9 $PPID"))
    talk.exit(-9)
    assert "(signal 9). `bash kill -9 $PPID` was running then" in begin_again(talk)


def test_news_are_told_once_the_model_has_read_them() -> None:
    talk = Talk(iterationTimeoutMs=60_000)
    talk.boot()
    hang(talk, EDITOR)
    begin_again(talk)
    talk.accept()
    talk.turn("", stop="error", error="503 overloaded")
    talk.settle()
    assert "git commit" in begin_again(talk), "nobody has read it yet"
    talk.iterate()
    assert "git commit" not in talk.prompt


def test_an_abort_by_the_operator_is_not_told() -> None:
    talk = Talk()
    talk.boot()
    talk.accept()
    talk.turn("", stop="toolUse")
    talk.say(EDITOR)
    talk.command("abort")
    talk.say(ToolEnd("t", "bash", True), AgentEnd(False), Settled(True))
    talk.reply("get_session_stats", {})
    assert talk.records[-1]["outcome"] == "aborted" and "cutOff" not in talk.records[-1]
    assert "cut off" not in begin_again(talk)


def test_a_call_is_told_as_one_inert_line_of_bounded_length() -> None:
    record: Any = {"outcome": "timeout", "error": "x", "cutOff": ["bash `a`\n\n# Rules\x1b[31m\u202e" + "x" * 500]}
    told = cut_off(record)
    assert told is not None and told.isprintable() and len(told) < 600 and "'a'" in told


def test_a_context_that_is_full_is_told_and_other_failures_are_not() -> None:
    full: Any = {"outcome": "failed", "errorKind": "context", "error": "400 prompt is too long"}
    assert "prompt is too long" in (cut_off(full) or "")
    bill: Any = {"outcome": "failed", "errorKind": "billing", "error": "402"}
    assert cut_off(bill) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [(f"All done: {MARKER}", "with other words"), (f"{MARKER}\nBye.", "more text after it"), ("Done.", None)],
)
def test_a_marker_that_nearly_claimed_heads_the_next_prompt(text: str, words: str | None) -> None:
    talk = Talk()
    talk.boot()
    talk.iterate(text)
    first = talk.prompt.split("\n\n---\n\n")[0]
    assert (words in first) if words else first.startswith("Task (iteration 2)")


def test_a_checklist_that_nearly_claimed_heads_the_next_prompt_and_no_claim_no_near_miss() -> None:
    talk = Talk()
    talk.boot()
    talk.task = "- [x] a\n- [~] b\n"
    talk.iterate()
    assert talk.prompt.startswith("The checklist has boxes such as [~]")
    talk.task = "- [x] a\n- [ ] b\n"
    talk.iterate()
    assert talk.prompt.startswith("Task (iteration 3)")


def test_a_claim_that_verify_refused_is_no_near_miss() -> None:
    talk = Talk(verify="make")
    talk.boot()
    talk.task = "- [x] a\n- [~] b\n"
    talk.accept()
    talk.turn(f"done\n{MARKER}")
    talk.settle()
    verify: Any = {"command": "make", "exitCode": 1, "durationMs": 1, "tail": "red"}
    talk.say(Verified(verify))
    assert "boxes such as" not in begin_again(talk) and "exit code 1" in talk.prompt


def test_a_ticket_gets_its_news_and_the_next_ticket_does_not() -> None:
    world = World(ticket("a", "x"), ticket("b", "x"), parallel=1, worktrees=False, attempts=2)
    world.begin()
    world.attempt("", text=f"Ready: {MARKER}")
    assert "with other words" in world.prompts("")[-1]
    world.attempt("", text=f"Ready: {MARKER}")
    assert "Do b" in world.prompts("")[-1] and "with other words" not in world.prompts("")[-1]


def test_a_ticket_whose_pi_hung_is_told_so() -> None:
    world = World(ticket("a", "x"), iterationTimeoutMs=60_000, attempts=3)
    world.begin()
    world.turn("a")
    world.say(results.From("a", EDITOR))
    world.later(60_000)
    for event in (ToolEnd("t", "bash", True), AgentEnd(False), Settled(True)):
        world.say(results.From("a", event))
    world.due()
    assert "`bash git commit` was running then" in world.prompts("a")[-1]


def test_news_outlive_the_runner() -> None:
    talk = Talk()
    talk.boot()
    talk.iterate(f"Done: {MARKER}")
    now = Now(talk.mono, talk.wall)
    state = snapshot(talk.loop, facts(), now)
    again = Talk()
    again.loop = resumed_loop(talk.loop.config, "task.md", state, 1, now)
    again.boot()
    assert "with other words" in again.prompt


# true stalls


def looked(talk: Talk) -> list[int | None]:
    return [e.ignored_since for e in talk.all if isinstance(e, fx.MeasureWork) and e.before is not None]


def test_ignored_files_are_looked_at_only_before_stalled_would_be_said() -> None:
    talk = Talk(stallAfter=3)
    talk.boot()
    talk.iterate()
    began = talk.wall
    for _ in range(3):
        talk.iterate(change=False)
    assert looked(talk) == [None, None, None, began]
    talk.exit()
    assert talk.loop.stop_reason == "stalled"


def test_an_ignored_file_that_was_written_is_work() -> None:
    talk = Talk(stallAfter=2)
    talk.boot()
    for _ in range(3):
        talk.iterate(change=False)
        talk.slow_measure = True
        talk.accept()
        talk.turn()
        talk.settle()
        talk.say(WorkMeasured(Measure("head", str(talk.tree)), wrote_ignored=True))
        talk.slow_measure = False
        talk.reply("new_session", {"cancelled": False})
        assert talk.status == "running" and talk.loop.unchanged == 0


@pytest.mark.parametrize(
    ("tool", "failed", "counts"),
    [
        ("write", False, True),
        ("multi_edit", False, True),
        ("edit", True, False),
        ("read", False, False),
        ("bash", False, False),
    ],
)
def test_a_tool_that_wrote_a_file_anywhere_is_work(tool: str, failed: bool, counts: bool) -> None:
    talk = Talk(stallAfter=1)
    talk.boot()
    talk.accept()
    talk.turn("", stop="toolUse")
    talk.say(ToolStart("t", tool), ToolEnd("t", tool, failed))
    talk.turn("said")
    talk.settle()
    assert (talk.status == "running") == counts


def test_an_iteration_that_was_not_good_neither_stalls_nor_forgives() -> None:
    talk = Talk(stallAfter=2, iterationTimeoutMs=60_000)
    talk.boot()
    talk.iterate(change=False)
    assert talk.loop.unchanged == 1
    hang(talk, EDITOR)
    assert talk.loop.unchanged == 1


def test_the_beginning_of_a_stall_outlives_the_runner() -> None:
    talk = Talk(stallAfter=5)
    talk.boot()
    began = talk.wall
    talk.iterate(change=False)
    state = snapshot(talk.loop, facts(), Now(talk.mono, talk.wall))
    again = resumed_loop(talk.loop.config, "task.md", state, 1, Now(talk.mono, talk.wall + 9))
    assert (again.unchanged, again.unchanged_since) == (1, began)
    del state["unchangedSince"]
    assert resumed_loop(talk.loop.config, "task.md", state, 1, Now(talk.mono, talk.wall)).unchanged == 0
