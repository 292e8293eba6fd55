"""A loop's life under kills: commands keep coming, its iterations leave trees behind, and pi is a witness.

`Life` starts the whole program once, kills what the test says, starts a next runner, and at the end counts by the
witness's file (witness_pi.py) and the journal what became of every command. What it counts is what "clean" means:
nothing lost, nothing repeated after its receipt, no torn line, a state that parses, nothing that survives.
"""

import json
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ralph_rpc.files import inbox
from ralph_rpc.files.atomic import read_json_object
from ralph_rpc.files.paths import registry_dir
from ralph_rpc.loops.launch import launch
from ralph_rpc.machine import identity, locks
from tests.process.trees import KINDS, is_gone, survivors
from tests.rig import Rig, new_project, wait_for

GONE_S = 3.0
"""Nothing of a tree may live for longer after a kill."""
Victim = Literal["runner", "guard", "pi"]
WITNESS = Path(__file__).with_name("witness_pi.py")


def forest(token: str, *but: str) -> str:
    """Shell code that leaves every kind of descendant (but these) behind, once for each pi that runs it."""
    lines = [line if line.endswith("&") else f"{line};" for kind, line in KINDS.items() if kind not in but]
    once = f"[ -e $TMPDIR/$PPID ] || {{ touch $TMPDIR/$PPID; {' '.join(lines)} }} >/dev/null 2>&1"
    return once.replace("TOKEN", token)


def work(token: str, *but: str) -> list[Any]:
    """An iteration of four turns."""
    soon = {"tool": "bash", "seconds": 0.03}
    return [{"tool": "bash", "run": forest(token, *but)}, soon, soon, "done"]


@dataclass
class Tally:
    """What became of the commands of one life or of several."""

    kills: int = 0
    commands: int = 0
    lost: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    """Shown to the model after their receipt was on disk."""
    unflagged: list[str] = field(default_factory=list)
    """Shown twice, and the receipt does not say so."""
    twice: int = 0
    """Shown twice, and the receipt says so."""
    flagged: int = 0
    redeliveries: int = 0
    """Prompts that brought what is flagged: all that pi held at a kill comes again in one."""
    overlaps: int = 0
    """pis that found another pi, or something of its tree, alive."""
    slowest: float = 0.0
    """Seconds from a kill until nothing of the tree was left."""

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(
            self.kills + other.kills,
            self.commands + other.commands,
            self.lost + other.lost,
            self.repeated + other.repeated,
            self.unflagged + other.unflagged,
            self.twice + other.twice,
            self.flagged + other.flagged,
            self.redeliveries + other.redeliveries,
            self.overlaps + other.overlaps,
            max(self.slowest, other.slowest),
        )

    def __str__(self) -> str:
        return (
            f"{self.kills} kills, {self.commands} commands: {len(self.lost)} lost, {len(self.repeated)} repeated after "
            f"receipt, {self.twice} before it, {self.flagged} flagged in {self.redeliveries} prompts, {self.overlaps} "
            f"overlaps, longest {self.slowest:.2f} s to clean"
        )


