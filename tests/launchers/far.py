"""The far guard behind a pipe, as a launcher has it; and a rig whose fake pi is behind one."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ralph_rpc.launchers import far_guard
from ralph_rpc.machine.carried import carried
from tests.rig import FAKE, Rig, new_project
from tests.ticket_rig import MARKER

ROOT = Path(__file__).parents[2]
ROOT_ONLY = "needs root: it makes namespaces, or starts a service"


class FarPipe:
    """One far guard, and the near side of it by hand."""

    def __init__(self, process: "subprocess.Popen[bytes]", opening: dict[str, Any]) -> None:
        self.process = process
        self.write(json.dumps(opening).encode() + b"\n")

    def write(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()

    def line(self) -> dict[str, Any]:
        """The next line on stdout that is not empty."""
        assert self.process.stdout is not None
        while (line := self.process.stdout.readline()) == b"\n":
            pass
        return dict(json.loads(line)) if line else {}

    def until_exit(self) -> dict[str, Any]:
        """The last word; what pi wrote before it is skipped."""
        assert self.process.stdout is not None
        *_, last = [line for line in self.process.stdout.read().splitlines() if line]
        self.process.wait()
        return dict(json.loads(last))


@contextmanager
def far_pipe(
    tmp_path: Path, *pi: str, lease: float = 30, python: str = sys.executable, **told: Any
) -> Iterator[FarPipe]:
    """One of the name of its folder: another one of that name ends what this one has left."""
    opening: dict[str, Any] = {
        "key": "k",
        "name": f"ralph-{tmp_path.name}-{os.getpid()}",
        "env": {},
        "cwd": str(tmp_path),
    }
    opening |= {"tmp": str(tmp_path), "lease": lease}
    process = subprocess.Popen(
        [python, *carried(Path(far_guard.__file__)), *pi],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        try:
            yield FarPipe(process, opening | told)
        finally:
            assert process.stdin is not None
            process.stdin.close()


def far_rig(tmp_path: Path, script: dict[str, Any] | list[Any]) -> Rig:
    """As `fake_rig`, but all that the fake pi reads and writes is in one folder, `fake`, which a box can be shown."""
    folder = tmp_path / "fake"
    folder.mkdir()
    (folder / "script.json").write_text(json.dumps(script if isinstance(script, dict) else {"prompts": script}))
    pi = folder / "pi"
    pi.write_text(f'#!/bin/sh\nFAKE_PI_SCRIPT={folder}/script.json exec {sys.executable} -S {FAKE} "$@"\n')
    pi.chmod(0o755)
    return Rig(new_project(tmp_path / "project"), str(pi), tmp_path / "agent", [])


def shown(rig: Rig) -> list[Path]:
    """What a box has to be shown so that the fake pi runs in it."""
    return [Path(rig.pi).parent, ROOT, Path(sys.prefix)]


def does(*commands: str) -> list[Any]:
    """An agent that runs these, and is done."""
    return [*({"tool": "bash", "run": command} for command in commands), f"done\n{MARKER}"]
