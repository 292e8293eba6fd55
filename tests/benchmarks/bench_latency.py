"""How long a command takes to reach pi, and how long pi waits between two iterations."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ralph_rpc.demo.model import Reply
from tests.benchmarks.bench_commands import home, real_pi
from tests.benchmarks.measure import Context, python, quantile
from tests.benchmarks.table import Row
from tests.real_pi import provision
from tests.real_pi.bare_client import BareClient
from tests.real_pi.scripted_model import MODEL_ARGS, ScriptedModel, pi_env
from tests.rig import Rig, new_project, wait_for

HERE = Path(__file__).parent
COMMANDS = 500
BURST = 1_000
GENERATIONS = (provision.NEWEST, "0.73.1")
TURNS, CHUNKS = 11, 3
FRESH = 5
PEAK = 60_000_000
"""Bytes a second that pi 0.73.1 writes at its fastest; newer ones write a fifteenth of it."""


def timed_pi(folder: Path, behaviour: list[dict[str, Any]], flood: int | None = None) -> Path:
    """A pi that follows the script and notes arrivals in `folder/arrivals`; `flood` is in bytes a second."""
    script, pi = folder / "script.json", folder / "pi"
    script.write_text(json.dumps({"prompts": [behaviour]}))
    pi.write_text(
        f"#!/bin/sh\nTIMED_PI_ARRIVALS={folder / 'arrivals'} FAKE_PI_SCRIPT={script}{'' if flood is None else f' TIMED_PI_FLOOD={flood}'}"
        f' exec {sys.executable} {HERE / "timed_pi.py"} "$@"\n'
    )
    pi.chmod(0o755)
    return pi


@contextmanager
def timed_loop(folder: Path, flood: int | None = None) -> Iterator[Rig]:
    """A loop whose pi works without end."""
    folder.mkdir()
    pi = timed_pi(folder, [{"reply": "hello"}, {"hang": True}], flood)
    rig = Rig(new_project(folder / "project"), str(pi), folder / "agent", [])
    rig.run("start", "x", "--pi", str(pi), "-m", "work")
    try:
        rig.wait_status("running")
        yield rig
    finally:
        rig.run("kill", "x", check=None)


@contextmanager
def raw_watch(folder: Path) -> Iterator[Path]:
    """The folder that the raw reference watches; it notes arrivals in `folder/arrivals`."""
    inbox = folder / "inbox"
    inbox.mkdir(parents=True)
    argv = python(str(HERE / "raw_inotify.py"), str(inbox), str(folder / "arrivals"))
    raw = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert raw.stdout is not None
        raw.stdout.readline()
        yield inbox
    finally:
        raw.communicate()


def drop(inbox: Path, number: int, text: str) -> int:
    """A file that appears whole; returns the instant before it does."""
    temp = inbox / f".tmp-{number}"
    temp.write_text(text)
    at = time.monotonic_ns()
    temp.rename(inbox / f"steer-{number:06}.json")
    return at


def arrived(file: Path, count: int) -> list[tuple[int, str]]:
    """When each of so many messages came, in the order in which they came."""

    def all_there() -> list[tuple[int, str]] | None:
        lines = file.read_text().splitlines() if file.exists() else []
        return (
            [(int(at), text) for at, _, text in (line.partition(" ") for line in lines)]
            if len(lines) >= count
            else None
        )

    return wait_for(f"{count} arrivals", all_there)


def latencies(file: Path, sent: dict[str, int]) -> list[float]:
    """Milliseconds from the file to its arrival."""
    return [(at - sent[text]) / 1e6 for at, text in arrived(file, len(sent))]


def drops(inboxes: Sequence[Path], texts: Callable[[str], str]) -> list[dict[str, int]]:
    """COMMANDS files into each inbox in turn, at no rhythm."""
    sent: list[dict[str, int]] = [{} for _ in inboxes]
    for number in range(COMMANDS):
        for inbox, told in zip(inboxes, sent, strict=True):
            text = f"{number}"
            told[text] = drop(inbox, number, texts(text) if inbox is inboxes[0] else text)
            time.sleep(0.006 + number % 17 / 2000)
    return sent


def body(text: str) -> str:
    return json.dumps({"message": text})


def inbox(context: Context) -> Iterator[Row]:
    """One at a time, while pi is quiet."""
    with home(context, "inbox") as folder, raw_watch(folder / "raw") as raw, timed_loop(folder / "ours") as rig:
        sent, raw_sent = drops([rig.paths.inbox, raw], body)
        ours = latencies(folder / "ours" / "arrivals", sent)
        reference = latencies(folder / "raw" / "arrivals", raw_sent)
    p50, p99 = quantile(ours, 0.5), quantile(ours, 0.99)
    yield Row(5, "inbox file to pi's stdin, p50", p50, quantile(reference, 0.5), "ms", "raw inotify, no receipt", 5)
    yield Row(5, "inbox file to pi's stdin, p99", p99, quantile(reference, 0.99), "ms", "raw inotify", 10, value=p99)


def burst(context: Context) -> Iterator[Row]:
    """All at once."""
    with home(context, "burst") as folder, timed_loop(folder / "ours") as rig:
        began = time.monotonic_ns()
        for number in range(BURST):
            drop(rig.paths.inbox, number, body(str(number)))
        came = arrived(folder / "ours" / "arrivals", BURST)
        seconds = (came[-1][0] - began) / 1e9
        # Nothing may follow either: every command's last receipt is written before the count is taken.
        wait_for("the last receipt", lambda: sum(e["state"] == "delivered" for e in rig.of("ralph_command")) >= BURST)
        texts = [text for _, text in arrived(folder / "ours" / "arrivals", BURST)]
    wrong = sum(a != b for a, b in zip(texts, map(str, range(BURST)), strict=False)) + abs(len(texts) - BURST)
    yield Row(5, f"burst of {BURST:,}: lost, twice or out of order", wrong, limit=0, value=wrong)
    yield Row(5, f"burst of {BURST:,}: until the last arrives", seconds * 1000, unit="ms")


def flood(context: Context) -> Iterator[Row]:
    """One at a time, while pi writes as fast as the fastest ever did, and as fast as it is read."""
    for name, speed, limit in (("flood", PEAK, 25.0), ("torrent", 0, None)):
        with home(context, name) as folder, timed_loop(folder / "ours", speed) as rig:
            began = time.monotonic()
            (sent,) = drops([rig.paths.inbox], body)
            ours = latencies(folder / "ours" / "arrivals", sent)
            seconds = time.monotonic() - began
            rig.run("kill", "x", check=None)
            rate = log_size(rig.paths.events) / seconds / 1e6
        p99 = quantile(ours, 0.99)
        yield Row(5, f"the same at {rate:.0f} MB/s of events, p50", quantile(ours, 0.5), unit="ms")
        yield Row(5, f"the same at {rate:.0f} MB/s of events, p99", p99, unit="ms", limit=limit, value=p99)


def log_size(events: Path) -> int:
    """Bytes ever logged: a file after a rotation begins with the offset of its first byte."""
    with events.open("rb") as file:
        first = json.loads(file.readline())
    return int(first.get("base", 0)) + events.stat().st_size


def turnaround(context: Context) -> Iterator[Row]:
    """From pi's word that it has settled to the next agent_start, on real pi with a model that answers at once."""
    for version in GENERATIONS:
        with (
            home(context, f"turnaround-{version}") as folder,
            real_pi(version) as pi,
            ScriptedModel(lambda _request, _n: Reply("answer")) as model,
        ):
            agent = model.agent_dir(folder)
            project = new_project(folder / "project")
            ours: list[float] = []
            bare: list[float] = []
            for chunk in range(CHUNKS):
                rig = Rig(project, pi.command[-1], agent, list(MODEL_ARGS), f"loop{chunk}")
                rig.start("-n", str(TURNS), "--stall-after", "0")
                rig.wait_end()
                ours += our_turnarounds(rig)
                bare += bare_turnarounds(pi.command, project, pi_env(agent))
            fresh = [fresh_start(pi.command, project, pi_env(agent)) for _ in range(FRESH)]
        p50, bare_p50 = quantile(ours, 0.5), quantile(bare, 0.5)
        more = p50 - bare_p50
        yield Row(
            6, f"turnaround, pi {version}: over a bare client", p50, bare_p50, "ms", "a bare client", 10, value=more
        )
        yield Row(
            6,
            f"a fresh pi {version}, in turnarounds",
            quantile(fresh, 0.5),
            p50,
            "ms",
            "our turnaround",
            40,
            at_least=True,
        )


