"""The merge queue beside the time that the work itself takes, and what a branch costs that lands.

A real loop on the fake pi, whose work and whose verify are `sleep`; ideal is as many rounds as the places need, and one
verification more, of the last round's merge.
"""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ralph_rpc.git.batch import Part, build_batch
from ralph_rpc.git.merge import Landed, land
from tests.benchmarks.bench_commands import home
from tests.benchmarks.measure import Context
from tests.benchmarks.table import Row
from tests.rig import git, new_project
from tests.ticket_rig import HOLD, TicketRig, does, fake_tickets, hold

GOAL = 16
WORK_S, VERIFY_S = 3, 5
CASES = ((12, 6), (48, 12))
TIMES_IDEAL = 1.3
CULPRIT_AMONG = 12
CULPRITS = (1, 7, 12)
MOST_FURTHER = 5
"""ceil(log2 12) + 1: none can do with less for each place, as only runs that were green count in the end."""
BRANCHES = 1_000
A_SECOND = 20
PATIENCE_S = 600


def loops(context: Context) -> Iterator[Row]:
    """From the start of the loop to its end."""
    for tickets, parallel in CASES:
        with home(context, f"queue-{tickets}") as folder:
            rig = backlog(folder, tickets, f"sleep {WORK_S}")
            began = time.monotonic()
            rig.begin("--parallel", str(parallel), "--verify", f"sleep {VERIFY_S}")
            state = rig.wait_end(PATIENCE_S)
            took = time.monotonic() - began
        assert state["stopReason"] == "tickets-done", state["error"]
        rounds = -(-tickets // parallel)
        ideal = rounds * (WORK_S + VERIFY_S) + VERIFY_S
        what = f"{tickets} tickets, {parallel} at once, {WORK_S} s of work, {VERIFY_S} s of verify"
        yield Row(GOAL, what, took, ideal, "s", f"{rounds} rounds and one verify", TIMES_IDEAL)


def culprit(context: Context) -> Iterator[Row]:
    """One of a batch breaks with another, in each of three places: the runs of verify beyond the one that was red."""
    for place in CULPRITS:
        with home(context, f"culprit-{place}") as folder:
            rig = backlog(folder, CULPRIT_AMONG + 2, HOLD, f"t-{place}")
            ids = [f"t-{number}" for number in range(1, CULPRIT_AMONG + 1)]
            first = f'[ "$RALPH_TICKETS" != b ] || {{ {hold("queue", "first")}; }}'
            breaks = (
                f'test -e repaired || ! test -e t-{place}.txt || test $RALPH_TICKET = t-{place} -a -z "$RALPH_TICKETS"'
            )
            rig.begin("--parallel", str(CULPRIT_AMONG + 2), "--verify", f"{first}; {breaks}")
            rig.wait_held("a", "b", *ids)
            rig.let_go("a")
            rig.wait_dispatch("a", "closed")
            rig.let_go("b")
            rig.wait_held("first", at="queue")
            for id in ids:
                rig.let_go(id)
                rig.wait_queued(id)
            rig.let_go("first", at="queue")
            state = rig.wait_end(PATIENCE_S)
            assert state["stopReason"] == "tickets-done", state["error"]
            runs = [(event["tickets"], event["exitCode"]) for event in rig.of("ralph_verify") if "tickets" in event]
        assert len(runs[1][0]) == CULPRIT_AMONG, runs
        repair = ([f"t-{place}"], 0)
        further = sum(run != repair for run in runs[2:])
        what = f"one at fault among {CULPRIT_AMONG}, number {place}: further runs of verify"
        yield Row(GOAL, what, unit="runs", limit=MOST_FURTHER, value=float(further))


def branches(context: Context) -> Iterator[Row]:
    """One-file branches, all from one commit, built and landed as one batch; the last fifty beside the first fifty."""
    with home(context, "branches") as folder:
        project = new_project(folder / "project")
        names = many_branches(project, BRANCHES)
        parts = [Part(name, f"Merge {name}\n") for name in names]
        began = time.monotonic()
        few = build_batch(project, "main", parts[:50])
        first = time.monotonic() - began
        began = time.monotonic()
        built = build_batch(project, "main", parts)
        all_but = time.monotonic()
        landed = land(project, "main", built.target, built.links[-1].commit, names)
        took = time.monotonic() - began
        assert isinstance(landed, Landed) and len(few.links) == 50 and len(built.links) == BRANCHES
        subprocess.run(["git", "fsck", "--strict"], cwd=project, check=True, capture_output=True)
    yield Row(
        GOAL,
        f"{BRANCHES:,} queued branches of a file each, without verify",
        BRANCHES / took,
        unit="/s",
        limit=A_SECOND,
        at_least=True,
        value=BRANCHES / took,
    )
    each = (all_but - began) / BRANCHES
    yield Row(GOAL, "one of them among 1,000", each * 1000, first / 50 * 1000, "ms", "one among 50", 1.5)


def backlog(folder: Path, count: int, work: str, culprit: str | None = None) -> TicketRig:
    """So many tickets, each in a component of its own; the agent of the one at fault repairs it when it is asked again."""
    scripts = {} if culprit is None else {culprit: [does(work), does("touch repaired")]}
    rig = fake_tickets(folder, {"usual": [does(work)], **scripts}, tracked=False)
    names = ("a", "b") if culprit is not None else ()
    for id in (*names, *(f"t-{number}" for number in range(1, count + 1 - len(names)))):
        rig.add(id, id)
    rig.commit()
    return rig


def many_branches(project: Path, count: int) -> list[str]:
    """By `git fast-import`; the ids and files are all different."""
    names = [f"ralph/x/t-{number}" for number in range(count)]
    base = git(project, "rev-parse", "main").strip()
    who = "Bench <bench@example.invalid> 1700000000 +0000"
    stream = "".join(
        f"commit refs/heads/{name}\ncommitter {who}\ndata 1\n.\nfrom {base}\nM 100644 inline by/{n % 40}/{n}.txt\ndata 2\n{n % 10}\n\n"
        for n, name in enumerate(names)
    )
    subprocess.run(["git", "fast-import", "--quiet"], cwd=project, input=stream.encode(), check=True)
    return names


BENCHMARKS: dict[str, Any] = {"queue": loops, "queue-culprit": culprit, "queue-branches": branches}
