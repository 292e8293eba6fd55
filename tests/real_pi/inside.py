"""pi in a terminal with the extension in it: what the tests of `ralph_rpc/pi_extension` share.

The foreground pi and the loops' pis talk to the same scripted model, whose script answers by what it is asked; its list of
requests says what each of them saw.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import ralph_rpc
from ralph_rpc.demo.model import Reply, Request, text_of
from tests.attach.terminals import Tmux, tmux
from tests.real_pi.scripted_model import MODEL_ARGS, ScriptedModel, pi_env
from tests.rig import Rig, user_texts, wait_for

EXTENSION = Path(ralph_rpc.__file__).parent / "pi_extension"
FOREGROUND = "Hello from the foreground"
SETTINGS = {"quietStartup": True, "packages": [str(EXTENSION)]}
SIZES = ((80, 24), (100, 70))


def record_program(home: Path) -> None:
    """As `pi-extension install` does, where it has not."""
    home.mkdir(parents=True, exist_ok=True)
    record = home / "pi-extension.json"
    if not record.exists():
        record.write_text(json.dumps({"command": [sys.executable, "-P", "-m", "ralph_rpc"]}))


REFUSED = "Startup is still in progress"
TAKEN_S = 15.0
"""In which even a busy pi takes an Enter."""


class Inside:
    """One pi in one terminal, in the project of a rig."""

    def __init__(self, terminal: Tmux, rig: Rig, command: Sequence[str], model: ScriptedModel) -> None:
        self.terminal, self.rig, self.model = terminal, rig, model
        self.command = list(command)

    def starts(self, *args: str, sees: str = "/200k") -> None:
        """Starts pi at the shell's prompt and waits until it takes keys."""
        self.terminal.call("clear-history")
        self.terminal.types("clear; " + " ".join([*self.command, *args]))
        self.terminal.presses("Enter")
        self.terminal.sees(sees)

    def enters(self, text: str) -> None:
        """Types a line and submits it."""
        self.types(text)
        refused = self.terminal.screen().count(REFUSED)
        self.terminal.presses("Enter")
        gone, pressed = 0, time.monotonic()

        def taken() -> bool:
            """For a while: during its startup pi gives back what was submitted, and the words that say so stay there.

            An Enter too many would answer the question that the first one has brought up.
            """
            nonlocal gone, pressed, refused
            gone = 0 if self.holds(text) else gone + 1
            told = self.terminal.screen().count(REFUSED)
            if not gone and (told > refused or (told and time.monotonic() > pressed + TAKEN_S)):
                refused, pressed = told, time.monotonic()
                self.terminal.presses("Enter")
            return gone > 5

        wait_for(f"{text!r} to be taken from\n{self.terminal.screen()}", taken)

    def editor(self) -> str:
        """What stands in pi's editor: between the last two rules, the upper of which may say what pi is doing."""
        lines = self.terminal.screen().split("\n")
        rules = [number for number, line in enumerate(lines) if line.startswith("──")]
        return "\n".join(lines[rules[-2] : rules[-1]]) if len(rules) > 1 else ""

    def holds(self, text: str) -> bool:
        """Whether it stands in the editor, however broken into lines. (One word of it may stand in a dialog.)"""
        return "".join(text.split())[-60:] in "".join(self.editor().split())

    def types(self, text: str) -> None:
        """Types it and waits until it stands in the editor."""
        self.terminal.types(text)
        wait_for(f"{text!r} to stand in the editor", lambda: self.holds(text))

    def escapes(self) -> None:
        """Presses Escape and waits until it was taken: together with a key that comes at once it would read as Alt and
        that key.
        """
        self.terminal.presses("Escape")
        for _ in range(5):
            self.terminal.types(".")
            with suppress(AssertionError):
                wait_for("a key", lambda: self.holds("."), 5)
                break
        self.terminal.presses("C-c")
        wait_for("an empty editor", lambda: not self.holds("."))

    def is_offered(self, text: str, *offers: str) -> None:
        """Types what completion answers. (What is typed while pi starts is not answered, and not later either.)"""
        self.types(text)

        def shown() -> bool:
            if all(offer in self.terminal.screen() for offer in offers):
                return True
            self.terminal.presses("BSpace")
            self.types(text[-1])
            time.sleep(0.5)
            return False

        wait_for(f"{offers} to be offered", shown)

    def sees(self, *texts: str, never: str = "") -> str:
        return self.terminal.sees(*texts, never=never)

    def until_gone(self, text: str) -> None:
        wait_for(f"{text!r} to be gone from\n{self.terminal.screen()}", lambda: text not in self.terminal.screen())

    def quits(self) -> None:
        """Ends pi by its own command, and waits for the shell."""
        self.enters("/quit")
        wait_for("the shell's prompt", lambda: self.terminal.screen().rstrip().endswith("$"))

    @property
    def pid(self) -> int:
        """pi's own process."""
        shell = int(self.terminal.call("list-panes", "-F", "#{pane_pid}"))
        children = Path(f"/proc/{shell}/task/{shell}/children").read_text().split()
        (pi,) = map(int, children)
        return pi

    @property
    def foreground(self) -> list[Request]:
        """The requests of the foreground pi: those in which a person said something to it."""
        return [one for one in self.model.requests if any(FOREGROUND in text for text in user_texts(one))]


