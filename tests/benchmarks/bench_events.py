"""What it takes to log what pi writes: at full speed, at pi's own pace, in one endless line, and is all of it there?

Read `docs/performance.md` for the goals. Streams come from `streams.py`, who reads them stands in `replaying.py`.
"""

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from ralph_rpc.demo.model import Reply
from tests.benchmarks import replaying, streams
from tests.benchmarks.checking import Found, compare
from tests.benchmarks.measure import Context, Cost, cpu_seconds, in_turn
from tests.benchmarks.replaying import Client, Missing, replay, said, started
from tests.benchmarks.streams import Stream
from tests.benchmarks.table import Row
from tests.real_pi import provision
from tests.real_pi.bare_client import BareClient
from tests.real_pi.scripted_model import MODEL_ARGS, ScriptedModel, pi_env

TIMES_CAT, TIMES_CAT_OLD = 4, 6
"""0.73.1 repeats the message in every update, and the log does not: its lines are not only moved but cut."""
OF_ASYNCIO, OF_RPC_CLIENT = 0.33, 0.25
"""Three and four times as fast."""
SLOW_ROUNDS = 4
"""Of the clients that take seconds; the slowest is replayed once."""
PER_SECOND = 100
PACE_S = 20.0
ROOM = 2 << 30
TRANSCRIPTS = Path(__file__).parents[1] / "data/transcripts"


def event_path(context: Context) -> Iterator[Row]:
    """Goal 1: full speed, as wall time against what only moves the bytes, and against what others do."""
    for stream in streams.recorded(context.cache):
        with _memory(context) as scratch:
            yield from _against_cat(context, stream, scratch)
            yield from _against_clients(context, stream, scratch)


def _against_cat(context: Context, stream: Stream, scratch: Path) -> Iterator[Row]:
    cat, ours = replaying.cat(), replaying.ours()
    play = _player(stream, scratch)
    costs = in_turn(context.rounds + 2, cat=play(cat), ours=play(ours))
    limit = TIMES_CAT_OLD if _version(stream) == "0.73.1" else TIMES_CAT
    what = f"{stream.name}, {stream.size / 1e6:.0f} MB"
    yield _row(1, what, costs, "cat", cat.name, limit)
    yield Row(1, f"{stream.name}: CPU", costs["ours"].cpu, costs["cat"].cpu, "s", cat.name)


def _against_clients(context: Context, stream: Stream, scratch: Path) -> Iterator[Row]:
    play = _player(stream, scratch)
    ours = play(replaying.ours())
    others: list[tuple[str, Callable[[], Client], float | None, int]] = [
        ("asyncio readline + json", replaying.naive, OF_ASYNCIO, SLOW_ROUNDS),
        ("pi's RpcClient", lambda: replaying.rpc_client(_version(stream)), OF_RPC_CLIENT, SLOW_ROUNDS),
        ("pi-agent-python-sdk", lambda: replaying.sdk(context.cache), None, 0),
    ]
    for name, make, limit, rounds in others:
        try:
            other = play(make())
            costs = in_turn(rounds, ours=ours, other=other) if rounds else {"ours": ours(), "other": other()}
        except Missing as error:
            yield Row(1, stream.name, against=name, limit=limit, missing=str(error))
        else:
            yield _row(1, stream.name, costs, "other", name, limit)


def long_line(context: Context) -> Iterator[Row]:
    """Goal 3: a line that must not be held in memory."""
    stream, small = streams.long_line(context.cache), streams.small(context.cache)
    cat, ours = replaying.cat(), replaying.ours()
    peaks: list[float] = []
    with _memory(context) as scratch:
        memory = said(replay(small, ours, scratch))["rss"]

        def our_play() -> Cost:
            replayed = replay(stream, ours, scratch)
            peaks.append(said(replayed)["rss"])
            replayed.log.unlink()
            return replayed.cost

        costs = in_turn(context.rounds, cat=_player(stream, scratch)(cat), ours=our_play)
    yield _row(3, stream.name, costs, "cat", cat.name, 1.5)
    yield Row(3, f"{stream.name}: peak memory", max(peaks), memory, "MiB", "a small stream", 1.3)


