"""A loop on real pi whose provider and processes fail all the time: is what it says of itself and of money true?

    python -m tests.benchmarks.soak_faults [--iterations 1500] [--seed N]

Bills, limits, server errors, cut streams, empty answers, odd refusals, and kills of runner and pi come in a random order
that the seed repeats. Whatever happens, the loop must do all of its work and end by its limit, never `stalled` or
`completed`; what it counted must be what the provider charged, but for requests that it says nobody priced. Prints
figures and a verdict; the exit code is 1 if something is untrue. It touches nothing but a folder of its own.
"""

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Literal

from ralph_rpc.files import records
from ralph_rpc.model.iteration import Iteration
from ralph_rpc.model.usage import unpriced
from tests.benchmarks.faulty_provider import MARKER, MEANS, Account, Provider
from tests.conftest import GITCONFIG
from tests.real_pi import provision
from tests.real_pi.scripted_model import MODEL_ARGS, ScriptedModel
from tests.rig import ENDED, Rig, alive, new_project, wait_for

TASK = f"""\
Do the next piece of work.

- [ ] this is never done
- [~] nor is this

````
- [x] an example
```
{MARKER}
````
"""
LOOKS = 12
STANDSTILL_S = 180
"""Longer than any wait that is provoked here."""
CENT = 1e-6
"""Of a US dollar: the provider's unit of price."""
RUNNER_KIB, PI_KIB = 200 * 1024, 1024 * 1024
"""Most that they may hold."""


@dataclass
class Soak:
    """What was seen of the loop while it ran."""

    iterations: int
    seed: int
    rig: Rig
    provider: Provider
    resumed: int = 0
    """Times that a killed runner was followed by a new one."""
    paid: int = 0
    """Bills that were paid in a pause."""
    seconds: float = 0.0
    looks: list[str] = field(default_factory=list)
    rss_kib: dict[str, int] = field(default_factory=lambda: {"runner": 0, "pi": 0})
    """The most that each was seen to hold."""
    wrong: list[str] = field(default_factory=list)


def soak(folder: Path, iterations: int, seed: int) -> Soak:
    """Runs the loop to its end and holds its words against what happened; `wrong` says what is untrue."""
    pi = provision.provide(provision.NEWEST)

    def pid_of(who: Literal["runner", "pi"]) -> int | None:
        state = seen.rig.state()
        pid: int | None = state["pid" if who == "runner" else "piPid"]
        return pid if who == "runner" or pid in seen.rig.of_mine() else None

    provider = Provider(seed, iterations, pid_of)
    with ScriptedModel(provider.script) as model:
        agent = model.agent_dir(folder, {"retry": {"baseDelayMs": 20}})
        rig = Rig(new_project(folder / "project"), pi.command[-1], agent, list(MODEL_ARGS))
        rig.env["PATH"] = f"{Path(pi.command[0]).parent}{os.pathsep}{rig.env['PATH']}"
        seen = Soak(iterations, seed, rig, provider)
        began = time.monotonic()
        rig.start("-n", str(iterations), task=TASK)
        try:
            _watch(seen)
        finally:
            rig.run("kill", "x", check=None)
        seen.seconds = time.monotonic() - began
    seen.wrong += _untrue(seen)
    return seen


def _watch(seen: Soak) -> None:
    """Does what a person does: starts a killed runner again, pays a bill."""
    rig, moved, last = seen.rig, time.monotonic(), -1
    while True:
        state = rig.state()
        if not alive(int(rig.paths.pid.read_text())):
            state = rig.state()
            if state["status"] in ENDED:
                return
            wait_for("the end of the killed runner's tree", lambda: not rig.of_mine())
            rig.run("resume", "x")
            seen.resumed += 1
        elif state["status"] == "waiting" and state["waitingFor"] == "billing" and seen.provider.pays_at_once:
            rig.drop(f"pause-{seen.paid}.json")
            _comes_to(rig, "paused")
            seen.paid += 1
        elif state["status"] == "paused":  # by us; a new runner carries out the pause of one that was killed
            rig.drop(f"resume-{seen.paid}.json")
            _comes_to(rig, "running")
        _look(seen)
        if state["updatedAt"] != last:
            moved, last = time.monotonic(), state["updatedAt"]
        assert time.monotonic() - moved < STANDSTILL_S, f"seed {seen.seed}: nothing moves\n{state}\n{rig.log()}"
        time.sleep(0.05)


def _comes_to(rig: Rig, status: str) -> None:
    """Returns when the loop has come to it, or its runner is dead."""
    wait_for(status, lambda: rig.state()["status"] in (status, *ENDED) or not alive(rig.state()["pid"]))


def _look(seen: Soak) -> None:
    """Notes the memory of runner and pi, a dozen times for the table and always for the most."""
    state, held = seen.rig.state(), {}
    for who, key in (("runner", "pid"), ("pi", "piPid")):
        held[who] = _rss_kib(state[key]) if state[key] else 0
        seen.rss_kib[who] = max(seen.rss_kib[who], held[who])
    if state["stats"]["iterations"] * LOOKS >= seen.iterations * len(seen.looks):
        seen.looks.append(
            f"{state['stats']['iterations']:10} {state['stats']['cost']:10.4f} {held['runner']:11} {held['pi']:7}"
        )


def _rss_kib(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith("VmRSS")), 0)


