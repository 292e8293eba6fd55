"""A stream replayed into one of the clients, and what that cost: the wall from the first byte to the client's end.

Writer and client have started and stand ready before the clock does, so what a client costs to import is not in
the figures. A client that did not log every event is a failed measurement, not a fast one.
"""

import contextlib
import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks import measure
from tests.benchmarks.measure import Cost
from tests.benchmarks.streams import Stream
from tests.real_pi import provision

HERE = Path(__file__).parent
REFERENCES = HERE / "references"
SDK = "pi-agent-python-sdk==0.2.6"
PATIENCE = 120.0
BLOCK = 1 << 20


class Missing(Exception):
    """A client that cannot be had or driven here; the text says why."""


@dataclass(frozen=True)
class Client:
    """How to start it. `argv` gets the log, the file it makes when it listens, and the command that stands for pi.

    One that `spawns` starts that command itself, all others find its stdout at their stdin.
    """

    name: str
    argv: Callable[[Path, Path, list[str]], list[str]]
    spawns: bool = False
    says_ready: bool = True
    answers: bool = False
    """The client asks for pi's state before it is ready."""


@dataclass(frozen=True)
class Replay:
    """What one replay cost, where its log is, and what the client printed."""

    cost: Cost
    log: Path
    said: bytes


def cat() -> Client:
    """The least that a pipe and a file take."""
    return Client("cat > file", lambda log, ready, pi: ["sh", "-c", 'exec cat > "$0"', str(log)], says_ready=False)


LIFE = 198
"""The fd that `our_path.py` waits on."""


def ours() -> Client:
    script = str(HERE / "our_path.py")
    return Client("ralph-rpc", lambda log, ready, pi: measure.python(script, str(log), str(ready), str(LIFE)))


def naive() -> Client:
    script = str(REFERENCES / "naive_client.py")
    return Client("asyncio readline + json", lambda log, ready, pi: measure.python(script, str(log), str(ready)))


def rpc_client(version: str) -> Client:
    """pi's own, of the generation that wrote the stream, always on the node of the newest."""
    try:
        script = provision.provide(version).command[-1]
        node = provision.provide(provision.NEWEST).command[0]
    except Exception as error:
        raise Missing(f"pi {version}: {error}") from error
    package = next(p for p in Path(script).parents if (p / "package.json").is_file())
    where = package / "dist/modes/rpc/rpc-client.js"
    if not where.is_file():
        raise Missing(f"pi {version} holds no {where.name}")
    driver = str(REFERENCES / "pi_client.mjs")

    def argv(log: Path, ready: Path, pi: list[str]) -> list[str]:
        # RpcClient starts whatever `node` is on PATH; become.mjs needs one that can replace itself.
        path = f"{Path(node).parent}{os.pathsep}{os.environ['PATH']}"
        return ["env", f"PATH={path}", node, driver, str(where), str(log), str(ready), *pi]

    return Client("pi's RpcClient", argv, spawns=True)


def sdk(cache: Path) -> Client:
    """The published Python SDK, installed on first use."""
    python = _sdk_python(cache)
    script = str(REFERENCES / "sdk_client.py")
    return Client(
        "pi-agent-python-sdk",
        lambda log, ready, pi: [str(python), "-P", script, str(log), str(ready), *pi],
        spawns=True,
        answers=True,
    )


def _sdk_python(cache: Path) -> Path:
    place = cache / SDK
    python = place / "bin/python"
    if not (place / "installed").exists():
        commands = [sys.executable, "-m", "venv", str(place)], [str(python), "-m", "pip", "install", "-q", SDK]
        for command in commands:
            done = subprocess.run(command, check=False, capture_output=True, text=True)
            if done.returncode != 0:
                raise Missing(f"{SDK}: {(done.stderr.strip().splitlines() or ['cannot be installed'])[-1]}")
        (place / "installed").touch()
    return python


def replay(stream: Stream, client: Client, scratch: Path) -> Replay:
    """Plays the stream once. The log stays until the next replay of the same client in the same folder."""
    with started(stream, client, scratch) as running:
        return running.play()


