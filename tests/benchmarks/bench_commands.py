"""What a person types: list, status, stop, steer, start, logs. Wall time of whole programs, from exec to exit.

The loops are files only, as a runner would have left them; this process holds their locks, so that they look alive.
"""

import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import orjson

from ralph_rpc.demo.model import Reply
from ralph_rpc.files import registry
from ralph_rpc.files.paths import registry_dir
from ralph_rpc.pi.find import Pi
from tests.benchmarks.measure import Context, Cost, clean_environment, in_turn, python, quantile, run
from tests.benchmarks.table import Row
from tests.cli import forged
from tests.real_pi import provision
from tests.real_pi.bare_client import BareClient
from tests.real_pi.scripted_model import MODEL_ARGS, ScriptedModel, pi_env
from tests.rig import Rig, new_project

PROGRAM = python("-c", "import sys; from ralph_rpc.cli.main import main; sys.exit(main())")
"""What the installed `ralph-rpc` is, too."""
CLICK = python("-c", "import click")
ALIVE = 100
"""Of the registry's loops; the others are what crashes left, or of another boot."""
BIG_LOG = 5_000_000_000
SMALL_LOG = 5_000_000
FOLLOWED = 120
STARTS = 5


@contextmanager
def home(context: Context, name: str) -> Iterator[Path]:
    """A fresh home folder, which this process and those it starts have; bytecode is kept, as an installation does."""
    folder = context.scratch / name
    env = clean_environment(
        folder,
        PYTHONPATH=f"{forged.ROOT}{os.pathsep}{forged.ROOT / 'runner'}",
        PYTHONPYCACHEPREFIX=context.cache / "bytecode",
        PYTHONDONTWRITEBYTECODE="",
    )
    with patch.dict(os.environ, env, clear=True):
        yield folder


def side(argv: list[str], cwd: Path) -> Callable[[], Cost]:
    """One run of a program whose output nobody reads."""
    return lambda: run(argv, cwd=cwd, stderr=subprocess.DEVNULL)


def everyday(context: Context) -> Iterator[Row]:
    """Ten living loops in a project."""
    commands = {
        "list": ["list"],
        "status": ["status"],
        "status NAME": ["status", "loop0"],
        "stop": ["stop", "loop1"],
        "steer": ["steer", "loop0", "use the other branch"],
    }
    with home(context, "everyday") as folder, ExitStack() as held:
        project = folder / "project"
        for number in range(10):
            paths = forged.loop(project, f"loop{number}", alive=True)
            held.enter_context(forged.runner_of(paths))
            file = registry.entry_path(project, paths.name).stem
            forged.register(file, forged.entry(project, paths.name, alive=True))
        sides = {name: side([*PROGRAM, *args], project) for name, args in commands.items()}
        if tmux := shutil.which("tmux"):
            held.enter_context(tmux_sessions(tmux, folder))
            sides["tmux ls"] = side([tmux, "-L", folder.name, "ls"], project)
        cost = in_turn(2 * context.rounds + 1, click=side(CLICK, project), **sides)
        click = cost.pop("click").wall * 1000
        for name, one in cost.items():
            limit = 2 if name in commands else None
            yield Row(7, f"{name}, 10 loops", one.wall * 1000, click, "ms", "python -c 'import click'", limit)


@contextmanager
def tmux_sessions(tmux: str, folder: Path) -> Iterator[None]:
    """Ten sessions on a server of its own."""
    server = [tmux, "-L", folder.name, "-f", "/dev/null"]
    with patch.dict(os.environ, {"TMUX_TMPDIR": str(folder)}):
        for _ in range(10):
            subprocess.run([*server, "new-session", "-d", "cat"], check=True)
        try:
            yield
        finally:
            subprocess.run([*server, "kill-server"], check=False)


def many(context: Context) -> Iterator[Row]:
    """`list --all` over a registry of a thousand and of ten thousand."""
    for number, limit in ((1_000, 2.5), (10_000, 2.0)):
        with home(context, f"many-{number}") as folder:
            fill_registry(folder, number)
            ours = side([*PROGRAM, "list", "--all"], folder)
            if number == 1_000:
                against, reference = "python -c 'import click'", side(CLICK, folder)
            else:
                against, reference = "cat of the registry", side(["sh", "-c", "cat -- *.json"], registry_dir())
            cost = in_turn(context.rounds, ours=ours, reference=reference)
            what = f"list --all, {number:,} loops"
            yield Row(7, what, cost["ours"].wall * 1000, cost["reference"].wall * 1000, "ms", against, limit)


def fill_registry(folder: Path, number: int) -> None:
    """Loops of many projects, ten each: some live, the others died."""
    registry_dir().mkdir(parents=True)
    alive = forged.entry(folder / "p", alive=True)
    for i in range(number):
        project = folder / "projects" / f"project-{i // 10}"
        names = {"cwd": str(project), "name": f"loop{i}", "ralphDir": str(project / ".ralph" / f"loop{i}")}
        dead = {} if i < ALIVE else {"pid": 100_000 + i}
        slug = str(project).lstrip("/").replace("/", "-")
        (registry_dir() / f"--{slug}--loop{i}.json").write_bytes(orjson.dumps(alive | names | dead))