@contextmanager
def inside(
    tmp_path: Path,
    rig: Rig,
    command: Sequence[str],
    model: ScriptedModel,
    more: Mapping[str, str],
    size: tuple[int, int] = (100, 70),
    args: Sequence[str] = tuple(MODEL_ARGS),
) -> Iterator[Inside]:
    """A terminal for a pi in the rig's project, with the extension in its settings."""
    record_program(Path(os.environ["RALPH_HOME"]))
    env = pi_env(Path(rig.env["PI_CODING_AGENT_DIR"])) | {"PYTHONPATH": "", **more}
    try:
        with tmux(tmp_path, rig.project, env, *size) as terminal:
            terminal.call("set-option", "-s", "extended-keys", "on")  # else newer pi warns at some moment
            yield Inside(terminal, rig, [*command, *args], model)
    finally:
        for loop in [file.parent for file in rig.project.glob(".ralph/[a-z]*/state.json")]:
            # The runner of one that is only pretended is this very process.
            if json.loads((loop / "state.json").read_bytes())["pid"] != os.getpid():
                rig.run("kill", loop.name, check=None)


def pretended_line(event: Mapping[str, Any]) -> bytes:
    """An event as it stands in a log."""
    return json.dumps({**event, "ralph": {"at": 1, "iteration": 1}}, separators=(",", ":")).encode() + b"\n"


def delta(text: str) -> bytes:
    """A piece of the agent's answer, as it stands in a log."""
    change = {"type": "text_delta", "contentIndex": 0, "delta": text}
    return pretended_line({"type": "message_update", "assistantMessageEvent": change})


ANSWER_BEGINS = pretended_line({"type": "message_start", "message": {"role": "assistant"}})


class Talker:
    """Writes an endless answer into a log, as a runner would, so many deltas a second."""

    def __init__(self, log: Path, rate: int) -> None:
        self.log, self.rate = log, rate
        self.written = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _write(self) -> None:
        began = time.monotonic()
        with self.log.open("ab", buffering=0) as file:
            file.write(ANSWER_BEGINS)
            while not self._stop.wait(0.01):
                due = int((time.monotonic() - began) * self.rate)
                file.write(b"".join(delta(word(n)) for n in range(self.written, due)))
                self.written = due


def word(number: int) -> str:
    """A numbered word of an answer, twenty to a paragraph."""
    return f"word{number} " + ("\n\n" if number % 20 == 19 else "")


def told(request: Mapping[str, Any]) -> str:
    """All texts of a request, joined."""
    return "\n".join(text_of(message) for message in request["messages"])


def by_task(loop: Sequence[Reply], foreground: Sequence[Reply] = (Reply("I am the foreground."),) * 3) -> Any:
    """A script in which the loop's pi and the foreground pi each get their own turns, whoever asks first."""
    turns = {"loop": iter(loop), "foreground": iter(foreground)}

    def script(request: Request, _number: int) -> Reply:
        who = "foreground" if any(FOREGROUND in text for text in user_texts(request)) else "loop"
        return next(turns[who])

    return script