@contextlib.contextmanager
def started(stream: Stream, client: Client, scratch: Path, pace: int = 0) -> Iterator["Running"]:
    """Writer and client, ready and waiting; both are ended."""
    running = Running(stream, client, scratch, pace)
    try:
        running.wait_until_ready()
        yield running
    finally:
        running.end()


class Running:
    """One replay."""

    def __init__(self, stream: Stream, client: Client, scratch: Path, pace: int) -> None:
        self._stream, self._client = stream, client
        folder = scratch / client.name.replace(" ", "-").replace(">", "")
        folder.mkdir(parents=True, exist_ok=True)
        self.log, self._ready, self._go = folder / "events.jsonl", folder / "ready", folder / "go"
        for old in folder.iterdir():
            old.unlink()
        os.mkfifo(self._go)
        command = [*measure.python(str(REFERENCES / "replay.py")), str(self._go), str(stream.path)]
        command += [str(pace)] if pace else []
        argv = client.argv(self.log, self._ready, [*command, "answer"] if client.answers else command)
        self._writer: subprocess.Popen[bytes] | None = None
        self._go_fd = -1
        if client.spawns:
            self._child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        else:
            self._start_both(command, argv)

    def _start_both(self, command: list[str], argv: list[str]) -> None:
        life, death = os.pipe()
        self._writer = subprocess.Popen(command, stdout=subprocess.PIPE, pass_fds=(death,))
        os.dup2(life, LIFE)
        stdin = self._writer.stdout
        assert stdin is not None
        self._child = subprocess.Popen(argv, stdin=stdin, stdout=subprocess.PIPE, pass_fds=(LIFE,))
        stdin.close()
        for fd in (life, death, LIFE):
            os.close(fd)

    @property
    def pid(self) -> int:
        """The client's."""
        return self._child.pid

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if self._child.poll() is not None:
                raise Missing(f"{self._client.name} ended with {self._child.returncode} before the stream began")
            if self._go_fd < 0:
                self._go_fd = self._open_go()
            if self._go_fd >= 0 and (self._ready.exists() or not self._client.says_ready):
                return
            time.sleep(0.01)
        raise Missing(f"{self._client.name} is not ready after {PATIENCE:.0f} s")

    def _open_go(self) -> int:
        """-1 until the writer has it open."""
        try:
            return os.open(self._go, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return -1

    def go(self) -> None:
        """Let the writer write."""
        os.write(self._go_fd, b"x")

    def play(self) -> Replay:
        """From the first byte to the client's end."""
        before = measure.cpu_seconds(self._child.pid)
        began = time.perf_counter()
        self.go()
        _, status, used = os.wait4(self._child.pid, 0)
        wall = time.perf_counter() - began
        self._child.returncode = os.waitstatus_to_exitcode(status)
        if self._child.returncode != 0:
            raise Missing(f"{self._client.name} ended with {self._child.returncode}")
        assert self._child.stdout is not None
        said = self._child.stdout.read()
        logged, written = _lines(self.log), _lines(self._stream.path)
        if logged < written - _replies(self._stream.path):
            raise Missing(f"{self._client.name} logged {logged} of {written} lines")
        return Replay(Cost(wall, used.ru_utime + used.ru_stime - before, used.ru_maxrss / 1024), self.log, said)

    def end(self) -> None:
        """Both are gone after this, however far they came."""
        if self._go_fd >= 0:
            os.close(self._go_fd)
        for process in (self._writer, self._child):
            if process is not None and process.returncode is None:
                process.kill()
                process.wait()
        assert self._child.stdout is not None
        self._child.stdout.close()


def said(replayed: Replay) -> dict[str, Any]:
    """What `our_path.py` printed."""
    told: dict[str, Any] = json.loads(replayed.said)
    return told


def _lines(path: Path) -> int:
    with path.open("rb", buffering=0) as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(BLOCK), b""))


def _replies(path: Path) -> int:
    """Answers to requests in a stream: not every client hands on what it did not ask for."""
    with path.open("rb") as file:
        return sum(line.startswith(b'{"id":') for line in file)
