"""The terminal view of one loop: it reads the loop's files, drops commands into its inbox, and that is all.

Called by `ralph-rpc attach`. It may be slow, stopped or killed: the loop does not notice. The terminal
is restored however it ends, signals and bugs included. At most FRAMES times a second it folds what is new in
the log and draws what has changed, and it leaves a quarter of one core free under any load.
"""

import asyncio
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import ClassVar

from textual import work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.widgets import Footer, OptionList, Static

from ralph_rpc.attach import OFFSET, slash
from ralph_rpc.attach.hangup import end_with_terminal
from ralph_rpc.attach.headline import HeadlineFacts, ended_lines, goodbye, headline
from ralph_rpc.attach.inputline import InputLine
from ralph_rpc.attach.lookup import last_written, newest_commit
from ralph_rpc.attach.screens import Ask, Choice, Help
from ralph_rpc.attach.search import places
from ralph_rpc.attach.stream import Stream
from ralph_rpc.attach.ticketlist import TicketList
from ralph_rpc.attach.window import SLICE, STEP, Window
from ralph_rpc.clock import now_ms
from ralph_rpc.errors import RalphError
from ralph_rpc.files.atomic import write_atomic
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.loops.figures import of_state
from ralph_rpc.loops.send import send
from ralph_rpc.loops.status import LoopStatus, loop_status
from ralph_rpc.machine import nofollow
from ralph_rpc.machine.watch import GROWTH, Watch
from ralph_rpc.model.state import State
from ralph_rpc.story.items import IterationBegan, IterationEnded, LoopBegan, LoopEnded, StatusChanged
from ralph_rpc.story.records import iteration_record, last_commit
from ralph_rpc.terminal.inert import inert
from ralph_rpc.terminal.units import number
from ralph_rpc.terminal.width import line_of

FRAMES = 30
POLL_S = 0.25
"""How often the log is looked at without a sign that it has grown."""
LOOK_S = 1.0
"""How often state.json, the runner's lock and the clock are looked at."""
OFFSET_S = 2.0
"""How often the position is noted."""
LAGGING = 8
"""Frames in a row that did not reach the end of the log, after which the view leaps there."""