def _untrue(seen: Soak) -> Iterable[str]:
    """What the loop says that is not so."""
    rig, state = seen.rig, seen.rig.state()
    done = records.read_iterations(rig.paths)
    if (state["status"], state["stopReason"]) != ("stopped", "max-iterations"):
        yield f"it ended as {state['status']} ({state['stopReason']}): {state['error']}"
    for event in rig.of("ralph_status"):
        if event["to"] in ("completed", "error"):
            yield f"it said {event}"
    if seen.provider.strange:
        yield f"requests of no iteration: {seen.provider.strange[:3]}"
    if rig.of_mine() or rig.registry():
        yield f"left behind: {rig.of_mine()}, {rig.registry()}"
    yield from _untrue_work(seen, state["stats"]["iterations"], done)
    yield from _untrue_money(seen, done)
    for who, most in (("runner", RUNNER_KIB), ("pi", PI_KIB)):
        if seen.rss_kib[who] > most:
            yield f"{who} held {seen.rss_kib[who]} KiB"


def _untrue_work(seen: Soak, counted: int, done: list[Iteration]) -> Iterable[str]:
    """Iterations that are counted and were no work, or the other way round."""
    good = [record for record in done if record["outcome"] == "ok"]
    if not counted == len(good) == seen.iterations:
        yield f"{counted} iterations counted, {len(good)} records of work, {seen.iterations} wanted"
    numbers = [record["iteration"] for record in done]
    if numbers != list(range(1, len(numbers) + 1)):
        yield "numbers of records are missing or twice"
    for record in done:
        account = seen.provider.accounts.get(record["iteration"], Account())
        worked, killed = len(account.works), account.kills > 0
        if record["outcome"] == "ok" and (worked != 1 or account.says not in record["summary"]):
            yield f"iteration {record['iteration']} counts as work, did {account.works} and says {record['summary']!r}"
        if record["outcome"] != "ok" and worked and record["outcome"] != "crashed" and not killed:
            yield f"iteration {record['iteration']} is {record['outcome']} and did {account.works}"
        kind, meant = record.get("errorKind"), account.mishap and MEANS.get(account.mishap)
        if kind not in (None, meant, "crash"):
            yield f"iteration {record['iteration']} failed by {account.mishap} and is called {kind}: {record.get('error')}"


def _untrue_money(seen: Soak, done: list[Iteration]) -> Iterable[str]:
    """Money that was charged and not counted, or the other way round, in each iteration and in all."""
    for record in done:
        account = seen.provider.accounts.get(record["iteration"], Account())
        lacking = untold(account.charges, record["cost"], unpriced(record))
        if lacking is None or (lacking and record["outcome"] != "crashed"):
            yield f"iteration {record['iteration']} cost {record['cost']}, was charged {account.charges}"
            continue
        most = account.cut + account.refused_midway + len(lacking) + (record["outcome"] == "crashed")
        if not account.cut + len(lacking) <= unpriced(record) <= most:
            yield (
                f"iteration {record['iteration']} ({record['outcome']}) has {unpriced(record)} unpriced requests; "
                f"{account.cut} were cut off, {len(lacking)} were answered and not heard"
            )
    state = seen.rig.state()["stats"]
    sums = {
        "state.json": (state["cost"], unpriced(state)),
        "records": (sum(record["cost"] for record in done), sum(map(unpriced, done))),
        "report": _reported(seen.rig),
    }
    if any(abs(cost - state["cost"]) > CENT or lost != unpriced(state) for cost, lost in sums.values()):
        yield f"they differ: {sums}"
    if missing := set(seen.provider.accounts) - {record["iteration"] for record in done}:
        yield f"charged for iterations without a record: {sorted(missing)}"


def _reported(rig: Rig) -> tuple[float, int]:
    summary = json.loads(rig.run("report", "x", "--json").stdout)["summary"]
    return summary["cost"], summary["unpriced"]


def untold(charges: list[float], counted: float, most: int) -> list[float] | None:
    """The charges that `counted` lacks, at most so many of them; None: it is no sum of these charges."""
    for number in range(most + 1):
        for lacking in combinations(charges, number):
            if abs(sum(charges) - sum(lacking) - counted) < CENT:
                return list(lacking)
    return None


def figures(seen: Soak) -> str:
    """What was reached, a few lines."""
    accounts = list(seen.provider.accounts.values())
    state = seen.rig.state()["stats"]
    billed = sum(sum(account.charges) for account in accounts)
    heard = state["cost"]
    return (
        f"seed {seen.seed}: {state['iterations']} iterations of work in {len(accounts)} begun, {seen.seconds:.0f} s\n"
        f"billed ${billed:.6f}, counted ${heard:.6f}; ${abs(billed - heard):.6f} was for answers that no living process "
        f"heard, among {unpriced(state)} unpriced requests\n"
        f"{seen.resumed} resumes after a killed runner, {seen.paid} bills paid in a pause\n"
        + ", ".join(f"{kind} {count}" for kind, count in sorted(seen.provider.happened.items()))
        + f"\nmost memory: runner {seen.rss_kib['runner'] / 1024:.1f} MiB, pi {seen.rss_kib['pi'] / 1024:.1f} MiB"
    )


def table(seen: Soak) -> str:
    """Memory over time."""
    return "\n".join(["iterations     cost $  runner KiB  pi KiB", *seen.looks])


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--iterations", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000), help="repeats an order [a random one]")
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="ralph-soak-") as folder:
        home = Path(folder) / "home"
        home.mkdir()
        (home / ".gitconfig").write_text(GITCONFIG)
        os.environ |= {"HOME": str(home), "RALPH_HOME": str(home / ".ralph"), "XDG_CONFIG_HOME": str(home / ".config")}
        seen = soak(Path(folder), given.iterations, given.seed)
        print(f"{table(seen)}\n\n{figures(seen)}")
    print("ok" if not seen.wrong else "UNTRUE: " + "\n  ".join(seen.wrong))
    return 1 if seen.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