def start(context: Context) -> Iterator[Row]:
    """How long `start` keeps its caller, and when pi is ready.

    The last of the checks is the model's: only its answer tells that key and model are right.
    """
    with home(context, "start") as folder, real_pi(provision.NEWEST) as pi:
        project = new_project(folder / "project")
        with ScriptedModel(lambda _request, _n: Reply("answer")) as model:
            agent = model.agent_dir(folder)
            whole, checks, bare_python, ready, alone, after = [], [], [], [], [], []
            for n in range(STARTS + 1):
                rig = Rig(project, pi.command[-1], agent, list(MODEL_ARGS), f"loop{n}")
                options = ["start", rig.name, "--pi", rig.pi, "-m", "x", *MODEL_ARGS]
                checks.append(run([*PROGRAM, *options, "--dry-run"], cwd=project, env=rig.env).wall)
                began = time.time()
                whole.append(run([*PROGRAM, *options, "-n", "1"], cwd=project, env=rig.env).wall)
                returned = time.time()
                rig.wait_end()
                answer = next(e for e in rig.of("message_start") if e["message"]["role"] == "assistant")
                after.append(returned - answer["ralph"]["at"] / 1000)
                ready.append(rig.of("response")[0]["ralph"]["at"] / 1000 - began)
                bare_python.append(run(python("-c", "pass")).wall)
                alone.append(boot_alone(pi.command, project, pi_env(agent)))
    kept = [a - b for a, b in zip(whole[1:], checks[1:], strict=True)]
    booted = [a - b for a, b in zip(ready[1:], checks[1:], strict=True)]
    median = statistics.median
    yield Row(
        8,
        "start returns, after the model's answer",
        median(after[1:]) * 1000,
        median(bare_python[1:]) * 1000,
        "ms",
        "python -c pass",
        5,
    )
    yield Row(8, "start returns, after the checks without pi", median(kept) * 1000, unit="ms")
    yield Row(
        8,
        f"start to pi {provision.NEWEST} ready, after the checks",
        median(booted) * 1000,
        median(alone[1:]) * 1000,
        "ms",
        "the same pi, alone",
        1.25,
    )


@contextmanager
def real_pi(version: str) -> Iterator[Pi]:
    """That pi, installed on first use; the node that fits it is first on PATH meanwhile."""
    pi = provision.provide(version)
    node = Path(pi.command[0]).parent
    with patch.dict(os.environ, {"PATH": f"{node}{os.pathsep}{os.environ['PATH']}"}):
        yield pi


def boot_alone(command: list[str], cwd: Path, env: dict[str, str]) -> float:
    """Seconds from exec to pi's first answer."""
    began = time.perf_counter()
    with BareClient(command, cwd=cwd, env=env, args=MODEL_ARGS) as client:
        client.ask("get_state")
        return time.perf_counter() - began


def big_log(context: Context) -> Iterator[Row]:
    """The last events of a log of 5 GB, which is a hole with a real end, as of one that is only that end."""
    with home(context, "log") as folder:
        project = folder / "project"
        end = log_end()
        for name, size in (("big", BIG_LOG), ("small", SMALL_LOG)):
            paths = forged.loop(project, name, status="stopped")
            with paths.events.open("wb") as file:
                file.seek(size - len(end))
                file.write(end)
        big = project / ".ralph" / "big" / "events.jsonl"
        cost = in_turn(
            2 * context.rounds + 1,
            big=side([*PROGRAM, "logs", "big", "-n", "200"], project),
            small=side([*PROGRAM, "logs", "small", "-n", "200"], project),
            tail=side(["tail", "-n", "200", str(big)], project),
            imports=side(python("-c", "import ralph_rpc.cli.main, ralph_rpc.cli.logs"), project),
        )
    ours, allowed = cost["big"].wall * 1000, (3 * cost["tail"].wall + cost["imports"].wall) * 1000
    yield Row(9, "last 200 events of 5 GB", ours, cost["small"].wall * 1000, "ms", "of 5 MB", 1.1)
    yield Row(9, "last 200 events of 5 GB", ours, allowed, "ms", "3 x tail -n 200, and imports", 1)


def log_end() -> bytes:
    """Less than 5 MB of a busy loop's events."""
    lines = []
    for n in range(12_000):
        change: dict[str, Any] = {"type": "text_delta", "contentIndex": 0, "delta": f"word {n} "}
        event = {"type": "message_update", "usage": {"input": 200, "output": n}, "assistantMessageEvent": change}
        lines.append(orjson.dumps(event | {"ralph": {"at": 1_770_000_000_000 + n, "iteration": 4}}))
    return b"\n".join(lines) + b"\n"


def follow(context: Context) -> Iterator[Row]:
    """From an event's append to its appearance behind `logs -f --raw`."""
    with home(context, "follow") as folder, ExitStack() as held:
        paths = forged.loop(folder / "project", alive=True)
        held.enter_context(forged.runner_of(paths))
        paths.events.touch()
        argv = [*PROGRAM, "logs", paths.name, "-f", "--raw"]
        viewer = subprocess.Popen(argv, cwd=paths.project, stdout=subprocess.PIPE)
        log = held.enter_context(paths.events.open("ab", buffering=0))
        took = []
        try:
            assert viewer.stdout is not None
            for n in range(FOLLOWED):
                began = time.perf_counter()
                log.write(b'{"type":"ralph_notice","at":%d,"level":"info","message":"%d"}\n' % (n, n))
                viewer.stdout.readline()
                took.append(time.perf_counter() - began)
                time.sleep(0.01 + n % 13 / 1000)  # at no rhythm that a poll could be in step with
        finally:
            viewer.kill()
            viewer.communicate()
    p99 = quantile(took[1:], 0.99) * 1000
    yield Row(9, "logs -f, an event shows (p99)", p99, unit="ms", limit=10, value=p99)


BENCHMARKS = {"list": everyday, "list-all": many, "start": start, "log": big_log, "follow": follow}
