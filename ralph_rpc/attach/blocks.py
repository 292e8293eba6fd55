"""What attach shows, as blocks: a message, a tool call, a line. `Blocks` folds items into them.

Pure; it keeps no more than what it was given to show. Texts are raw here: `render` makes them inert.
`changed` says that a block must be rendered again.
"""

from dataclasses import dataclass, field

from ralph_rpc.attach.streamed_markdown import StreamedMarkdown
from ralph_rpc.story.items import (
    CommandReceipt,
    Event,
    Item,
    IterationBegan,
    IterationEnded,
    LoopBegan,
    LoopEnded,
    MessageDone,
    PiEnded,
    TextDelta,
    ToolBegan,
    ToolEnded,
    ToolOutput,
    UserText,
)
from ralph_rpc.story.words import Wording, worded

LONGEST = 1 << 16
"""Characters of one text block: longer text continues in another, so that old ones can be dropped."""


@dataclass(eq=False)
class Block:
    """`offset` is where the event that began it starts in the log; `clean`: nothing else was open there."""

    offset: int
    clean: bool
    ticket: str | None
    changed: bool = field(default=True, kw_only=True)
    unfolded: bool | None = field(default=None, kw_only=True)
    """None: as folded as all of its kind are."""
    height: int = field(default=0, kw_only=True)
    """Lines that it took when it was last rendered."""

    @property
    def size(self) -> int:
        """About how much memory its text takes."""
        return 200

    @property
    def plain(self) -> str:
        """Its text, for the clipboard."""
        return ""


@dataclass(eq=False)
class TextBlock(Block):
    """What the assistant writes or thinks. `joined`: its beginning is in the block before, or lost."""

    thinking: bool
    index: int
    joined: bool = False
    markdown: StreamedMarkdown = field(default_factory=StreamedMarkdown)
    parts: list[str] = field(default_factory=list)
    length: int = 0
    ended: bool = False

    def add(self, text: str) -> None:
        self.parts.append(text)
        self.length += len(text)
        self.changed = True
        if not self.thinking:
            self.markdown.add(text)

    def end(self) -> None:
        self.ended = self.changed = True
        self.parts = ["".join(self.parts)]
        self.markdown.end()

    @property
    def size(self) -> int:
        return 200 + 2 * self.length

    @property
    def plain(self) -> str:
        return "".join(self.parts).strip()


@dataclass(eq=False)
class ToolBlock(Block):
    """A tool call. `ok` None: it runs, or (`lost`) its end will never come."""

    id: str
    name: str
    args: str
    at: int | None
    details: Event
    output: str = ""
    outcome: str = ""
    result: Event = field(default_factory=dict)
    ok: bool | None = None
    lost: bool = False
    duration_ms: int | None = None

    @property
    def size(self) -> int:
        return 200 + len(self.output) + sum(len(str(value)) for value in self.details.values())

    @property
    def plain(self) -> str:
        return f"{self.args}\n{self.output}".strip()


@dataclass(eq=False)
class SaidBlock(Block):
    """A message to the agent: its prompt, or one from a person (`operator`)."""

    text: str
    operator: bool

    @property
    def size(self) -> int:
        return 200 + len(self.text)

    @property
    def plain(self) -> str:
        return self.text.strip()


@dataclass(eq=False)
class CommandBlock(Block):
    """A command and its receipt so far: `steps` in order, `sent` first where this viewer sent it."""

    id: str
    command: str
    message: str | None
    steps: list[str]
    reason: str | None = None
    redelivered: bool = False

    @property
    def plain(self) -> str:
        return self.message or self.command


@dataclass(eq=False)
class LineBlock(Block):
    """Anything else: one line, with some below it."""

    words: Wording
    iteration: int | None = None
    """A border: the iteration that begins here."""

    @property
    def plain(self) -> str:
        return self.words.text


