"""What pi writes, in quantity: recorded once from real pi, repeated to tens of megabytes, kept in the cache.

The recordings are made with the scripted model on loopback, so that they need no account. Whole runs are repeated,
from pi's answer to `prompt` to its last event, so a stream of N runs holds N `agent_end`. Run as a program it makes
what is missing: reading a hundred megabytes would leave its mark on the memory figures of whoever measures.
"""

import json
import os
import random
import struct
import sys
import tempfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [path for path in (str(ROOT), str(ROOT / "runner")) if path not in sys.path]

from ralph_rpc.demo.model import Reply
from ralph_rpc.demo.model import Stream as HttpStream
from tests.benchmarks import measure
from tests.real_pi import provision
from tests.real_pi.bare_client import BareClient
from tests.real_pi.scripted_model import MODEL_ARGS, Fault, ScriptedModel, pi_env

MAKING = 1
"""Raised when what is made changes, so that a cache of older streams is not used."""
PIECE = 24
"""Characters in one delta of newer pi: the model's default, about five tokens."""
OLD_PIECE = 6
"""0.73.1 repeats the message with each delta: at 4,000 deltas of this its lines are 24 kB on average."""
DELTAS = 4_000
CALLS = 200
SIDE = 1024
LONG = 256 << 20


@dataclass(frozen=True)
class Stream:
    """A file of pi's stdout. `runs` is how many `agent_end` it holds."""

    name: str
    path: Path
    runs: int

    @property
    def size(self) -> int:
        return self.path.stat().st_size


@dataclass(frozen=True)
class Recording:
    """One run of real pi, and how often it is repeated."""

    version: str
    replies: Sequence[Reply]
    runs: int


def _words(characters: int) -> str:
    """Prose with what JSON has to escape in it, the same every time."""
    some = random.Random(1)
    words = ["loop", "the", "reader", 'a "quoted" word', "naïve", "line\n", "und", "C:\\path", "event", "—", "of"]
    text = ""
    while len(text) < characters:
        text += " ".join(some.choices(words, k=200)) + " "
    return text[:characters]


def _calls() -> list[Reply]:
    """Commands, writes and reads as an agent at work makes them, one a turn."""
    kinds: list[Callable[[int], tuple[str, dict[str, Any]]]] = [
        lambda n: ("bash", {"command": f"seq {n} {n + 500}"}),
        lambda n: ("write", {"path": f"part{n}.py", "content": _words(2_000)}),
        lambda n: ("read", {"path": f"part{n - 1}.py"}),
        lambda n: ("bash", {"command": "ls -l; false"}),
    ]
    turns = [Fault(f"Now step {n}. " * 5, [kinds[n % 4](n)], act=_in_pieces) for n in range(CALLS)]
    return [*turns, Reply("All done.")]


def _in_pieces(stream: HttpStream, reply: Fault) -> None:
    """A tool call's arguments as a model streams them, not all at once."""
    stream.begin()
    stream.body(Reply(reply.text))
    for index, (name, arguments) in enumerate(reply.tool_calls):
        call = {"index": index, "id": f"call_{index}", "type": "function"}
        stream.chunk({"tool_calls": [{**call, "function": {"name": name, "arguments": ""}}]})
        text = json.dumps(arguments)
        for at in range(0, len(text), PIECE):
            piece = {"arguments": text[at : at + PIECE]}
            stream.chunk({"tool_calls": [{"index": index, "function": piece}]})
    stream.end(reply)


def _picture() -> bytes:
    """A PNG of noise, a megapixel large: base64 makes 4 MB of it."""
    some = random.Random(1)
    lines = b"".join(b"\0" + some.randbytes(3 * SIDE) for _ in range(SIDE))
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(lines, 0)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )


RECORDINGS: dict[str, Callable[[], Recording]] = {
    "text deltas": lambda: Recording("1.5.2", [Reply(_words(DELTAS * PIECE), piece=PIECE)], 50),
    "200 tool calls": lambda: Recording("1.5.2", _calls(), 15),
    "0.73.1 reply": lambda: Recording("0.73.1", [Reply(_words(DELTAS * OLD_PIECE), piece=OLD_PIECE)], 1),
    "images": lambda: Recording("1.5.2", [Reply("", [("read", {"path": "noise.png"})]), Reply("Noise.")], 4),
}