def our_turnarounds(rig: Rig) -> list[float]:
    """By the stamps of the log, in milliseconds."""
    took: list[float] = []
    settled: int | None = None
    for event in rig.events():
        at = event.get("ralph", {}).get("at")
        if event["type"] in ("agent_end", "agent_settled"):
            settled = at
        elif event["type"] == "agent_start" and settled is not None:
            took.append(at - settled)
    return took


def bare_turnarounds(command: list[str], cwd: Path, env: dict[str, str]) -> list[float]:
    """The same requests in the same order, by a client that does nothing else."""
    took: list[float] = []
    began = 0.0
    with BareClient(command, cwd=cwd, env=env, args=MODEL_ARGS) as client:
        old = client.ask("clear_queue")["success"] is False
        for turn in range(TURNS):
            client.send("prompt", message="work")
            client.until(lambda event: event["type"] == "agent_start")
            if turn:
                took.append((time.perf_counter() - began) * 1000)
            client.until(lambda event: event["type"] == ("agent_end" if old else "agent_settled"))
            began = time.perf_counter()
            if old:
                client.ask("get_state")
            client.ask("get_session_stats")
            client.ask("new_session")
    return took


def fresh_start(command: list[str], cwd: Path, env: dict[str, str]) -> float:
    """Milliseconds from exec to agent_start."""
    began = time.perf_counter()
    with BareClient(command, cwd=cwd, env=env, args=MODEL_ARGS) as client:
        client.ask("get_state")
        client.send("prompt", message="work")
        client.until(lambda event: event["type"] == "agent_start")
        return (time.perf_counter() - began) * 1000


BENCHMARKS = {"inbox": inbox, "burst": burst, "flood": flood, "turnaround": turnaround}
