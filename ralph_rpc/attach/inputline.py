"""The input line: Enter steers, Alt+Enter and Ctrl+J follow up, Tab completes a command."""

from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.suggester import Suggester
from textual.widgets import Input

from ralph_rpc.attach.slash import completions

NEWLINE = "⏎"
"""Stands for a line feed in text that was pasted."""


class InputLine(Input):
    """Says `Given` for each line that is entered."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "submit", "Steer", key_display="Enter"),
        Binding("alt+enter,ctrl+j", "followup", "Follow up", key_display="Alt+Enter"),
        Binding("tab", "complete", "Read", key_display="Tab"),
        Binding("ctrl+c", "app.detach", "Detach", key_display="^C"),
        Binding("up,pageup", "app.read(-1)", "Back", show=False),
        Binding("down,pagedown", "app.read(1)", "Forward", show=False),
        Binding("ctrl+end", "app.end", "End", show=False),
    ]

    class Given(Message):
        """A line was entered."""

        def __init__(self, text: str, followup: bool) -> None:
            super().__init__()
            self.text, self.followup = text, followup

    def __init__(self, id: str) -> None:
        hint = "Enter steers, Alt+Enter follows up, / for commands, ? for help"
        super().__init__(id=id, placeholder=hint, suggester=_CommandSuggester(), compact=True)

    async def action_submit(self) -> None:
        self._give(followup=False)

    def action_followup(self) -> None:
        """Sends the line as a follow-up."""
        self._give(followup=True)

    def action_complete(self) -> None:
        """Completes a command; there being none, goes to the stream."""
        found = completions(self.value)
        if found and self.value != found[0]:
            self.value = found[0]
            self.cursor_position = len(self.value)
        else:
            self.screen.focus_next()

    def _give(self, followup: bool) -> None:
        text = self.value.replace(NEWLINE, "\n")
        self.post_message(self.Given(text, followup))

    def _on_paste(self, event: events.Paste) -> None:
        # Textual would keep the first line alone.
        text = event.text.strip("\r\n").replace("\r\n", "\n").replace("\r", "\n")
        self.insert_text_at_cursor(text.replace("\n", NEWLINE))
        event.stop()
        event.prevent_default()

    def on_key(self, event: events.Key) -> None:
        if event.character == "?" and not self.value:
            event.stop()
            event.prevent_default()
            self.app.call_later(self.app.run_action, "help")


class _CommandSuggester(Suggester):
    def __init__(self) -> None:
        super().__init__(use_cache=False, case_sensitive=True)

    async def get_suggestion(self, value: str) -> str | None:
        found = completions(value)
        return found[0] if found else None
