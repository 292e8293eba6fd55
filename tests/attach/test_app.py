"""The view as a person uses it, driven by Textual's pilot: keys in, lines out. The loop is files only."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import orjson
import pytest
from textual.pilot import Pilot
from textual.widgets import Footer, Static

from ralph_rpc.attach.app import Attach
from ralph_rpc.attach.screens import Help
from ralph_rpc.files.paths import LoopPaths
from tests.attach.said import (
    began,
    began_loop,
    begun,
    deltas,
    ended,
    ended_loop,
    finished,
    iteration,
    message,
    notice,
    stamped,
    step,
    tool,
    tool_call,
)
from tests.cli import forged

Json = dict[str, Any]
Script = Callable[["Seat"], Awaitable[None]]


class Seat:
    """Somebody in front of the view."""

    def __init__(self, app: Attach, pilot: Pilot[None], paths: LoopPaths) -> None:
        self.app, self.pilot, self.paths = app, pilot, paths

    def screen(self) -> str:
        """What is on the screen now."""
        strips = self.app.screen._compositor.render_strips()
        return "\n".join(strip.text.rstrip() for strip in strips)

    async def sees(self, *texts: str, never: str = "") -> str:
        """Waits until all of this is on the screen, and `never` is not."""
        deadline = time.monotonic() + 60  # a machine that has much else to do
        while time.monotonic() < deadline:
            await self.pilot.pause(0.01)
            shown = self.screen()
            if all(text in shown for text in texts) and not (never and never in shown):
                return shown
        raise AssertionError(f"never saw {texts} without {never!r}:\n{self.screen()}")

    async def presses(self, *keys: str) -> None:
        await self.pilot.press(*keys)

    async def types(self, text: str, end: str = "enter") -> None:
        self.app.input_line.focus()
        self.app.input_line.value = text
        await self.pilot.press(end)

    def log(self, *events: Json) -> None:
        """The runner writes."""
        with self.paths.events.open("ab") as file:
            file.write(b"".join(orjson.dumps(event) + b"\n" for event in events))

    def inbox(self) -> list[Json]:
        files = sorted(self.paths.inbox.glob("*.json"))
        return [orjson.loads(file.read_bytes()) for file in files]

    async def command(self) -> Json:
        """The one command that was sent."""
        for _ in range(200):
            if found := self.inbox():
                (command,) = found
                return command
            await self.pilot.pause(0.01)
        raise AssertionError(f"no command was sent:\n{self.screen()}")


def sit(
    tmp_path: Path,
    events: list[Json],
    script: Script,
    size: tuple[int, int] = (100, 30),
    alive: bool = True,
    start: Json | None = None,
    runner: ExitStack | None = None,
    **state: Any,
) -> Attach:
    """Plays a script in front of a loop with this log."""
    paths = forged.loop(tmp_path / "project", alive=alive, **state)
    forged.write_log(paths, events)

    async def play() -> Attach:
        app = Attach(paths, **(start or {}))
        async with app.run_test(size=size, notifications=True) as pilot:
            await script(Seat(app, pilot, paths))
        return app

    with runner or ExitStack() as held:
        if alive:
            held.enter_context(forged.runner_of(paths))
        return asyncio.run(play())


def many(count: int) -> list[Json]:
    return [event for n in range(1, count + 1) for event in iteration(n)]


def test_text_streams_as_it_comes(tmp_path: Path) -> None:
    async def script(seat: Seat) -> None:
        await seat.sees("first words")
        seat.log(*deltas(" and then **some more**"))
        await seat.sees("first words and then some more", never="**")

    sit(tmp_path, [began(1), begun(), *deltas("first words")], script)


def test_a_tool_shows_its_output_while_it_runs_and_how_it_ended(tmp_path: Path) -> None:
    async def script(seat: Seat) -> None:
        seat.log(tool("start", args={"command": "make test"}))
        await seat.sees("▸ bash make test running")
        seat.log(tool("update", partialResult={"content": [{"type": "text", "text": "building"}]}))
        await seat.sees("  building")
        seat.log(tool("end", result={"content": "all built"}, isError=False, durationMs=2_500))
        await seat.sees("▸ bash make test ok 2.5s", "  all built", never="building\n")

    sit(tmp_path, [began(1)], script)


@pytest.mark.parametrize(
    ("line", "key", "expected"),
    [
        ("be quick", "enter", {"type": "steer", "message": "be quick"}),
        ("then this", "ctrl+j", {"type": "followup", "message": "then this", "when": "now"}),
        ("then that", "alt+enter", {"type": "followup", "message": "then that", "when": "now"}),
        ("/next remember me", "enter", {"type": "followup", "message": "remember me", "when": "next"}),
        ("/stop", "enter", {"type": "stop"}),
        ("/stop now", "enter", {"type": "stop", "when": "now"}),
        ("/pause", "enter", {"type": "pause"}),
        ("/resume", "enter", {"type": "resume"}),
        ("/abort pause", "enter", {"type": "abort", "then": "pause"}),
        (" /not a command", "enter", {"type": "steer", "message": "/not a command"}),
        ("two⏎lines", "enter", {"type": "steer", "message": "two\nlines"}),
    ],
)
def test_what_is_entered_becomes_a_command(tmp_path: Path, line: str, key: str, expected: Json) -> None:
    async def script(seat: Seat) -> None:
        await seat.types(line, key)
        command = await seat.command()
        assert command.pop("id")
        assert command == expected
        await seat.sees(f"{expected['type']}: sent")
        assert seat.app.input_line.value == ""

    sit(tmp_path, [began(1)], script)


def test_the_receipt_of_a_message_grows_beside_it(tmp_path: Path) -> None:
    async def script(seat: Seat) -> None:
        await seat.types("mind the gap")
        await seat.sees("◆ mind the gap", "steer: sent")
        id = (await seat.command())["id"]
        seat.log(step(id, "accepted", message="mind the gap"), step(id, "queued"))
        await seat.sees("steer: sent → accepted → queued")
        seat.log(*message("I do."), step(id, "delivered"))
        shown = await seat.sees("steer: sent → accepted → queued → ✓ delivered")
        assert shown.count("mind the gap") == 1

    sit(tmp_path, [began(1)], script)


def test_a_message_of_somebody_else_is_shown_with_its_receipt(tmp_path: Path) -> None:
    async def script(seat: Seat) -> None:
        seat.log(step("other", "accepted", message="from afar"), step("other", "rejected", reason="the loop has ended"))
        await seat.sees("◆ from afar", "steer: accepted → rejected: the loop has ended")

    sit(tmp_path, [began(1)], script)


def test_a_wrong_command_is_told_and_can_be_mended(tmp_path: Path) -> None:
    async def script(seat: Seat) -> None:
        await seat.types("/stpo")
        await seat.sees("there is no command /stpo")
        assert seat.app.input_line.value == "/stpo" and seat.inbox() == []

    sit(tmp_path, [began(1)], script)


def test_commands_are_completed(tmp_path: Path) -> None:
    async def script(seat: Seat) -> None:
        await seat.presses("slash", "p", "a", "tab")
        assert seat.app.input_line.value == "/pause"

    sit(tmp_path, [began(1)], script)


def test_several_pasted_lines_are_all_sent(tmp_path: Path) -> None:
    async def script(seat: Seat) -> None:
        from textual.events import Paste

        seat.app.input_line.post_message(Paste("one\r\ntwo\nthree\n"))
        await seat.sees("one⏎two⏎three")
        await seat.presses("enter")
        assert (await seat.command())["message"] == "one\ntwo\nthree"

    sit(tmp_path, [began(1)], script)


@pytest.mark.parametrize(
    ("status", "key", "expected"),
    [
        ("running", "a", {"type": "abort", "then": "continue"}),
        ("running", "p", {"type": "pause"}),
        ("paused", "r", {"type": "resume"}),
        ("running", "s", {"type": "stop", "when": "iteration"}),
    ],
)
def test_escape_asks_what_to_do_with_the_run(tmp_path: Path, status: str, key: str, expected: Json) -> None:
    async def script(seat: Seat) -> None:
        await seat.presses("escape")
        await seat.sees("What should api do?", "Esc", "cancel")
        await seat.presses(key)
        command = await seat.command()
        command.pop("id")
        assert command == expected

    sit(tmp_path, [began(1)], script, status=status)


def test_a_loop_of_another_project_gets_the_first_message_after_a_yes(tmp_path: Path) -> None:
    async def script(seat: Seat) -> None:
        await seat.types("for whom")
        await seat.sees("api is not a loop of this project", "project", "y", "Send it?")
        await seat.presses("escape")
        await seat.sees("> for whom", never="Send it?")
        assert seat.inbox() == []
        await seat.presses("enter")
        await seat.sees("Send it?")
        await seat.presses("y")
        assert (await seat.command())["message"] == "for whom"
        for file in seat.paths.inbox.glob("*.json"):
            file.unlink()
        await seat.types("and another")
        assert (await seat.command())["message"] == "and another"

    sit(tmp_path, [began(1)], script, start={"elsewhere": True})


def test_the_order_menu_names_another_project(tmp_path: Path) -> None:
    async def script(seat: Seat) -> None:
        await seat.presses("escape")
        await seat.sees("What should api of", "project do?")
        await seat.presses("p")
        assert (await seat.command())["type"] == "pause"

    sit(tmp_path, [began(1)], script, start={"elsewhere": True})


def test_escape_twice_does_nothing(tmp_path: Path) -> None:
    async def script(seat: Seat) -> None:
        await seat.presses("escape")
        await seat.sees("What should api do?")
        await seat.presses("escape")
        await seat.sees("iteration 1", never="What should")
        assert seat.inbox() == []

    sit(tmp_path, [began(1)], script)


def test_the_headline_says_how_it_goes(tmp_path: Path) -> None:
    async def script(seat: Seat) -> None:
        await seat.sees("api · running · 3/50 iterations · 1h02m · $1.25 · 17.7k tokens")
        use = {"tokens": 50_000, "contextWindow": 200_000}
        seat.log(
            stamped(
                {"type": "response", "command": "get_session_stats", "success": True, "data": {"contextUsage": use}}
            )
        )
        seat.log(finished(4, commits=["0123456789abcdef"]), tool("start", args={"command": "make"}))
        await seat.sees("context 25%", "commit 0123456", "bash make")

    sit(tmp_path, [began(1)], script, size=(140, 20))


def test_silence_is_told_in_yellow(tmp_path: Path) -> None:
    async def script(seat: Seat) -> None:
        before = time.time() - 42
        os.utime(seat.paths.events, (before, before))
        await seat.sees("nothing for 4")
        line = seat.app.screen._compositor.render_strips()[0]
        assert all("color(3)" in str(segment.style) for segment in line if segment.text.strip())
        seat.log(notice("a word"))
        await seat.sees("a word", never="nothing for")

    sit(tmp_path, [began(1)], script)


def test_it_follows_the_end_until_one_scrolls_and_again_from_the_bottom(tmp_path: Path) -> None:
    async def script(seat: Seat) -> None:
        await seat.sees("iteration 40 ok")
        await seat.presses("pageup", "pageup")
        top = seat.screen().split("\n")[1]
        assert not seat.app.stream.following
        seat.log(*iteration(41))
        await seat.sees("↑")
        await seat.pilot.pause(0.2)
        assert seat.screen().split("\n")[1] == top
        await seat.presses("end")
        await seat.sees("iteration 41 ok", never="↑")
        seat.log(*iteration(42))
        await seat.sees("iteration 42 ok")
        await seat.presses("pageup", "pagedown")
        assert seat.app.stream.following

    sit(tmp_path, many(40), script)


def test_the_whole_log_can_be_reached_by_scrolling_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ralph_rpc.attach.window.STEP", 8 << 10)
    monkeypatch.setattr("ralph_rpc.attach.window.MOST", 100)
    monkeypatch.setattr("ralph_rpc.attach.app.STEP", 8 << 10)

    async def script(seat: Seat) -> None:
        await seat.sees("iteration 100 ok")
        await seat.presses("tab")
        for _ in range(200):
            await seat.presses("home")
            if "iteration 1 (work)" in seat.screen():
                break
        await seat.sees("iteration 1 (work)", "the task, 1")
        assert len(seat.app.stream.window.blocks.all) < 200
        for _ in range(200):
            await seat.presses("pagedown")
            if seat.app.stream.following:
                break
        await seat.sees("iteration 100 ok")

    sit(tmp_path, many(100), script)


def test_it_can_begin_at_the_start_or_with_the_last_events(tmp_path: Path) -> None:
    async def from_start(seat: Seat) -> None:
        await seat.sees("iteration 1 (work)", never="iteration 40")

    async def last_two(seat: Seat) -> None:
        assert "iteration 40 ok" in (await seat.sees("iteration 40 ok")).split("\n")[-3]

    sit(tmp_path / "a", many(40), from_start, start={"from_start": True})
    sit(tmp_path / "b", many(40), last_two, start={"lines": 2})


def test_search_finds_what_was_said_long_ago(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ralph_rpc.attach.window.STEP", 8 << 10)

    async def script(seat: Seat) -> None:
        await seat.sees("iteration 300 ok")
        await seat.presses("tab", "slash")
        await seat.sees("Search")
        await seat.presses(*"Needle", "enter")
        await seat.sees("here is the needle of 200")
        await seat.presses("n")
        await seat.sees("here is the needle of 20", never="of 200")
        await seat.presses("N")
        await seat.sees("here is the needle of 200")
        await seat.presses("n", "n")
        await seat.sees("nothing older")  # which passes; it need not be there any more when the text is
        await seat.sees("here is the needle of 20", never="of 200")
        # Esc leaves the search, and only then asks what the loop should do.
        await seat.presses("escape")
        await seat.sees("here is the needle of 20", never="What should")
        await seat.presses("g", "slash", *"needle of 200", "enter")
        await seat.sees("nothing older")
        await seat.sees("here is the needle of 200")
        await seat.presses("slash", *"nowhere", "enter")
        await seat.sees("not found")

    events = [
        event for n in range(1, 301) for event in iteration(n, f"here is the needle of {n}" if n in (20, 200) else "")
    ]
    sit(tmp_path, events, script)


def test_one_can_go_to_an_iteration(tmp_path: Path) -> None:
    async def script(seat: Seat) -> None:
        forged.write_record(seat.paths, 150, start, start + 1)
        await seat.sees("iteration 300 ok")
        await seat.presses("tab", "i", *"150", "enter")
        shown = await seat.sees("iteration 150 (work)", never="iteration 149")
        assert shown.split("\n")[1].startswith("── iteration 150")
        await seat.presses("i", *"999", "enter")
        await seat.sees("no record of iteration 999")

    start = sum(len(orjson.dumps(event)) + 1 for event in many(149))
    sit(tmp_path, many(300), script)


def test_tools_and_thinking_unfold_all_or_one(tmp_path: Path) -> None:
    long = "\n".join(f"row {n}" for n in range(30))
    thought = [begun(), *deltas("\n".join(f"idea {n}" for n in range(9)), kind="thinking"), ended("")]

    async def script(seat: Seat) -> None:
        await seat.sees("row 29", "25 more lines", never="row 3\n")
        await seat.presses("tab", "e")
        await seat.sees("row 3", never="more lines")
        await seat.presses("e")
        await seat.sees("25 more lines")
        await seat.presses("left_square_bracket", "enter")
        await seat.sees("row 3", never="more lines")
        await seat.presses("enter", "t")
        await seat.sees("idea 8", "25 more lines")

    sit(tmp_path, [*thought, *tool_call("a", "seq", long)], script, size=(80, 60))


def test_the_last_message_or_the_chosen_block_is_copied_inert(tmp_path: Path) -> None:
    async def script(seat: Seat) -> None:
        await seat.sees("the answer")
        await seat.presses("tab", "y")
        assert seat.app.clipboard == "the answer ␛[2J"
        await seat.presses("left_square_bracket", "y")
        assert seat.app.clipboard == "make\nbuilt"

    sit(tmp_path, [*message("the answer \x1b[2J"), *tool_call("a", "make", "built")], script)


def test_help_shows_all_keys_and_closes(tmp_path: Path) -> None:
    async def script(seat: Seat) -> None:
        await seat.presses("question_mark")
        await seat.sees("steer: the agent gets it", "/abort", "q, Ctrl+C", "detach")
        assert isinstance(seat.app.screen, Help)
        await seat.presses("escape")
        await seat.sees("iteration 1 (work)", never="Ctrl+C")

    sit(tmp_path, [began(1)], script, size=(80, 24))


def test_keys_are_shown_below_and_fit_80_columns(tmp_path: Path) -> None:
    async def script(seat: Seat) -> None:
        assert seat.app.query_one(Footer)
        shown = (await seat.sees("Steer", "Follow up", "Detach", "Abort")).split("\n")[-1]
        assert len(shown) <= 80
        await seat.presses("tab")
        await seat.sees("Help", "Search", "Unfold", "Detach", "Abort")

    sit(tmp_path, [began(1)], script, size=(80, 24))


@pytest.mark.parametrize(
    "keys",
    [("tab", "q"), ("ctrl+c",), ("question_mark", "ctrl+c"), ("escape", "ctrl+c"), ("slash", *"detach", "enter")],
)
def test_leaving_says_that_the_loop_goes_on_and_where_it_was_left(tmp_path: Path, keys: tuple[str, ...]) -> None:
    async def script(seat: Seat) -> None:
        await seat.sees("iteration 3 ok")
        seat.log(notice("the last word"))
        await seat.sees("the last word")
        await seat.presses(*keys)
        await seat.pilot.pause()
        assert not seat.app.is_running or seat.app._exit

    app = sit(tmp_path, many(3), script)
    assert app.goodbye == "Detached from api (still running). Back with: ralph-rpc attach api"
    offset = app.paths.dir / "events.offset"
    assert int(offset.read_text()) == app.paths.events.stat().st_size
    assert list(app.paths.inbox.iterdir()) == []


def test_a_loop_that_ends_shows_what_came_of_it_and_one_that_is_resumed_is_followed(tmp_path: Path) -> None:
    async def script(seat: Seat) -> None:
        await seat.sees("running")
        end = forged.state(seat.paths, status="completed", stopReason="marker", pid=None, pidStartTime=None)
        seat.paths.state.write_bytes(orjson.dumps(end))
        runner.close()
        seat.log(ended_loop())
        await seat.sees(
            "loop completed (marker)", "3/50 iterations, 9 turns, 21 tool calls, 17.7k tokens, $1.25", "q leaves"
        )
        with forged.runner_of(seat.paths):
            seat.paths.state.write_bytes(orjson.dumps(forged.state(seat.paths, alive=True)))
            seat.log(began_loop(resumed=True), *iteration(9))
            await seat.sees("loop api resumed", "iteration 9 ok", never="q leaves")

    runner = ExitStack()
    sit(tmp_path, iteration(1), script, runner=runner)


def test_a_crashed_loop_says_how_to_go_on(tmp_path: Path) -> None:
    async def script(seat: Seat) -> None:
        await seat.sees("loop crashed", "ralph-rpc resume api")
        await seat.types("/stop")
        await seat.sees("loop 'api' is not running (crashed)")
        assert seat.inbox() == []
        await seat.types("for later")
        assert (await seat.command())["message"] == "for later"
        await seat.sees("kept for the first prompt")

    app = sit(tmp_path, iteration(1), script, alive=False)
    assert app.goodbye.startswith("api: crashed, 3/50 iterations, $1.25. Continue with: ralph-rpc resume api")


def test_a_loop_that_was_started_anew_is_followed_in_its_new_folder(tmp_path: Path) -> None:
    async def script(seat: Seat) -> None:
        await seat.sees("iteration 2 ok")
        old = seat.paths.dir.rename(seat.paths.dir.with_name("old"))
        forged.loop(tmp_path / "project", alive=True)
        forged.write_log(seat.paths, [began_loop(), *iteration(1, "a new life")])
        await seat.sees("a new life")
        seat.log(*iteration(2, "and it goes on"))
        await seat.sees("and it goes on")
        assert old.exists()

    sit(tmp_path, many(2), script)


def queue(*running: Json) -> Json:
    """The queue of a ticket loop in which these tickets are worked on."""
    usual = {"title": "", "doing": "", "status": "running", "attempt": 1, "iteration": 1, "cost": 0.0, "worktree": None}
    return {"total": 9, "closed": 0, "failed": 0, "needsMerge": 0, "running": [usual | one for one in running]}


def test_running_tickets_are_listed_and_one_can_be_seen_alone(tmp_path: Path) -> None:
    def run(ticket: str, text: str) -> list[Json]:
        return [began(1, ticket), *(stamped(event, ticket) for event in [{"type": "agent_start"}, *message(text)])]

    async def script(seat: Seat) -> None:
        await seat.sees("t-one", "verifying #2", "all tickets", "words about one", "words about two")
        await seat.presses("tab", "b", "down", "enter")
        await seat.sees("words about one", never="words about two")
        seat.log(*run("t-two", "more of two"), *run("t-one", "more of one"))
        await seat.sees("more of one", never="more of two")
        await seat.types("only for one")
        assert (await seat.command())["ticket"] == "t-one"
        await seat.presses("tab", "b", "home", "enter")
        await seat.sees("words about two", "more of two")

    running = [
        {"ticket": "t-one", "iteration": 1, "attempt": 1, "status": "running", "since": forged.ago(60)},
        {"ticket": "t-two", "iteration": 2, "attempt": 2, "status": "verifying", "since": forged.ago(5)},
    ]
    events = [*run("t-one", "words about one"), *run("t-two", "words about two")]
    sit(tmp_path, events, script, kind="tickets", tickets=queue(*running))


@pytest.mark.parametrize("size", [(80, 24), (200, 60), (40, 12)])
def test_it_is_drawn_anew_at_any_size(tmp_path: Path, size: tuple[int, int]) -> None:
    async def script(seat: Seat) -> None:
        await seat.sees("iteration 9 ok")
        await seat.pilot.resize_terminal(*size)
        shown = await seat.sees("iteration 9 ok", "api")
        rows = shown.split("\n")
        assert len(rows) == size[1] and max(map(len, rows)) <= size[0]
        assert seat.app.stream.following

    sit(tmp_path, many(9), script)


def test_what_a_model_says_cannot_play_with_the_screen(tmp_path: Path) -> None:
    evil = "\x1b[2J\x9b31m[@click=app.exit]x[/]\u202e"

    async def script(seat: Seat) -> None:
        await seat.sees("loop")
        for row in seat.screen().split("\n"):
            assert row.isprintable(), ascii(row)
        assert seat.app.query_one("#headline", Static)

    running = {"ticket": evil, "title": evil, "doing": evil, "since": evil, "worktree": evil}
    events = [*message(evil), *tool_call(evil, evil, evil), began_loop()]
    sit(tmp_path, events, script, currentTicket=evil, tickets=queue(running), error=evil)


def test_files_of_any_shape_are_borne(tmp_path: Path) -> None:
    async def script(seat: Seat) -> None:
        seat.paths.state.write_bytes(b'{"stats": 7, "iteration": "x", "tickets": [], "elapsedMs": null}')
        with seat.paths.events.open("ab") as file:
            file.write(b'nonsense\n{"type": 7}\n[]\n{"type":"message_end","message":[]}\n')
        seat.log(notice("still here"))
        await seat.sees("still here")
        seat.paths.state.unlink()
        seat.app._looked = 0
        seat.log(notice("and here"))
        await seat.sees("and here")

    sit(tmp_path, [began(1)], script)
