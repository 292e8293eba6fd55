"""The widget that shows a window of the log: lines that are made once, and a place that holds still.

Follows the end until the user scrolls up, and again once back at the bottom. Everything that
changes above or below (older blocks, folding, another width) leaves the line at the top of the screen where
it is.
"""

from bisect import bisect_right
from itertools import accumulate
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.selection import Selection
from textual.strip import Strip

from ralph_rpc.attach.blocks import Block, LineBlock, SaidBlock, TextBlock, ToolBlock
from ralph_rpc.attach.render import Renderer
from ralph_rpc.attach.window import Window
from ralph_rpc.clock import now_ms
from ralph_rpc.terminal.inert import inert

_FOUND = Style(reverse=True)
_CHOSEN = Style(bold=True, reverse=True)


class Stream(ScrollView, can_focus=True):
    """Give it a window with `use`, then `show` after each change of it."""

    ALLOW_SELECT = True
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("question_mark", "app.help", "Help", key_display="?"),
        Binding("tab", "screen.focus_next", "Write", key_display="Tab"),
        Binding("slash", "app.search", "Search", key_display="/"),
        Binding("n", "app.again(True)", "Older match", show=False),
        Binding("N", "app.again(False)", "Newer match", show=False),
        Binding("i", "app.iteration", "Iteration", show=False),
        Binding("left_square_bracket", "choose(-1)", "Choose", key_display="[ ]"),
        Binding("right_square_bracket", "choose(1)", "Choose next", show=False),
        Binding("enter", "unfold", "Unfold", key_display="Enter"),
        Binding("y", "copy", "Copy", show=False),
        Binding("q", "app.detach", "Detach"),
        Binding("up,k", "lines(-1)", "Up", show=False),
        Binding("down,j", "lines(1)", "Down", show=False),
        Binding("pageup", "pages(-1)", "Back", show=False),
        Binding("pagedown,space", "pages(1)", "Forward", show=False),
        Binding("home,g", "first", "Top", show=False),
        Binding("end,G", "app.end", "End", show=False),
        Binding("e", "tools", "Outputs", show=False),
        Binding("t", "thinking", "Thinking", show=False),
        Binding("b", "app.tickets", "Tickets", show=False),
    ]
    DEFAULT_CSS = """
    Stream { overflow-x: hidden; overflow-y: scroll; scrollbar-size: 1 1; height: 1fr; }
    """

    following: reactive[bool] = reactive(True)

    def __init__(self, window: Window, id: str | None = None) -> None:
        super().__init__(id=id)
        self.window = window
        self.wants_older = False
        self.needle = ""
        self.chosen: Block | None = None
        self._renderer = Renderer(80)
        self._drawn: dict[Block, list[Strip]] = {}
        self._shown: list[Block] = []
        self._tops: list[int] = [0]
        self._placing = False
        self._clock_s = 0

    # what is shown

    def use(self, window: Window) -> None:
        """Shows another part of the log, at its end."""
        self.window = window
        old = self._renderer
        self._renderer = Renderer(old.columns, old.unfold_tools, old.unfold_thinking, window.only is None)
        self._drawn.clear()
        self._shown, self._tops = [], [0]
        self.chosen = None
        self.following = True

    def show(self) -> None:
        """Renders what has changed and puts everything in its place."""
        columns = self.scrollable_content_region.width
        if columns < 4:
            return
        anchor = self._anchor()
        if columns != self._renderer.columns:
            old = self._renderer
            self._renderer = Renderer(columns, old.unfold_tools, old.unfold_thinking, self.window.only is None)
            self._drawn.clear()
        changed = self._draw()
        if changed or self._shown != self.window.blocks.all:
            self._shown = list(self.window.blocks.all)
            self._tops = [0, *accumulate(block.height for block in self._shown)]
            self._place(columns, anchor)
            self.refresh()

    def _draw(self) -> bool:
        """Renders every block that has changed; True if there was one."""
        now = now_ms()
        tick = now // 1000 != self._clock_s
        self._clock_s = now // 1000
        changed = False
        for block in self.window.blocks.all:
            running = tick and isinstance(block, ToolBlock) and block.ok is None and not block.lost
            if block.changed or running or block not in self._drawn:
                self._drawn[block] = self._renderer.strips(block, now)
                block.height = len(self._drawn[block])
                block.changed = False
                changed = True
        if len(self._drawn) > len(self.window.blocks.all) + 100:
            kept = set(self.window.blocks.all)
            for block in [block for block in self._drawn if block not in kept]:
                self._renderer.forget(block)
                del self._drawn[block]
            changed = True
        return changed

    def _anchor(self) -> tuple[Block, int] | None:
        """The block at the top of the screen, and how many of its lines are above it."""
        if not self._shown:
            return None
        index, line = self._at(self.scroll_offset.y)
        return (self._shown[index], line) if index < len(self._shown) else None

    def _place(self, columns: int, anchor: tuple[Block, int] | None) -> None:
        self._placing = True
        try:
            self.virtual_size = Size(columns, self._tops[-1])
            if self.following:
                self.scroll_to(y=self.max_scroll_y, animate=False, force=True)
            elif anchor is not None and anchor[0] in self._drawn:
                index = next((i for i, block in enumerate(self._shown) if block is anchor[0]), 0)
                line = min(anchor[1], max(len(self._drawn[anchor[0]]) - 1, 0))
                self.scroll_to(y=self._tops[index] + line, animate=False, force=True)
        finally:
            self._placing = False

    def _at(self, y: int) -> tuple[int, int]:
        """The block that line `y` belongs to, and which of its lines that is."""
        index = bisect_right(self._tops, y) - 1
        return index, y - self._tops[index]

    @property
    def lines(self) -> int:
        """How many lines there are."""
        return self._tops[-1]

    @property
    def near_bottom(self) -> bool:
        """The end of what is loaded comes soon."""
        return self.scroll_offset.y + 3 * self.size.height >= self.lines

    def render_line(self, y: int) -> Strip:
        number = self.scroll_offset.y + y
        columns = self.scrollable_content_region.width
        if number >= self._tops[-1]:
            return Strip.blank(columns, self.rich_style)
        index, line = self._at(number)
        block = self._shown[index]
        strip = self._drawn[block][line]
        if block is self.chosen and line == 0:
            strip = strip.apply_style(_CHOSEN)
        if self.needle:
            strip = _highlighted(strip, self.needle)
        strip = strip.crop_extend(0, columns, self.rich_style)
        selection = self.text_selection
        if selection is not None and (span := selection.get_span(number)) is not None:
            strip = _selected(strip, *span, style=self.screen.get_component_rich_style("screen--selection"))
        return strip.apply_style(self.rich_style).apply_offsets(0, number)

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        """The text under the mouse's selection, as it stands on the screen."""
        text = "\n".join(strip.text.rstrip() for block in self._shown for strip in self._drawn[block])
        return selection.extract(text), "\n"

    def selection_updated(self, selection: Selection | None) -> None:
        self.refresh()

    # moving

    def on_resize(self) -> None:
        self._place(self.scrollable_content_region.width, self._anchor())

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        if not self._placing:
            self.following = self.window.at_end and new_value >= self.max_scroll_y
            self.wants_older = new_value < self.size.height and new_value <= old_value

    def action_lines(self, number: int) -> None:
        self._move(number)

    def action_pages(self, number: int) -> None:
        self._move(number * max(self.size.height - 2, 1))

    def action_first(self) -> None:
        self.following = False
        self._move(-self.lines)

    def _move(self, lines: int) -> None:
        y = self.scroll_offset.y
        if lines < 0 and y == 0:
            self.following = False
            self.wants_older = True
        self.scroll_to(y=max(0, min(y + lines, self.max_scroll_y)), animate=False, force=True)

    def to_end(self) -> None:
        """Follows the end again."""
        self.following = True
        self._place(self.scrollable_content_region.width, None)
        self.refresh()

    def to_offset(self, offset: int) -> None:
        """Puts the block that begins at this offset of the log, or after it, on top of the screen."""
        self.following = False
        index = next((i for i, block in enumerate(self._shown) if block.offset >= offset), len(self._shown))
        self.scroll_to(y=self._tops[index], animate=False, force=True)

    def find(self, needle: str, back: bool) -> bool:
        """Goes to the next line that holds the text, upwards or down, from the top of the screen."""
        self.needle = needle
        lines = [strip.text.casefold() for block in self._shown for strip in self._drawn[block]]
        here = self.scroll_offset.y
        start = here + self.size.height if back and self.following else here
        order = range(min(start, len(lines)) - 1, -1, -1) if back else range(here + 1, len(lines))
        found = next((number for number in order if needle.casefold() in lines[number]), None)
        self.refresh()
        if found is None:
            return False
        self.following = False
        self.scroll_to(y=min(found, self.max_scroll_y), animate=False, force=True)
        return True

    def find_nothing(self) -> None:
        """Marks no text any more."""
        self.needle = ""
        self.refresh()

    def find_here(self, needle: str) -> bool:
        """Goes to the first line that holds the text, from the very top of the screen."""
        self.needle = needle
        top, bottom = self.scroll_offset.y, self.lines
        for number in range(top, bottom):
            index, line = self._at(number)
            if needle.casefold() in self._drawn[self._shown[index]][line].text.casefold():
                self.scroll_to(y=min(number, self.max_scroll_y), animate=False, force=True)
                self.refresh()
                return True
        return False

    # folding, choosing, copying

    def action_tools(self) -> None:
        self._renderer.unfold_tools = not self._renderer.unfold_tools
        self._fold_all(ToolBlock)

    def action_thinking(self) -> None:
        self._renderer.unfold_thinking = not self._renderer.unfold_thinking
        self._fold_all(TextBlock)

    def _fold_all(self, kind: type[Block]) -> None:
        for block in self.window.blocks.all:
            if isinstance(block, kind):
                block.unfolded, block.changed = None, True
        self.show()

    def action_choose(self, step: int) -> None:
        blocks = [i for i, block in enumerate(self._shown) if not isinstance(block, LineBlock) and self._drawn[block]]
        if self.chosen in self._shown:
            here = self._shown.index(self.chosen)
        else:
            here = self._at(min(self.scroll_offset.y + self.size.height, self.lines - 1))[0] + (step < 0)
        others = [i for i in blocks if (i > here if step > 0 else i < here)]
        if not others:
            return
        index = others[0] if step > 0 else others[-1]
        self.chosen = self._shown[index]
        top, height = self._tops[index], self.size.height
        if not self.scroll_offset.y <= top < self.scroll_offset.y + height - 1:
            self.following = False
            self.scroll_to(y=max(0, min(top - height // 3, self.max_scroll_y)), animate=False, force=True)
        self.refresh()

    def action_unfold(self) -> None:
        if self.chosen is not None:
            self._toggle(self.chosen)

    def _toggle(self, block: Block) -> None:
        if isinstance(block, ToolBlock):
            usual = self._renderer.unfold_tools
        elif isinstance(block, TextBlock) and block.thinking:
            usual = self._renderer.unfold_thinking
        elif isinstance(block, SaidBlock):
            usual = False
        else:
            return
        block.unfolded = not (usual if block.unfolded is None else block.unfolded)
        block.changed = True
        self.following = self.following and block is self._shown[-1]
        self.show()

    def on_click(self, event: events.Click) -> None:
        number = self.scroll_offset.y + event.y
        if number < self.lines and not self.text_selection:
            index, line = self._at(number)
            if line == 0 or isinstance(self._shown[index], SaidBlock):
                self._toggle(self._shown[index])

    def action_copy(self) -> None:
        selected = self.screen.get_selected_text()
        texts = [block for block in self._shown if isinstance(block, TextBlock) and not block.thinking]
        block = self.chosen or (texts[-1] if texts else None)
        text = selected or (inert(block.plain) if block else "")
        if text:
            self.app.copy_to_clipboard(text)
            what = "the selection" if selected else "the chosen block" if self.chosen else "the last message"
            self.app.notify(f"copied {what}", timeout=2, markup=False)


def _highlighted(strip: Strip, needle: str) -> Strip:
    """The strip with every occurrence of the needle reversed."""
    text, low = strip.text, needle.casefold()
    folded = text.casefold()
    if low not in folded or len(folded) != len(text):
        return strip
    at = folded.find(low)
    while at >= 0:
        strip = _selected(strip, at, at + len(low), _FOUND)
        at = folded.find(low, at + len(low))
    return strip


def _selected(strip: Strip, start: int, end: int, style: Style) -> Strip:
    """The strip with its characters from `start` to `end` (-1: all) in another style."""
    segments = []
    at = 0
    for text, own, _ in strip:
        first = max(start - at, 0)
        last = len(text) if end < 0 else max(min(end - at, len(text)), first)
        cut = ((text[:first], own), (text[first:last], own + style if own else style), (text[last:], own))
        segments += [Segment(part, look) for part, look in cut if part]
        at += len(text)
    return Strip(segments, strip.cell_length)