class Life:
    """One loop. `token` marks its tools' processes, `told` gives what the witness told, as witness_pi.py does."""

    def __init__(self, rig: Rig, token: str, told: Callable[[], list[dict[str, Any]]], seed: int = 0) -> None:
        self.rig, self.token, self.told = rig, token, told
        self.random, self.tally = random.Random(seed), Tally()
        self.words: list[str] = []
        self.runner = 0
        self._before = 0

    def begin(self, *args: str) -> None:
        self.rig.start("-n", "0", "--max-failures", "0", "--stall-after", "0", *args)
        self.runner = self.rig.state()["pid"]

    def go_on(self) -> None:
        """A next runner, as `resume` starts it; returns at once."""
        lock = locks.acquire(self.rig.paths.runner_lock, 5.0)
        assert lock, "the runner's lock is held after its death"
        self.runner = launch(self.rig.paths, lock, resume=True).pid

    def say(self) -> None:
        """One command into the inbox, of any kind that carries a message; its id is its word."""
        word = f"word-{len(self.words) + 1}"
        self.words.append(word)
        verb: Any = self.random.choice(["steer", "steer", "followup"])
        when = {"when": self.random.choice(["now", "next"])} if verb == "followup" else {}
        inbox.drop(self.rig.paths.inbox, verb, {"id": word, "message": f"heed {word} please", **when})

    def while_speaking(self, count: int, seconds: float, act: Callable[[], None]) -> None:
        """`act`, while `count` commands come within about `seconds`."""

        def speak() -> None:
            for _ in range(count):
                self.say()
                time.sleep(self.random.uniform(0, 2 * seconds / count))

        speaker = threading.Thread(target=speak)
        speaker.start()
        try:
            act()
        finally:
            speaker.join()

    def kill(self, *victims: Victim) -> None:
        """SIGKILL to all of them at once, stopped first so that none acts on another's death."""
        boot = identity.boot_id()

        def found() -> dict[Victim, tuple[int | None, float | None]] | None:
            state = self.rig.state()
            known: dict[Victim, tuple[int | None, float | None]] = {
                "runner": (self.runner, identity.start_time(self.runner)),
                "guard": (state["guardPid"], state["guardStartTime"]),
                "pi": (state["piPid"], state["piStartTime"]),
            }
            return known if all(identity.is_same(*known[victim], boot) for victim in victims) else None

        self._before = self.starts()
        known = wait_for(f"{victims} to kill\n{self.rig.log()}", found)
        for sig in (signal.SIGSTOP, signal.SIGKILL) if len(victims) > 1 else (signal.SIGKILL,):
            for victim in victims:
                identity.signal_same(*known[victim], boot, sig)
        if "runner" in victims:
            wait_for("the runner's death", lambda: is_gone(self.runner))
            with suppress(ChildProcessError):
                os.waitpid(self.runner, 0)
        self.tally.kills += 1
        self.check_files()

    def starts(self) -> int:
        """How many pis there were."""
        return sum("start" in one for one in self.told())

    def await_pi(self, after: int) -> None:
        """Returns when more pis than these were started."""
        wait_for(f"another pi\n{self.rig.log()}", lambda: self.starts() > after)

    def entries(self) -> list[dict[str, Any]]:
        """What the registry says of this loop."""
        found = [read_json_object(path) for path in registry_dir().glob("*.json")]
        return [entry for entry in found if entry and entry["cwd"] == str(self.rig.project)]

    def check_files(self) -> None:
        """At no instant is one of these files half written."""
        assert self.rig.state()["schemaVersion"] == 1
        assert self.entries()

    def gone(self) -> None:
        """Returns when nothing of the killed tree lives; notes how long that took.

        A next pi, which the runner starts half a second later, looks for itself what is left.
        """
        began = time.monotonic()
        wait_for("an empty tree", lambda: not self.left() or self.starts() > self._before, timeout=GONE_S)
        self.tally.slowest = max(self.tally.slowest, time.monotonic() - began)

    def left(self) -> dict[int, str]:
        return self.rig.of_mine() | survivors(self.token)

    def end(self) -> Tally:
        """Lets what was sent be delivered, ends the loop, and counts."""
        rig = self.rig
        words = set(self.words)
        wait_for(f"the end of every command\n{rig.log()}", lambda: words <= self._ended().keys())
        rig.drop("stop.json")
        state = rig.wait_end()
        assert (state["status"], state["stopReason"]) == ("stopped", "stop"), state
        with suppress(ChildProcessError):
            os.waitpid(self.runner, 0)
        assert not self.left() and not self.entries()
        rig.events()
        self._count()
        return self.tally

    def _ended(self) -> dict[str, dict[str, Any]]:
        lines = [json.loads(line) for line in self.rig.paths.commands.read_bytes().split(b"\n")[:-1]]
        return {line["id"]: line for line in lines if line["state"] in ("delivered", "rejected", "expired")}

    def _count(self) -> None:
        told = self.told()
        times = Counter(word for one in told for word in one.get("saw", ()))
        again = {word for one in told for word in one.get("again", ())}
        ended, tally = self._ended(), self.tally
        tally.commands += len(self.words)
        tally.overlaps += sum(one["overlap"] or bool(one["left"]) for one in told if "start" in one)
        tally.redeliveries += len({one["iteration"] for one in ended.values() if one.get("redelivered")})
        for word in self.words:
            receipt = ended.get(word, {})
            flagged = receipt.get("redelivered", False)
            tally.flagged += flagged
            if receipt.get("state") != "delivered" or not times[word]:
                tally.lost.append(f"{word} {receipt}")
            elif word in again:
                tally.repeated.append(f"{word} {receipt}")
            elif times[word] > 1:
                tally.twice += 1
                if not flagged:
                    tally.unflagged.append(f"{word} {receipt}")


def fake_life(folder: Path, token: str, behaviour: list[Any], *, seed: int = 0, deaf: bool = False) -> Life:
    """A loop whose pi is witness_pi.py; it ignores SIGTERM if it is `deaf`."""
    folder.mkdir()
    witness, script, pi = folder / "witness", folder / "script.json", folder / "pi"
    script.write_text(json.dumps({"prompts": [behaviour]}))
    trap = "trap '' TERM\n" if deaf else ""
    told = f"WITNESS={witness} WITNESS_TOKEN={token} FAKE_PI_SCRIPT={script}"
    pi.write_text(f'#!/bin/sh\n{trap}{told} exec {sys.executable} -S {WITNESS} "$@"\n')
    pi.chmod(0o755)
    rig = Rig(new_project(folder / "project"), str(pi), folder / "agent", [])
    return Life(rig, token, lambda: [json.loads(line) for line in witness.read_bytes().split(b"\n")[:-1]], seed)
