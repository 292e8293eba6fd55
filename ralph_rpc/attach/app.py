"""The terminal view of one loop: it reads the loop's files, drops commands into its inbox, and that is all.

Called by `ralph-rpc attach`. It may be slow, stopped or killed: the loop does not know of it. The terminal
is put back on every way out, signals and bugs included. At most FRAMES times a second it folds what the log
has got and draws what has changed, and leaves a quarter of one core free whatever comes.
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

from ralph_rpc.attach import OFFSET, orders
from ralph_rpc.attach.beside import last_commit, last_written, newest_commit, record_of
from ralph_rpc.attach.headline import Seen, ended_lines, goodbye, headline
from ralph_rpc.attach.prompt import Prompt
from ralph_rpc.attach.screens import Ask, Choice, Help
from ralph_rpc.attach.search import places
from ralph_rpc.attach.stream import Stream
from ralph_rpc.attach.terminal import end_with_terminal
from ralph_rpc.attach.tickets import TicketList
from ralph_rpc.attach.window import SLICE, STEP, Window
from ralph_rpc.clock import now_ms
from ralph_rpc.errors import RalphError
from ralph_rpc.files.atomic import Unreadable, read_json_object, write_atomic
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.items import Event, IterationBegan, IterationEnded, LoopBegan, LoopEnded, StatusChanged
from ralph_rpc.loops import LoopStatus, loop_status
from ralph_rpc.text import inert, line_of, number
from ralph_rpc.watch import GROWTH, Watch

FRAMES = 30
POLL_S = 0.25
"""The log is looked at so often even if nobody says that it has grown."""
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
    TicketList { width: 26; height: 1fr; display: none; border: none; border-right: solid ansi_blue; }
    """
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "order", "Abort…", key_display="Esc"),
        Binding("ctrl+f", "search", "Search", show=False),
        Binding("ctrl+c", "detach", "Detach", show=False),
    ]

    def __init__(self, paths: LoopPaths, lines: int | None = None, from_start: bool = False) -> None:
        # From the start: the filter for NO_COLOR that Textual would choose for another theme makes all black.
        super().__init__(ansi_color=True)
        self.paths = paths
        self.failure: Exception | None = None
        """The bug that ended the view, for whoever called it to tell."""
        self._lines, self._from_start = lines, from_start
        self._window = Window(paths.events)
        self._found = LoopStatus(None, "dead", "starting")
        self._state: Event = {}
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
            yield Prompt(id="input")
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        self.theme = "ansi-dark"
        self._thread_loop = asyncio.get_running_loop()
        self._woken = asyncio.Event()
        if not self.is_headless:
            self._thread_loop.add_signal_handler(signal.SIGTERM, self.exit)
            threading.Thread(target=end_with_terminal, daemon=True).start()
        self.stream = self.query_one(Stream)
        self.prompt = self.query_one(Prompt)
        self.prompt.focus()
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
            self.notify(
                f"{window.missed} bytes of the log were rotated away before they were read", markup=False
            )
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
        with suppress(Unreadable, OSError):
            self._state = read_json_object(self.paths.state) or {}
        self._watch_folder()
        self._show_ended()
        self.query_one(TicketList).tell(self._state, now_ms())
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
        ticket = self._window.only or self._state.get("currentTicket")
        seen = Seen(
            self.paths.name, self._found.shown, self._state, doing,
            ticket if isinstance(ticket, str) else None,
            next((one.context for one in lanes if one.context), None),
            next((one.window for one in lanes if one.window), None),
            self._commit, last_written(self.paths), behind=not self.stream.following,
        )  # fmt: skip
        self.query_one("#headline", Static).update(headline(seen, now_ms(), self.size.width))

    def _show_ended(self) -> None:
        ended = self._found.ended and self._found.runner == "dead"
        panel = self.query_one("#ended", Static)
        if ended:
            lines = ended_lines(
                self.paths.name, self._found.shown, self._state, self._commit, self.size.width
            )
            text = lines[0]
            for line in lines[1:]:
                text = text + "\n" + line
            panel.update(text)
        if ended != self._ended:
            self._ended = ended
            panel.display = ended
            if ended and not self.prompt.value:
                self.stream.focus()

    def _watch_folder(self) -> None:
        """Watches the loop's folder, and the one that took its place when the loop was started anew."""
        try:
            about = self.paths.dir.stat()
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
        """Where we are, for who comes back. Not worth an error."""
        if (force or time.monotonic() - self._noted >= OFFSET_S) and self._window.at_end:
            self._noted = time.monotonic()
            with suppress(OSError):
                write_atomic(self.paths.dir / OFFSET, b"%d\n" % self._window.end, durable=False)

    # what a person says

    def on_prompt_given(self, event: Prompt.Given) -> None:
        try:
            order = orders.parse(event.text, event.followup)
        except RalphError as error:
            self._complain(error)
            return
        self.prompt.value = ""
        if order == "detach":
            self.action_detach()
        elif order == "help":
            self.action_help()
        elif order is not None and not self._send(order):
            self.prompt.value = event.text

    def _send(self, order: orders.Order) -> bool:
        try:
            id = orders.send(self.paths, order, self._window.only)
        except (RalphError, OSError) as error:
            self._complain(error)
            return False
        self._window.blocks.sent(id, order.verb, order.message, self._window.end, self._window.only)
        if self._found.runner == "dead":
            self.notify(f"kept for the first prompt after: ralph-rpc resume {self.paths.name}", markup=False)
        self.action_end()
        self._woken.set()
        return True

    def _complain(self, error: Exception) -> None:
        hint = f". {error.hint}" if isinstance(error, RalphError) and error.hint else ""
        self.notify(inert(f"{error}{hint}", keep_newlines=False), severity="error", markup=False)

    @work
    async def action_order(self) -> None:
        """Escape: what to do with the run."""
        if self._found.runner == "dead":
            self.notify(f"the loop does not run ({self._found.shown})", markup=False)
            return
        paused = self._found.shown == "paused"
        hold = {"r": "resume: go on"} if paused else {"p": "pause before the next iteration"}
        answers = {"a": "abort this run; a fresh iteration follows", **hold, "s": "stop after this iteration"}
        answer = await self.push_screen_wait(
            Choice(f"What shall {line_of(self.paths.name, 30)} do?", answers)
        )
        asked: dict[str, orders.Order] = {
            "a": orders.Order("abort", {"then": "continue"}), "p": orders.Order("pause"),
            "r": orders.Order("resume"), "s": orders.Order("stop", {"when": "iteration"}),
        }  # fmt: skip
        if answer in asked:
            self._send(asked[answer])

    # where to look

    def action_read(self, pages: int) -> None:
        """From the input: the stream is what one wants now."""
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
        record = record_of(self.paths, int(answer)) if answer.isdecimal() and len(answer) < 10 else None
        if record is None:
            self.notify(f"there is no record of an iteration {answer}", severity="warning", markup=False)
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
        """Asks for a text and goes to where it was said last."""
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
        if self.stream.find(self._needle, back):
            return
        window = self._window
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
                return
        self.notify(
            f"not found: {inert(self._needle, keep_newlines=False)}", severity="warning", markup=False
        )

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