def recorded(cache: Path) -> list[Stream]:
    """The four kinds of stream; the first call takes a minute, and may have to fetch pi."""
    _make(cache)
    return [_stream(cache, name) for name in RECORDINGS]


def long_line(cache: Path) -> Stream:
    """One line of 256 MiB: the `agent_end` of a run in which images went through."""
    _make(cache)
    return _stream(cache, "one line of 256 MB")


def small(cache: Path) -> Stream:
    """A short run, for the memory that it takes to record anything at all."""
    _make(cache)
    return _stream(cache, "small")


def paced(cache: Path) -> Stream:
    """One run of text deltas, to be replayed slowly."""
    _make(cache)
    return _stream(cache, "one reply")


def record(recording: Recording) -> list[bytes]:
    """What pi wrote for one prompt, from its answer to it to its last event."""
    pi = provision.provide(recording.version)
    turns = list(recording.replies)
    with tempfile.TemporaryDirectory(prefix="ralph-bench-") as temporary:
        home = Path(temporary)
        project = home / "project"
        project.mkdir()
        (project / "noise.png").write_bytes(_picture())
        with ScriptedModel(turns) as model:
            settings = {"images": {"autoResize": False}}
            agent_dir = model.agent_dir(home, settings, context_window=10_000_000)
            env = {**pi_env(agent_dir), "HOME": temporary, "LANG": "C.UTF-8"}
            with BareClient(pi.command, cwd=project, env=env, args=MODEL_ARGS) as client:
                client.ask("get_state")
                began = len(client.lines)
                client.ask("prompt", message="go on")
                client.settled(timeout=300)
    lines = client.lines[began:]
    ends = [n for n, line in enumerate(lines) if line.startswith((b'{"type":"agent_end"', b'{"type":"agent_settled"'))]
    return lines[: ends[-1] + 1]


def _stream(cache: Path, name: str) -> Stream:
    runs = {"small": 1, "one reply": 1, "one line of 256 MB": 1}
    return Stream(name, _place(cache, name), runs.get(name) or RECORDINGS[name]().runs)


def _place(cache: Path, name: str) -> Path:
    return cache / f"stream-{MAKING}-{name.replace(' ', '-')}.jsonl"


def _make(cache: Path) -> None:
    if not all(_place(cache, name).exists() for name in (*RECORDINGS, "small", "one reply", "one line of 256 MB")):
        print("recording real pi, once ...", file=sys.stderr, flush=True)
        measure.run(measure.python(__file__, str(cache)))


def main() -> None:
    cache = Path(sys.argv[1])
    cache.mkdir(parents=True, exist_ok=True)
    once: dict[str, list[bytes]] = {}
    for name, make in RECORDINGS.items():
        recording = make()
        once[name] = record(recording)
        _keep(_place(cache, name), once[name], recording.runs)
    _keep(_place(cache, "one reply"), once["text deltas"], 1)
    _keep(_place(cache, "small"), once["text deltas"][:2_000] + once["text deltas"][-3:], 1)
    _keep(_place(cache, "one line of 256 MB"), [_lengthened(once["images"])], 1)


def _lengthened(lines: list[bytes]) -> bytes:
    """The line with all of a run's messages, its image made larger."""
    line = next(line for line in lines if line.startswith(b'{"type":"agent_end"'))
    middle = line.index(b'"data":"') + len(b'"data":"') + 1024
    piece = line[middle : middle + (1 << 20)]
    return line[:middle] + piece * ((LONG - len(line)) // len(piece) + 1) + line[middle:]


def _keep(path: Path, lines: list[bytes], times: int) -> None:
    """Whole or not at all: a recording that was broken off must not be measured."""
    whole = b"".join(lines)
    half_made = path.with_suffix(f".{os.getpid()}")
    with half_made.open("wb") as file:
        for _ in range(times):
            file.write(whole)
    half_made.replace(path)
    print(f"{path.name}: {len(lines)} lines of {len(whole) // len(lines)} bytes, {times} times", file=sys.stderr)


if __name__ == "__main__":
    main()
