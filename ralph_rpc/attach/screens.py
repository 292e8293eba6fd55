"""What lies over the stream for a moment: help, a question answered by a key, a line to fill in."""

from typing import ClassVar

from rich.table import Table
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from ralph_rpc.attach.slash import COMMANDS

KEYS = (
    ("Enter", "steer: the agent gets it between two turns"),
    ("Alt+Enter, Ctrl+J", "follow up: it gets it when it would end"),
    ("Esc", "out of a search; else abort, pause or stop the loop (asks first)"),
    ("Tab", "from the input to the stream, and back"),
    ("PgUp, PgDn, ↑, ↓", "read; past the top, older parts are loaded"),
    ("Home or g, End or G", "the top; the end, and follow it again"),
    ("/ or Ctrl+F, then n, N", "search the whole log: older, newer"),
    ("i", "go to an iteration"),
    ("e, t", "unfold all outputs of tools, all thinking"),
    ("[ and ], Enter", "choose a block, unfold it (so does a click)"),
    ("y", "copy the selection, the block or the last text"),
    ("b", "the list of running tickets"),
    ("q, Ctrl+C", "detach; the loop keeps running"),
)

DETACH = Binding("ctrl+c", "app.detach", "Detach", show=False, priority=True)
"""As without anything over the stream; an input would take it for copying."""


class Help(ModalScreen[None]):
    """All keys and commands; any key closes it."""

    DEFAULT_CSS = """
    Help { align: center middle; }
    Help > VerticalScroll {
        width: 78; max-width: 100%; height: auto; max-height: 100%; border: round ansi_cyan; padding: 0 1;
    }
    Help Static { height: auto; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,question_mark,enter", "dismiss", "Close"), DETACH]

    def compose(self) -> ComposeResult:
        table = Table.grid(padding=(0, 2))
        table.add_column(no_wrap=True)
        for key, does in (*KEYS, *COMMANDS.items()):
            table.add_row(Text(key, style="bold cyan"), Text(does))
        with VerticalScroll():
            yield Static(table)
            yield Static(Text("Esc closes this.", style="dim"))


class Choice(ModalScreen[str | None]):
    """A question; each answer is a key. Escape answers None."""

    DEFAULT_CSS = """
    Choice { align: center middle; }
    Choice > Vertical { width: 56; max-width: 100%; height: auto; border: round ansi_yellow; padding: 0 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss(None)", "Cancel"), DETACH]

    def __init__(self, question: str, answers: dict[str, str]) -> None:
        super().__init__()
        self._question, self._answers = question, answers

    def compose(self) -> ComposeResult:
        lines = [Text(self._question, style="bold")]
        for key, does in {**self._answers, "Esc": "cancel"}.items():
            lines.append(Text.assemble((f"  {key:<4}", "bold cyan"), does))
        with Vertical():
            for line in lines:
                yield Static(line)

    def on_key(self, event: object) -> None:
        key = getattr(event, "key", "")
        if key in self._answers:
            self.dismiss(key)


class Ask(ModalScreen[str | None]):
    """One line to fill in. Escape answers None."""

    DEFAULT_CSS = """
    Ask { align: center bottom; }
    Ask > Input { width: 100%; border: round ansi_cyan; height: 3; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss(None)", "Cancel"), DETACH]

    def __init__(self, label: str, value: str = "") -> None:
        super().__init__()
        self._label, self._value = label, value

    def compose(self) -> ComposeResult:
        field = Input(self._value, placeholder=self._label)
        field.border_title = self._label
        yield field

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.dismiss(event.value.strip() or None)
