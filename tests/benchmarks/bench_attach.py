"""Attach on a terminal of 120 x 40: first screen, latency, a fast stream, memory.

The loop is files only; this process writes its log as a runner does and reads what the view sends to the
terminal.
"""

import fcntl
import os
import pty
import random
import signal
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson

from ralph_rpc.files.paths import LoopPaths
from tests.benchmarks.bench_commands import BIG_LOG, home
from tests.benchmarks.measure import Context, cpu_seconds, in_turn, python, quantile, rss_mib, run
from tests.benchmarks.table import Row
from tests.cli import forged

ATTACH = python("-c", "import sys; from ralph_rpc.cli.main import main; sys.exit(main())", "attach", "api")
IMPORTS = python("-c", "import click, textual.app, textual.widgets, rich.markdown, rich.syntax, watchdog.observers")
"""What a terminal view has to load, whatever it does then."""
ROUNDS = 5
FOLLOWED = 120
RATE = 2_000
STREAM_S = 10
EVENTS = 1_000_000
PATIENCE_S = 60.0
WORDS = "the loop reads `log.jsonl` and **never** waits for a viewer that is slow while pi writes more"


class Terminal:
    """The view, running; `seen` waits for a text on its screen."""

    def __init__(self, cwd: Path) -> None:
        self.data = b""
        self.changed = threading.Condition()
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        env = os.environ | {"TERM": "xterm-256color"}
        self.process = subprocess.Popen(
            ATTACH, cwd=cwd, env=env, stdin=slave, stdout=slave, stderr=slave, start_new_session=True
        )
        os.close(slave)
        self.master = master
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        try:
            while part := os.read(self.master, 1 << 16):
                with self.changed:
                    self.data = (self.data + part)[-(1 << 20) :]
                    self.changed.notify_all()
        except OSError:  # EIO: it has ended
            return

    def seen(self, text: bytes) -> float:
        """When the text was sent to the terminal; TimeoutError if it is not."""
        with self.changed:
            if not self.changed.wait_for(lambda: text in self.data, PATIENCE_S):
                raise TimeoutError(f"{text!r} never showed")
        return time.perf_counter()

    def end(self) -> None:
        """Leaves it."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(PATIENCE_S)
        os.close(self.master)


@contextmanager
def attached(cwd: Path, text: bytes) -> Iterator[Terminal]:
    """The view once it shows a text."""
    terminal = Terminal(cwd)
    try:
        terminal.seen(text)
        yield terminal
    finally:
        terminal.end()


def line(event: dict[str, object]) -> bytes:
    """One line of the log, stamped."""
    stamp = {"at": time.time_ns() // 1_000_000, "iteration": 1}
    return orjson.dumps({**event, "ralph": stamp}) + b"\n"


def delta(text: str) -> bytes:
    """A piece of the assistant's text, as long as newer pi's are."""
    usage = {"input": 200, "output": 50, "cacheRead": 0, "cacheWrite": 0, "totalTokens": 250}
    change = {"type": "text_delta", "contentIndex": 0, "delta": text}
    return line({"type": "message_update", "usage": usage, "assistantMessageEvent": change})


def message(text: str, piece: int = 24) -> list[bytes]:
    """A message of many deltas, in a run of its own."""
    pieces = [text[at : at + piece] for at in range(0, len(text), piece)]
    whole = {"role": "assistant", "content": [{"type": "text", "text": text}], "stopReason": "stop"}
    begin = [line({"type": "agent_start"}), line({"type": "message_start", "message": {"role": "assistant"}})]
    return [*begin, *map(delta, pieces), line({"type": "message_end", "message": whole}), line({"type": "agent_end"})]


def notice(text: str) -> bytes:
    """A line that shows as it is."""
    return orjson.dumps({"type": "ralph_notice", "at": 1, "level": "info", "message": text}) + b"\n"


def prose(size: int, some: random.Random) -> str:
    """Markdown as a model writes it: paragraphs, lists, and code now and then."""
    vocabulary = WORDS.split()
    code = "```python\ndef f(x):\n    return [y for y in x if y > 1]\n\nprint(f([1, 2]))\n```\n\n"
    text = ""
    while len(text) < size:
        text += " ".join(some.choices(vocabulary, k=60)) + "\n\n"
        text += "".join(f"- {' '.join(some.choices(vocabulary, k=9))}\n" for _ in range(some.randrange(4))) + "\n"
        text += code if some.random() < 0.2 else ""
    return text


def loop(folder: Path, big: int = 0) -> LoopPaths:
    """A loop whose log is this large (sparse but for its end), and ends with the notice `present`."""
    paths = forged.loop(folder, "api", alive=True)
    some = random.Random(1)
    with paths.events.open("wb") as file:
        if big:
            file.truncate(big)
            file.seek(big)
            file.write(b"\n")
        while file.tell() < big + (3 << 20):
            file.writelines(message(prose(2_000, some)))
        file.write(notice("present"))
    return paths


def first_screen(context: Context) -> Iterator[Row]:
    """From exec to the last line of the log on the screen."""
    with home(context, "first") as folder:
        paths = loop(folder, BIG_LOG)
        taken = []
        with forged.runner_of(paths):
            for _ in range(ROUNDS + 1):
                began = time.perf_counter()
                terminal = Terminal(folder)
                try:
                    taken.append(terminal.seen(b"present") - began)
                finally:
                    terminal.end()
        tail = ["tail", "-n", "200", str(paths.events)]
        sides = in_turn(ROUNDS, tail=lambda: run(tail), imports=lambda: run(IMPORTS))
        reference = 3 * (sides["tail"].wall + sides["imports"].wall)
        ours = quantile(taken[1:], 0.5)
        yield Row(
            13, "attach, first screen of 5 GB", ours * 1e3, reference * 1e3, "ms", "3 x tail -n 200, and imports", 1
        )


def latency(context: Context) -> Iterator[Row]:
    """Events at odd moments, each waited for."""
    with home(context, "latency") as folder:
        paths = loop(folder)
        some = random.Random(2)
        taken = []
        with forged.runner_of(paths), attached(folder, b"present") as terminal, paths.events.open("ab", 0) as log:
            for number in range(FOLLOWED):
                time.sleep(some.uniform(0.01, 0.2))
                began = time.perf_counter()
                log.write(notice(f"token{number:05}"))
                taken.append(terminal.seen(f"token{number:05}".encode()) - began)
        p99 = quantile(taken, 0.99) * 1e3
        yield Row(13, "attach, an event shows (p99)", p99, None, "ms", limit=100, value=p99)


def stream(context: Context) -> Iterator[Row]:
    """Text at 2,000 deltas a second."""
    with home(context, "stream") as folder:
        paths = loop(folder)
        text = prose(RATE * 24, random.Random(3))
        pieces = [text[at : at + 24] for at in range(0, len(text), 24)]
        with forged.runner_of(paths), attached(folder, b"present") as terminal, paths.events.open("ab", 0) as log:
            cpu, began = cpu_seconds(terminal.process.pid), time.perf_counter()
            log.write(line({"type": "message_start", "message": {"role": "assistant"}}))
            for number in range(RATE * STREAM_S):
                log.write(delta(pieces[number % len(pieces)]))
                ahead = began + (number + 1) / RATE - time.perf_counter()
                if ahead > 0.002:
                    time.sleep(ahead)
            wall = time.perf_counter() - began
            spent = cpu_seconds(terminal.process.pid) - cpu
            log.write(delta(" lasttoken "))
            late = terminal.seen(b"lasttoken") - began - wall
        share = spent / wall * 100
        yield Row(13, f"attach, {RATE:,} deltas a second: CPU", share, None, "%", limit=100, value=share)
        yield Row(13, f"attach, {RATE:,} deltas a second: behind", late * 1e3, None, "ms", limit=250, value=late * 1e3)


def memory(context: Context) -> Iterator[Row]:
    """A million events while it watches, none of which it may leap over."""
    with home(context, "memory") as folder:
        paths = loop(folder)
        batch = message(prose(4_000, random.Random(4)), piece=4)
        with forged.runner_of(paths), attached(folder, b"present") as terminal, paths.events.open("ab", 0) as log:
            written = 0
            while written < EVENTS:
                for _ in range(10):
                    log.write(b"".join(batch))
                    written += len(batch)
                log.write(notice(f"token{written:09}"))
                terminal.seen(f"token{written:09}".encode())
            memory = rss_mib(terminal.process.pid)
        yield Row(13, f"attach, memory after {EVENTS:,} events", memory, None, "MiB", limit=150, value=memory)


BENCHMARKS = {"attach-first": first_screen, "attach-latency": latency, "attach-stream": stream, "attach-memory": memory}