def completeness(context: Context) -> Iterator[Row]:
    """Goal 4: line by line."""
    cut = context.scratch / "cut.jsonl"
    one = streams.small(context.cache).path.read_bytes()
    cut.write_bytes(one[: one.rindex(b"\n", 0, len(one) // 2) + 40])
    everything = context.scratch / "transcripts.jsonl"
    everything.write_bytes(b"".join(path.read_bytes() for path in sorted(TRANSCRIPTS.glob("*/*.jsonl"))))
    runs = everything.read_bytes().count(b'\n{"type":"agent_end"')
    ends = expected = 0
    for stream in (
        *streams.recorded(context.cache),
        streams.long_line(context.cache),
        Stream("recordings of three generations", everything, runs),
        Stream("breaks off inside a line", cut, 0),
    ):
        found = compare(stream.path, replay(stream, replaying.ours(), context.scratch).log)
        ends += found.agent_ends
        expected += stream.runs
        yield _complete(stream, found)
    yield Row(4, "runs that ended", ends, expected, "", "agent_end from pi", 0, value=abs(ends - expected))


def _complete(stream: Stream, found: Found) -> Row:
    logged = found.same + found.shortened
    what = f"{stream.name}: lines wrong or missing"
    return Row(4, what, logged, found.written, "", "lines pi wrote", 0, value=found.wrong)


def pace(context: Context) -> Iterator[Row]:
    """Goal 2: CPU at the speed of a model, ours, cat's and pi's own in the same seconds."""
    shares = _shares(context, streams.paced(context.cache))
    ours, cat, pi = shares["ours"], shares["cat"], shares["pi"]
    what = f"CPU at {PER_SECOND} lines a second"
    yield Row(2, what, ours, cat, "% of a core", "cat > file", 3.5)
    yield Row(2, what, ours, pi, "% of a core", f"pi {provision.NEWEST}", 0.15)


def _shares(context: Context, stream: Stream) -> Mapping[str, float]:
    """Percent of a core for PER_SECOND lines a second."""
    text = "a few words, "[:12] * int(PACE_S * PER_SECOND * 2)
    model = ScriptedModel([Reply(text, pace=1 / PER_SECOND, piece=12)])
    home = context.scratch / "home"
    home.mkdir()
    pi = provision.provide(provision.NEWEST)
    env = {**pi_env(model.agent_dir(home)), "HOME": str(home)}
    with (
        model,
        BareClient(pi.command, cwd=home, env=env, args=MODEL_ARGS) as client,
        started(stream, replaying.cat(), context.scratch, PER_SECOND) as cat,
        started(stream, replaying.ours(), context.scratch, PER_SECOND) as ours,
    ):
        client.ask("prompt", message="go on")
        client.until(lambda event: event["type"] == "message_update")
        pids = {"pi": client._process.pid, "cat": cat.pid, "ours": ours.pid}
        cat.go()
        ours.go()
        began, lines = time.monotonic(), len(client.lines)
        before = {name: cpu_seconds(pid) for name, pid in pids.items()}
        time.sleep(PACE_S)
        spent = {name: cpu_seconds(pid) - before[name] for name, pid in pids.items()}
        took, lines = time.monotonic() - began, len(client.lines) - lines
    # pi is as fast as its timers let it be: its share is per line.
    shares = {name: 100 * seconds / took for name, seconds in spent.items()}
    return shares | {"pi": 100 * spent["pi"] / lines * PER_SECOND}


@contextlib.contextmanager
def _memory(context: Context) -> Iterator[Path]:
    """A folder for logs on a file system in memory, if there is one: a disk that others use would be measured, too."""
    place = Path("/dev/shm")
    if not os.access(place, os.W_OK) or shutil.disk_usage(place).free < ROOM:
        yield context.scratch
        return
    with tempfile.TemporaryDirectory(prefix="ralph-bench-", dir=place) as folder:
        yield Path(folder)


def _player(stream: Stream, scratch: Path) -> Callable[[Client], Callable[[], Cost]]:
    """Of a client, one replay that leaves no log behind."""

    def player(client: Client) -> Callable[[], Cost]:
        def play() -> Cost:
            replayed = replay(stream, client, scratch)
            replayed.log.unlink()
            return replayed.cost

        return play

    return player


def _row(goal: int, what: str, costs: Mapping[str, Cost], other: str, against: str, limit: float | None) -> Row:
    return Row(goal, what, costs["ours"].wall, costs[other].wall, "s", against, limit)


def _version(stream: Stream) -> str:
    return streams.RECORDINGS[stream.name]().version


BENCHMARKS: dict[str, Callable[[Context], Iterable[Row]]] = {
    "event-path": event_path,
    "pace": pace,
    "long-line": long_line,
    "completeness": completeness,
}