class Attach(App[None]):
    """`lines`, `from_start`: where in the log to begin; by default a screen before its end."""

    CSS = """
    #headline { height: 1; }
    #ended { height: auto; max-height: 6; display: none; border-top: solid ansi_yellow; }
    #input { height: 1; border: none; }
    #sign { height: 1; width: 2; color: ansi_cyan; }
    #line { height: 1; }
    ToastRack { dock: top; align: right top; margin: 1 0 0 0; }
    TicketList { width: 26; height: 1fr; display: none; border: none; border-right: solid ansi_blue; }
    """
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "order", "Abort, pause, stop", key_display="Esc"),
        Binding("ctrl+f", "search", "Search", show=False),
        Binding("ctrl+c", "detach", "Detach", show=False),
    ]

    def __init__(
        self, paths: LoopPaths, lines: int | None = None, from_start: bool = False, elsewhere: bool = False
    ) -> None:
        # From the start: the filter for NO_COLOR that Textual would choose for another theme makes all black.
        super().__init__(ansi_color=True)
        self.paths = paths
        self.failure: Exception | None = None
        """The bug that ended the view; the caller raises it."""
        self._lines, self._from_start = lines, from_start
        self._elsewhere = elsewhere
        """It is another project's, and the person has not said yet that this one is meant."""
        self._held: list[tuple[slash.Order, str]] = []
        """What they have typed meanwhile."""
        self._window = Window(paths.events)
        self._found = LoopStatus(None, "dead", "starting")
        self._state: State | None = None
        """The last that could be read."""
        self._commit: str | None = None
        self._looked = self._noted = 0.0
        self._lagging = 0
        self._ended = False
        self._needle = ""
        self._hits: Iterator[int | None] | None = None
        self._watch: Watch | None = None
        self._watched: tuple[int, int] | None = None

    @property
    def goodbye(self) -> str:
        """What to leave on the terminal."""
        return goodbye(self.paths.name, self._found.shown, self._state)

    # life

    def compose(self) -> ComposeResult:
        yield Static(id="headline")
        with Horizontal():
            yield TicketList()
            yield Stream(self._window, id="stream")
        yield Static(id="ended")
        with Horizontal(id="line"):
            yield Static("> ", id="sign", markup=False)
            yield InputLine(id="input")
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        self.theme = "ansi-dark"
        self._thread_loop = asyncio.get_running_loop()
        self._woken = asyncio.Event()
        if not self.is_headless:
            self._thread_loop.add_signal_handler(signal.SIGTERM, self.exit)
            threading.Thread(target=end_with_terminal, daemon=True).start()
        self.stream = self.query_one(Stream)
        self.input_line = self.query_one(InputLine)
        self.input_line.focus()
        if self._lines is not None:
            self._window.open_last(self._lines)
        elif self._from_start:
            self._window.open_at(0)
            self.stream.following = False
        else:
            self._window.open_at_end()
        self._look()
        self._commit = newest_commit(self.paths, self._state)
        self._follow()

    def on_unmount(self) -> None:
        if self._watch is not None:
            self._watch.stop()
        self._note_offset(force=True)
        self._window.close()

    def _handle_exception(self, error: Exception) -> None:
        # Otherwise Textual prints pages of traceback; tests get the error from it.
        if self.is_headless:
            super()._handle_exception(error)
        else:
            self.failure = self.failure or error
            self.exit()

    @work(exclusive=True)
    async def _follow(self) -> None:
        while True:
            began = time.perf_counter()
            self._woken.clear()
            self._frame()
            cost = time.perf_counter() - began
            await asyncio.sleep(max(1 / FRAMES - cost, cost / 3))
            if self._window.at_end or not self._wants_more():
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._woken.wait(), POLL_S)

    # frames

    def _frame(self) -> None:
        stream, window = self.stream, self._window
        if stream.wants_older:
            stream.wants_older = False
            if window.backward():
                window.let_go_last()
        if self._wants_more():
            self._forward()
        if stream.following or stream.near_bottom:
            window.let_go_first()
        stream.show()
        self._fill()
        if time.monotonic() - self._looked >= LOOK_S:
            self._look()
        self._note_offset()

    def _wants_more(self) -> bool:
        window = self._window
        return self.stream.following or self.stream.near_bottom or (window.at_end and window.has_room)

    def _forward(self) -> None:
        window = self._window
        window.forward(SLICE if self.stream.following else STEP)
        self._lagging = 0 if window.at_end else self._lagging + 1
        if self._lagging > LAGGING and self.stream.following:
            self._lagging = 0
            window.open_at_end()
            self.stream.use(window)
            return
        for item in window.new_items:
            if isinstance(item, IterationEnded):
                self._commit = last_commit(item.record) or self._commit
            if isinstance(item, (StatusChanged, IterationBegan, IterationEnded, LoopBegan, LoopEnded)):
                self._looked = 0
        if window.missed:
            self.notify(f"{window.missed} bytes of the log were rotated away before they were read", markup=False)
            window.missed = 0

    def _fill(self) -> None:
        """Older blocks where the screen has room for them."""
        tries = 0
        while self.stream.following and self.stream.lines < self.stream.size.height and tries < 4:
            tries += 1
            if not self._window.backward() and self._window.at_start:
                break
            self.stream.show()

    def _look(self) -> None:
        """At everything that is not in the log."""
        self._looked = time.monotonic()
        self._found = loop_status(self.paths)
        if self._found.state is not None:
            self._state = self._found.state
        self._watch_folder()
        self._show_ended()
        self.query_one(TicketList).show_running(self._state, now_ms())
        self._tell()

    def _tell(self) -> None:
        lane = self._window.view.lanes.get(self._window.only)
        lanes = [lane] if lane else list(self._window.view.lanes.values())
        tools = [tool for one in lanes for tool in one.tools.values()]
        composing = next((one.composing for one in lanes if one.composing is not None), None)
        doing = ""
        if tools:
            doing = f"{tools[0].name} {tools[0].args}" + (f" +{len(tools) - 1}" if len(tools) > 1 else "")
        elif composing is not None:
            doing = f"writes a call of {composing or 'a tool'}"
        ticket = self._window.only or (self._state["currentTicket"] if self._state is not None else None)
        facts = HeadlineFacts(
            self.paths.name,
            self._found.shown,
            self._state,
            of_state(self._state, self._found.runner) if self._state is not None else None,
            doing,
            ticket,
            next((one.context for one in lanes if one.context), None),
            next((one.window for one in lanes if one.window), None),
            self._commit,
            last_written(self.paths),
            behind=not self.stream.following,
        )
        self.query_one("#headline", Static).update(headline(facts, now_ms(), self.size.width))

    def _show_ended(self) -> None:
        ended = self._found.ended and self._found.runner == "dead"
        panel = self.query_one("#ended", Static)
        if ended:
            lines = ended_lines(self.paths.name, self._found.shown, self._state, self._commit, self.size.width)
            text = lines[0]
            for line in lines[1:]:
                text = text + "\n" + line
            panel.update(text)
        if ended != self._ended:
            self._ended = ended
            panel.display = ended
            if ended and not self.input_line.value:
                self.stream.focus()

    def _watch_folder(self) -> None:
        """Watches the loop's folder, and the one that replaced it when the loop was started again."""
        try:
            about = nofollow.lstat(self.paths.dir)
        except OSError:
            return
        if self._watched != (about.st_dev, about.st_ino):
            self._watched = (about.st_dev, about.st_ino)
            if self._watch is not None:
                self._watch.stop()
            self._watch = Watch(self.paths.dir, GROWTH, self._wake)
            self._watch.start()

    def _wake(self, _: str) -> None:
        with suppress(RuntimeError):  # the loop is closed: we are on the way out
            self._thread_loop.call_soon_threadsafe(self._woken.set)

    def _note_offset(self, force: bool = False) -> None:
        """Notes where we are, for the next attach. Not worth an error."""
        if (force or time.monotonic() - self._noted >= OFFSET_S) and self._window.at_end:
            self._noted = time.monotonic()
            with suppress(OSError):
                write_atomic(self.paths.dir / OFFSET, b"%d\n" % self._window.end, durable=False)

    # what a person says

    def on_input_line_given(self, event: InputLine.Given) -> None:
        try:
            order = slash.parse(event.text, event.followup)
        except RalphError as error:
            self._complain(error)
            return
        self.input_line.value = ""
        if order == "detach":
            self.action_detach()
        elif order == "help":
            self.action_help()
        elif order is not None and self._elsewhere:
            self._held.append((order, event.text))
            if len(self._held) == 1:
                self._ask_first()
        elif order is not None and not self._send(order):
            self.input_line.value = event.text

    @work
    async def _ask_first(self) -> None:
        """Before the first message to a loop of another project: it may be taken for this one's."""
        where = line_of(str(self.paths.project), 200)
        question = f"{line_of(self.paths.name, 30)} is not a loop of this project, but of {where}. Send it?"
        answer = await self.push_screen_wait(Choice(question, {"y": "yes, and do not ask again"}))
        held, self._held = self._held, []
        self._elsewhere = answer != "y"
        for order, text in held:
            if self._elsewhere or not self._send(order):
                self.input_line.value = text

    def _send(self, order: slash.Order) -> bool:
        try:
            sent = send(self.paths, order.verb, order.to(self._window.only))
        except (RalphError, OSError) as error:
            self._complain(error)
            return False
        self._window.blocks.sent(sent.id, order.verb, order.message, self._window.end, self._window.only)
        if sent.kept:
            self.notify(f"kept for the first prompt after: ralph-rpc resume {self.paths.name}", markup=False)
        self.action_end()
        self._woken.set()
        return True

    def _complain(self, error: Exception) -> None:
        hint = f". {error.hint}" if isinstance(error, RalphError) and error.hint else ""
        self.notify(inert(f"{error}{hint}", keep_newlines=False), severity="error", markup=False)

    @work
    async def action_order(self) -> None:
        """Escape: out of a search; else what to do with the run."""
        if self.stream.needle:
            self.stream.find_nothing()
            return
        if self._found.runner == "dead":
            self.notify(f"the loop is not running ({self._found.shown})", markup=False)
            return
        paused = self._found.shown == "paused"
        hold = {"r": "resume"} if paused else {"p": "pause before the next iteration"}
        answers = {"a": "abort this run; a fresh iteration follows", **hold, "s": "stop after this iteration"}
        where = f" of {line_of(str(self.paths.project), 200)}" if self._elsewhere else ""
        answer = await self.push_screen_wait(Choice(f"What should {line_of(self.paths.name, 30)}{where} do?", answers))
        asked: dict[str, slash.Order] = {
            "a": slash.Order("abort", {"then": "continue"}),
            "p": slash.Order("pause"),
            "r": slash.Order("resume"),
            "s": slash.Order("stop", {"when": "iteration"}),
        }
        if answer in asked:
            self._send(asked[answer])

    # where to look

    def action_read(self, pages: int) -> None:
        """From the input line to the stream."""
        self.stream.focus()
        self.stream.action_pages(pages)

    def action_end(self) -> None:
        """To the end of the log, and follow it."""
        if not self._window.at_end:
            self._window.open_at_end()
            self.stream.use(self._window)
        self.stream.to_end()

    @work
    async def action_iteration(self) -> None:
        """Asks for an iteration and goes there."""
        answer = await self.push_screen_wait(Ask("Iteration"))
        if answer is None:
            return
        record = iteration_record(self.paths, int(answer)) if answer.isdecimal() and len(answer) < 10 else None
        if record is None:
            self.notify(f"there is no record of iteration {answer}", severity="warning", markup=False)
            return
        self._go_to(int(number(record.get("eventsFrom"))))

    def _go_to(self, offset: int) -> None:
        self._window.open_at(offset)
        self.stream.use(self._window)
        self.stream.following = False
        self._window.forward()
        self.stream.show()
        self.stream.scroll_to(y=0, animate=False, force=True)
        self.stream.wants_older = False
        self.stream.focus()
        self._woken.set()

    @work
    async def action_search(self) -> None:
        """Asks for a text and goes to where it occurred last."""
        answer = await self.push_screen_wait(Ask("Search", self._needle))
        if answer:
            self._needle = answer
            self.stream.focus()
            self._search(back=True)

    def action_again(self, back: bool) -> None:
        """The next place, older or newer."""
        if self._needle:
            self._search(back)

    @work(exclusive=True, group="search")
    async def _search(self, back: bool) -> None:
        window = self._window
        if await self._found_towards(back, window):
            return
        # What is on the screen, or on the far side of it, is there too.
        if self.stream.find_here(self._needle) or await self._found_towards(not back, window):
            self.notify(f"nothing {'older' if back else 'newer'}", timeout=2)
            return
        self.notify(f"not found: {inert(self._needle, keep_newlines=False)}", severity="warning", markup=False)

    async def _found_towards(self, back: bool, window: Window) -> bool:
        """Goes to the nearest place in one direction: in the window, else in the log before or behind it."""
        if self.stream.find(self._needle, back):
            return True
        read = 0
        for offset in places(self.paths.events, self._needle, window.start if back else window.end, back):
            if offset is None:
                read += 1
                if read % 16 == 0:
                    self.notify(f"searching, {read * 4} MB so far", timeout=2, markup=False)
                await asyncio.sleep(0)
                continue
            self._go_to(offset)
            if self.stream.find_here(self._needle):
                return True
        return False

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """A ticket to be seen alone, or all of them."""
        only = event.option.id or None
        window = Window(self.paths.events, only)
        window.open_at_end()
        self._window.close()
        self._window = window
        self.stream.use(window)
        self._woken.set()

    def action_tickets(self) -> None:
        """To the list of tickets, where there is one."""
        tickets = self.query_one(TicketList)
        if tickets.display:
            tickets.focus()

    # the rest

    def action_help(self) -> None:
        """All keys."""
        self.push_screen(Help())

    def action_detach(self) -> None:
        """Leaves; nothing changes for the loop."""
        self.exit()

    def on_resize(self) -> None:
        self._looked = 0
        if hasattr(self, "_woken"):
            self._woken.set()
