"""A project with a loop in it, driven as a user would: by the program and by files."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from ralph_rpc.files.paths import LoopPaths

T = TypeVar("T")
PATIENCE = 60.0
FAKE = Path(__file__).parent / "fake_pi" / "fake_pi.py"
ENDED = ("stopped", "completed", "error")
FOR_WHOM_MODES_COUNT = (
    ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"] if os.geteuid() == 0 else []
)
"""Before a command: root as anybody else is, who may not write where a mode forbids it."""


def wait_for(what: str, condition: Callable[[], T | None], timeout: float = PATIENCE) -> T:
    """The condition's first true value; fails after `timeout` seconds, saying what was waited for."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"waited {timeout:.0f} s in vain for: {what}")


class Rig:
    """One project, one loop (`x` unless named otherwise), one pi."""

    def __init__(self, project: Path, pi: str, agent_dir: Path, model_args: list[str], name: str = "x") -> None:
        self.project, self.pi, self.name = project, pi, name
        self.model_args = model_args
        self.started_by: list[str] = []
        """What stands before each command of the program."""
        self.env = {**os.environ, "PI_CODING_AGENT_DIR": str(agent_dir)}
        self.paths = LoopPaths.of(project, name)

    def run(
        self, *args: str, check: int | None = 0, stdin: str | None = None, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """`ralph-rpc ARGS` in the project; its exit code must be `check`."""
        done = subprocess.run(
            [*self.started_by, sys.executable, "-P", "-m", "ralph_rpc", *args],
            check=False,
            cwd=self.project,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=timeout,
            input=stdin,
            stdin=None if stdin is not None else subprocess.DEVNULL,
        )
        if check is not None:
            assert done.returncode == check, (
                f"{args}: exit {done.returncode}\n{done.stdout}\n{done.stderr}\n{self.log()}"
            )
        return done

    def start(self, *args: str, task: str = "Do the work.", check: int | None = 0) -> subprocess.CompletedProcess[str]:
        """Starts the loop with the scripted model."""
        return self.run("start", self.name, "--pi", self.pi, "-m", task, *self.model_args, *args, check=check)

    def state(self) -> dict[str, Any]:
        try:
            value: dict[str, Any] = json.loads(self.paths.state.read_bytes())
        except FileNotFoundError:
            return {}
        return value

    def wait_status(self, *statuses: str, timeout: float = PATIENCE) -> dict[str, Any]:
        """The state as soon as it has one of these statuses."""

        def reached() -> dict[str, Any] | None:
            state = self.state()
            assert state.get("status") in statuses or state.get("status") not in ENDED, state
            return state if state.get("status") in statuses else None

        return wait_for(f"status {statuses}, now {self.state().get('status')}\n{self.log()}", reached, timeout)

    def wait_end(self, timeout: float = PATIENCE) -> dict[str, Any]:
        """The last state, once the runner is gone too."""
        state = self.wait_status(*ENDED, timeout=timeout)
        pid = int(self.paths.pid.read_text())
        wait_for("the runner's end", lambda: not alive(pid))
        return state

    def events(self) -> list[dict[str, Any]]:
        """All events, oldest first, from all files of the log. Every line must be JSON."""
        while True:
            files = sorted(
                self.paths.dir.glob("events.jsonl*"), key=lambda p: -int(p.suffix[1:]) if p.suffix[1:].isdigit() else 0
            )
            try:
                return [json.loads(line) for file in files for line in file.read_bytes().split(b"\n")[:-1]]
            except FileNotFoundError:  # rotated away just now
                continue

    def of(self, type: str) -> list[dict[str, Any]]:
        return [e for e in self.events() if e["type"] == type]

    def wait_event(self, type: str, **members: Any) -> dict[str, Any]:
        def found() -> dict[str, Any] | None:
            return next((e for e in self.of(type) if all(e.get(k) == v for k, v in members.items())), None)

        return wait_for(f"event {type} {members}\n{self.log()}", found)

    def steps(self, id: str) -> list[str]:
        return [e["state"] for e in self.of("ralph_command") if e["id"] == id]

    def wait_step(self, id: str, step: str) -> None:
        wait_for(f"{step} of {id}, had {self.steps(id)}\n{self.log()}", lambda: step in self.steps(id))

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(p.read_bytes()) for p in sorted(self.paths.iterations.glob("*.json"))]

    def wait_records(self, count: int) -> list[dict[str, Any]]:
        wait_for(f"{count} records\n{self.log()}", lambda: len(self.records()) >= count)
        return self.records()

    def drop(self, file: str, text: str = "") -> None:
        """A command as a person drops it: plainly written, by its own name."""
        (self.paths.inbox / file).write_text(text)

    def registry(self) -> list[dict[str, Any]]:
        folder = Path(self.env["RALPH_HOME"]) / "registry"
        return [json.loads(p.read_bytes()) for p in folder.glob("*.json")]

    def pids(self) -> tuple[int, int, int]:
        """(runner, guard, pi)"""
        state = wait_for("pi's pid in the state", lambda: s if (s := self.state()).get("piPid") else None)
        return state["pid"], state["guardPid"], state["piPid"]

    def kill(self, pid: int, sig: int = signal.SIGKILL) -> None:
        """Signals a process of this loop."""
        assert pid in self.pids(), "not a process of this loop"
        os.kill(pid, sig)

    def log(self) -> str:
        """The end of runner.log, for failure messages."""
        try:
            return "runner.log: " + self.paths.log.read_text(errors="replace")[-3000:]
        except FileNotFoundError:
            return "no runner.log"

    def litter(self) -> set[str]:
        """What lies in the project beside .git and .ralph."""
        return {p.name for p in self.project.iterdir()} - {".git", ".ralph"}

    def of_mine(self) -> dict[int, str]:
        """Living processes that carry this loop's mark."""
        found: dict[int, str] = {}
        mark = f"RALPH_LOOP_DIR={self.paths.dir}".encode()
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    found[int(entry.name)] = (
                        (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    )
            except OSError:
                continue
        return found


def alive(pid: int) -> bool:
    """True unless the process is gone or a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def git(project: Path, *args: str) -> str:
    return subprocess.run(["git", *args], cwd=project, check=True, capture_output=True, text=True).stdout


def new_project(folder: Path) -> Path:
    """A git repository with one commit."""
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / "README").write_text("a project\n")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "first")
    return folder


def fake_rig(tmp_path: Path, script: dict[str, Any] | list[Any], generation: str = "new") -> Rig:
    """A project whose pi follows the script."""
    path = tmp_path / "script.json"
    path.write_text(json.dumps(script if isinstance(script, dict) else {"prompts": script}))
    pi = tmp_path / "pi"
    version = "echo 0.73.1 >&2" if generation == "old" else "echo 1.5.2"
    pi.write_text(
        f"""#!/bin/sh
if [ "$1" = --version ]; then {version}; exit; fi
FAKE_PI_SCRIPT={path} FAKE_PI_GENERATION={generation} exec {sys.executable} {FAKE} "$@"
"""
    )
    pi.chmod(0o755)
    return Rig(new_project(tmp_path / "project"), str(pi), tmp_path / "agent", [])


def user_texts(request: dict[str, Any]) -> Iterator[str]:
    """The texts of the user messages in a request to the model."""
    for message in request["messages"]:
        if message["role"] == "user":
            content = message["content"]
            yield content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