class Blocks:
    """All blocks of a part of the log, in order, and which of them are still open."""

    def __init__(self) -> None:
        self.all: list[Block] = []
        self._text: dict[str | None, TextBlock] = {}
        self._tools: dict[tuple[str | None, str], ToolBlock] = {}
        self._commands: dict[str, CommandBlock] = {}

    def add(self, item: Item, offset: int, clean: bool, ticket: str | None) -> None:
        """The next item of the log."""
        if isinstance(item, TextDelta):
            self._delta(item, offset, clean, ticket)
        elif isinstance(item, ToolBegan):
            self._end_text(ticket)
            block = ToolBlock(offset, clean, ticket, item.id, item.name, item.args, item.at, item.details)
            self._tools[ticket, item.id] = block
            self.all.append(block)
        elif isinstance(item, ToolOutput):
            if tool := self._tools.get((ticket, item.id)):
                tool.output, tool.changed = item.text, True
        elif isinstance(item, ToolEnded):
            self._tool_ended(item, offset, clean, ticket)
        elif isinstance(item, UserText):
            self._end_text(ticket)
            self.all.append(SaidBlock(offset, clean, ticket, item.text, item.operator))
        elif isinstance(item, CommandReceipt):
            self._command(item, offset, clean, ticket)
        else:
            self._line(item, offset, clean, ticket)

    def sent(self, id: str, command: str, message: str | None, offset: int, ticket: str | None) -> None:
        """A command of this viewer's, shown before the runner has seen it."""
        if id not in self._commands:
            self._commands[id] = CommandBlock(offset, False, ticket, id, command, message, ["sent"])
            self.all.append(self._commands[id])

    def open_blocks(self) -> list[Block]:
        """Those whose end has not come."""
        return [*self._text.values(), *self._tools.values()]

    def drop_first(self, number: int) -> None:
        """Forgets the oldest blocks."""
        gone = set(map(id, self.all[:number]))
        del self.all[:number]
        self._tools = {key: block for key, block in self._tools.items() if id(block) not in gone}
        self._commands = {key: block for key, block in self._commands.items() if id(block) not in gone}
        for ticket, text in list(self._text.items()):
            if id(text) in gone:
                del self._text[ticket]

    def _delta(self, item: TextDelta, offset: int, clean: bool, ticket: str | None) -> None:
        block = self._text.get(ticket)
        same = block is not None and (block.index, block.thinking) == (item.block, item.thinking)
        if block is None or not same or block.length > LONGEST:
            self._end_text(ticket)
            joined = (same and not clean) or item.text.startswith("…")
            block = TextBlock(offset, clean, ticket, item.thinking, item.block, joined)
            self._text[ticket] = block
            self.all.append(block)
        block.add(item.text)

    def _end_text(self, ticket: str | None) -> None:
        if block := self._text.pop(ticket, None):
            block.end()

    def _interrupted(self, ticket: str | None, everything: bool) -> None:
        """A run of pi is over: nothing of it is still open."""
        for lane in list(self._text):
            if everything or lane == ticket:
                self._end_text(lane)
        for key in [key for key in self._tools if everything or key[0] == ticket]:
            tool = self._tools.pop(key)
            tool.lost = tool.changed = True

    def _tool_ended(self, item: ToolEnded, offset: int, clean: bool, ticket: str | None) -> None:
        block = self._tools.pop((ticket, item.id), None)
        if block is None:
            block = ToolBlock(offset, clean, ticket, item.id, item.name, item.args, None, {})
            self.all.append(block)
        block.ok, block.duration_ms, block.outcome = item.ok, item.duration_ms, item.outcome
        block.output, block.result, block.changed = item.output, item.details, True

    def _command(self, item: CommandReceipt, offset: int, clean: bool, ticket: str | None) -> None:
        block = self._commands.get(item.id)
        if block is None:
            block = CommandBlock(offset, clean, ticket, item.id, item.command, item.message, [])
            self._commands[item.id] = block
            self.all.append(block)
        block.steps.append(item.state)
        block.message = block.message or item.message
        block.reason = item.reason or block.reason
        block.redelivered = block.redelivered or item.redelivered
        block.changed = True

    def _line(self, item: Item, offset: int, clean: bool, ticket: str | None) -> None:
        if isinstance(item, MessageDone):
            self._end_text(ticket)
        elif isinstance(item, (IterationBegan, IterationEnded, PiEnded, LoopBegan, LoopEnded)):
            self._interrupted(ticket, everything=isinstance(item, (LoopBegan, LoopEnded)))
        words = worded(item)
        if words:
            number = getattr(item, "number", None)
            self.all.append(LineBlock(offset, clean, ticket, words, number))
