"""What one pi is doing, as far as its events say: its open message and its running tools. Pure.

`ralph_rpc.story.fold` keeps one for each ticket, so that agents who work side by side do not mix.

Text comes exactly once. It streams as deltas; where the log was joined in the middle of a message, its deltas are held
until `message_end` gives the whole, or until the reader is at the end of the log (`release`).
"""

from ralph_rpc.model import pi
from ralph_rpc.story.items import Event, Item, TextDelta, ToolBegan


class Lane:
    """One pi: its open message and its running tools."""

    def __init__(self) -> None:
        self.tools: dict[str, ToolBegan] = {}
        self.composing: str | None = None
        """The tool whose call the assistant is writing; empty where older pi does not name it."""
        self.context: int | None = None
        """Tokens in the agent's context when its last message ended."""
        self.window: int | None = None
        """How many fit."""
        self.ended: set[str] = set()
        self.shown: dict[int, list[str]] = {}
        self.held: list[TextDelta] = []
        self.began = False
        self.cut = False
        self.prompt_due = False

    @property
    def resting(self) -> bool:
        return not (self.tools or self.held or self.began)

    def delta(self, delta: TextDelta) -> list[Item]:
        if not self.began:
            self.held.append(delta)
            return []
        self.shown.setdefault(delta.block, []).append(delta.text)
        return [delta]

    def release(self) -> list[Item]:
        """What is held of a message joined midway."""
        held: list[Item] = []
        for delta in self.held:
            held.append(delta if held else TextDelta("…" + delta.text, delta.thinking, delta.block))
            self.shown.setdefault(delta.block, []).append(delta.text)
        if held:
            self.held = []
            self.began = self.cut = True
        return held

    def unseen(self, message: Event) -> list[TextDelta]:
        """The text of an ended message that its deltas did not give."""
        oldest = min(self.shown, default=0) if self.cut else 0
        unseen: list[TextDelta] = []
        for index, (whole, thinking) in enumerate(pi.blocks(message)):
            shown = "".join(self.shown.get(index, ()))
            if index < oldest or (self.cut and index == oldest):
                continue
            if len(whole) > len(shown) and whole.startswith(shown):
                unseen.append(TextDelta(whole[len(shown) :], thinking, index))
        return unseen

    def forget_message(self) -> None:
        self.composing = None
        self.shown = {}
        self.held = []
        self.began = self.cut = False

    def interrupt(self) -> list[Item]:
        """All that was open is over: pi or its run ended."""
        items = self.release()
        self.forget_message()
        self.tools = {}
        return items
