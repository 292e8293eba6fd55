"""A project in which the real program is called as by a person; stand-ins play the runner and pi."""

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import orjson

from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.machine import locks

ROOT = Path(__file__).parents[2]
T = TypeVar("T")


def until(condition: Callable[[], T | None], what: str = "the condition", seconds: float = 30) -> T:
    """The condition's first true value; fails after a while."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError(f"waited in vain for {what}")


class Stage:
    """`run` calls the program in `project`; `pi` is an executable of a package of pi 1.5.2."""

    def __init__(self, tmp: Path) -> None:
        self.tmp = tmp
        self.project = tmp / "project"
        self.project.mkdir()
        self.pi = self.make_pi("1.5.2")
        stand_in = tmp / "stand-in" / "ralph_runner"
        stand_in.mkdir(parents=True)
        script = Path(__file__).with_name("stand_in_runner.py")
        (stand_in / "__init__.py").write_text("")
        (stand_in / "__main__.py").write_text(f"import runpy\nrunpy.run_path({str(script)!r}, run_name='__main__')\n")
        self.env = {**os.environ, "PYTHONPATH": f"{stand_in.parent}{os.pathsep}{ROOT}"}

    def make_pi(self, version: str) -> Path:
        """An executable that says a version of pi by the package around it."""
        package = self.tmp / f"pi-{version}"
        (package / "bin").mkdir(parents=True)
        (package / "package.json").write_bytes(orjson.dumps({"name": "@x/pi-coding-agent", "version": version}))
        pi = package / "bin" / "pi"
        pi.write_text("#!/bin/sh\nexit 1\n")
        pi.chmod(0o755)
        return pi

    def command(self, *args: str) -> list[str]:
        return [sys.executable, "-P", "-m", "ralph_rpc", *args]

    def run(
        self,
        *args: str,
        code: int = 0,
        stdin: str | bytes = b"",
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """One call of the program; it must exit with `code`, and a failure must be one line."""
        done = subprocess.run(
            self.command(*args),
            cwd=cwd or self.project,
            env={**self.env, **(env or {})},
            capture_output=True,
            input=stdin.encode() if isinstance(stdin, str) else stdin,
            timeout=60,
            check=False,
        )
        shown = subprocess.CompletedProcess(args, done.returncode, done.stdout.decode(), done.stderr.decode())
        assert shown.returncode == code, shown
        if code not in (0, 130):
            last = shown.stderr.splitlines()[-1:]
            assert not last or last[0].startswith("ralph-rpc: "), shown
            assert "Traceback (most" not in shown.stderr, shown
        return shown

    def start(self, *args: str, name: str = "api", code: int = 0, **how: Any) -> subprocess.CompletedProcess[str]:
        """`start NAME` with the stand-in for pi."""
        return self.run("start", name, "--pi", str(self.pi), *args, code=code, **how)

    def on_terminal(self, *args: str, answer: str = "", until: str = "", **env: str) -> tuple[int, str]:
        """The program on a terminal of its own: its exit code, and all that was shown.

        `answer` is typed once `until` is shown; Ctrl-C arrives as the signal.
        """
        master, slave = pty.openpty()
        process = subprocess.Popen(
            self.command(*args),
            cwd=self.project,
            env={**self.env, **env},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        shown, typed = b"", False
        try:
            while True:
                if not typed and until.encode() in shown:
                    if answer == "\x03":
                        process.send_signal(signal.SIGINT)
                    else:
                        os.write(master, answer.encode())
                    typed = True
                piece = os.read(master, 4096)
                if not piece:
                    break
                shown += piece
        except OSError:  # EIO: the last one who had the terminal open is gone
            pass
        finally:
            os.close(master)
        return process.wait(60), shown.decode()

    def paths(self, name: str = "api") -> LoopPaths:
        return LoopPaths.of(self.project, name)

    def state(self, name: str = "api") -> dict[str, Any]:
        value: dict[str, Any] = orjson.loads(self.paths(name).state.read_bytes())
        return value

    def await_gone(self, name: str = "api") -> None:
        """Until no runner has the lock."""
        until(lambda: not locks.is_held(self.paths(name).runner_lock), "the runner's end")

    def end(self) -> None:
        """Ends every runner of the project."""
        for state in self.project.glob(".ralph/*/state.json"):
            name = state.parent.name
            if locks.is_held(self.paths(name).runner_lock):
                self.run("stop", name)
                self.await_gone(name)
