"""The demo: a throwaway project, the scripted model, and the program itself, run as a person would run it.

Called by `cli/demo.py`. Everything it creates is in one temporary folder, which stays so that you can look at it, and
is removed if the demo is interrupted, once the loop has been ended. If the machine dies, that folder is left. pi gets
its own settings folder, so that the user's is neither read nor written.
"""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ralph_rpc.demo import agent, backlog
from ralph_rpc.demo.model import MODEL, PROVIDER, Model, pi_environment, write_models_json
from ralph_rpc.errors import RalphError
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.pi.find import Pi
from ralph_rpc.terminal.units import money

NAME = "demo"
LIMITS = ["-n", "6", "--max-failures", "2", "--iteration-timeout", "2m", "--max-time", "5m"]
"""Whatever happens, it ends."""
PATIENCE_S = 360
"""For the whole loop: --max-time and the time to end it."""
CALL_S = 90
"""For one call of the program that does not wait for the loop."""

Say = Callable[[str], None]


def show(pi: Pi, say: Say) -> None:
    """Runs the demo to its end; raises RalphError unless the loop completed and was verified."""
    root = Path(tempfile.mkdtemp(prefix="ralph-demo-"))
    try:
        with _interruptible():
            _show(pi, say, root)
    except KeyboardInterrupt:
        shutil.rmtree(root, ignore_errors=True)
        raise


def leave(folder: Path, say: Say) -> None:
    """Makes the project anew in `folder`, with its task in wishes.md and a backlog: the README's tour begins with it."""
    _make_project(folder, {agent.WISHES: agent.TASK, **backlog.files()})
    say(_TOUR.format(folder=folder, wishes=agent.WISHES, verify=agent.VERIFY))


def answer(pi: Pi, say: Say) -> None:
    """Answers as the scripted model for loops of the kept project, until Ctrl-C; says how to choose it."""
    with (
        tempfile.TemporaryDirectory(prefix="ralph-demo-") as folder,
        Model(lambda request, number: agent.reply(request, lambda: None)) as model,
        _interruptible(),
    ):
        write_models_json(Path(folder), model.port)
        chosen = {
            **pi_environment(Path(folder), {}),
            "RALPH_PI": pi.command[-1],
            "RALPH_PROVIDER": PROVIDER,
            "RALPH_MODEL": MODEL,
        }
        exports = " ".join(f"{name}={shlex.quote(value)}" for name, value in chosen.items())
        say(_SERVED.format(exports=exports))
        threading.Event().wait()


def _show(pi: Pi, say: Say, root: Path) -> None:
    project = root / "project"
    _make_project(project)
    (root / "task.md").write_text(agent.TASK, encoding="utf-8")
    env = _environment(root)
    loop = _Program(project, env, say)
    wish = f'steer {NAME} "{agent.STEER}"'

    def steer_now() -> None:
        time.sleep(0.4)  # the log lags a little behind; the lines should not mix
        say(f"\n  (you, in another terminal)  $ ralph-rpc {wish}")
        loop.call("steer", NAME, agent.STEER, quiet=True)

    with Model(lambda request, number: agent.reply(request, steer_now)) as model:
        write_models_json(root / "pi-agent", model.port)
        say(f"Real pi {pi.version or ''}, scripted model: no account, no network, no money.")
        say(f"Everything happens in {root}\n")
        start = ["start", NAME, "--task", str(root / "task.md"), "--verify", agent.VERIFY, *LIMITS]
        start += ["--marker", agent.MARKER, "--provider", PROVIDER, "--model", MODEL, "--pi", pi.command[-1]]
        say(f"$ ralph-rpc start {NAME} --task task.md --verify '{agent.VERIFY}'")
        try:
            loop.call(*start)
            say(f"\n$ ralph-rpc logs {NAME} -f")
            loop.call("logs", NAME, "-f", patience=PATIENCE_S)
            loop.call("wait", NAME, may_fail=True, quiet=True)
        except BaseException:
            loop.call("kill", NAME, may_fail=True, quiet=True)
            raise
        asked = len(model.requests)
    _sum_up(project, root, asked, say)


class _Program:
    """`ralph-rpc`, called in the project."""

    def __init__(self, project: Path, env: dict[str, str], say: Say) -> None:
        self._project, self._env, self._say = project, env, say

    def call(self, *args: str, quiet: bool = False, may_fail: bool = False, patience: float = CALL_S) -> None:
        """Runs one command, its output shown unless `quiet`; RalphError if it fails or takes too long."""
        try:
            done = subprocess.run(
                [sys.executable, "-P", "-m", "ralph_rpc", *args],
                check=False,
                cwd=self._project,
                env=self._env,
                stdin=subprocess.DEVNULL,
                capture_output=quiet,
                text=True,
                timeout=patience,
            )
        except subprocess.TimeoutExpired:
            if may_fail:
                return
            late = f"did not end in {patience:.0f} s"
            raise RalphError(f"the demo failed: `ralph-rpc {args[0]}` {late}", _LOOK) from None
        if done.returncode != 0 and not may_fail:
            why = (done.stderr or "").strip() or f"exit code {done.returncode}"
            raise RalphError(f"the demo failed: `ralph-rpc {args[0]}`: {why}", _LOOK)


_LOOK = "Try: ralph-rpc doctor"


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM and a closed terminal end the demo as Ctrl-C does, so that nothing is left running."""
    interrupt = signal.default_int_handler
    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _environment(root: Path) -> dict[str, str]:
    """The user's environment without settings for ralph-rpc, pi and git; the registry is the user's own."""
    base = {
        name: value
        for name, value in os.environ.items()
        if name == "RALPH_HOME" or not name.startswith(("RALPH_", "PI_", "GIT_"))
    }
    return pi_environment(root / "pi-agent", {**base, "XDG_CONFIG_HOME": str(root / "config")})


def _make_project(project: Path, more: Mapping[str, str] | None = None) -> None:
    project.mkdir(parents=True, exist_ok=True)
    for name, text in {**agent.FILES, **(more or {})}.items():
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).write_text(text, encoding="utf-8")
    git = ["git", "-C", str(project)]
    commands = [
        [*git, "init", "--quiet", "--template="],
        [*git, "config", "user.name", "Demo"],
        [*git, "config", "user.email", "demo@example.invalid"],
        [*git, "config", "commit.gpgsign", "false"],
        [*git, "config", "core.hooksPath", os.devnull],
        [*git, "add", "--all"],
        [*git, "commit", "--quiet", "-m", "The project as the agent finds it"],
    ]
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    for command in commands:
        try:
            subprocess.run(command, check=True, env=env, capture_output=True, text=True, timeout=CALL_S)
        except FileNotFoundError:
            raise RalphError("the demo needs git, which is not on PATH", "Install git") from None
        except subprocess.CalledProcessError as error:
            raise RalphError(f"the demo's project could not be made: {error.stderr.strip()}", "Update git") from error


def _sum_up(project: Path, root: Path, asked: int, say: Say) -> None:
    """Prints what happened; raises RalphError if it is not what should have happened."""
    paths = LoopPaths.of(project, NAME)
    state = json.loads(paths.state.read_bytes())
    if (state["status"], state["stopReason"]) != ("completed", "verified"):
        why = state["error"] or state["stopReason"]
        raise RalphError(f"the demo ended as {state['status']}: {why}", f"Look in {paths.dir}")
    tests = subprocess.run(
        agent.VERIFY.split(), check=False, cwd=project, capture_output=True, text=True, timeout=CALL_S
    )
    if tests.returncode != 0 or agent.AMPERSAND not in (project / "slug.py").read_text(encoding="utf-8"):
        raise RalphError("the loop completed, but the project is not in the expected state", f"Look in {project}")
    commits = subprocess.run(
        ["git", "log", "--reverse", "--format=%h %s"], check=True, cwd=project, capture_output=True, text=True
    )
    say("\nWhat happened\n")
    for path in sorted(paths.iterations.glob("*.json")):
        record = json.loads(path.read_bytes())
        steered = ", steered by you" if record["steering"] else ""
        say(
            f"  iteration {record['iteration']}: {record['turns']} turns, {record['toolCalls']} tool calls, "
            f"{money(record['cost'])}{steered}"
        )
    stats = state["stats"]
    say(f"  total: {asked} requests to the model, {money(stats['cost'])} at made-up prices")
    for receipt in _receipts(paths):
        say(f"  your message: {receipt}")
    say(f"  completed: the agent said so, and `{agent.VERIFY}` agreed\n")
    say("".join(f"  {line}\n" for line in commits.stdout.splitlines()))
    say(_AFTERWARDS.format(project=project, loop=paths.dir, root=root))


def _receipts(paths: LoopPaths) -> list[str]:
    """The states each message went through, such as `accepted -> queued -> delivered`."""
    ways: dict[str, list[str]] = {}
    for line in paths.events.read_bytes().splitlines():
        event: dict[str, Any] = json.loads(line) if b'"ralph_command"' in line else {}
        if event.get("type") == "ralph_command":
            ways.setdefault(event["id"], []).append(event["state"])
    return [" -> ".join(way) for way in ways.values()]


_AFTERWARDS = """\
Where to look

  {project}
      the project; each commit is one iteration with an empty context
  {loop}
      state.json (status now), events.jsonl (everything pi said), iterations/ (one record each),
      task.md (the checklist), inbox/ (where commands are dropped; `touch stop.json` works)

  Remove it all:  rm -r {root}

For real, in your own project and with your own account (/login in `ralph-rpc pi`, or a key such as ANTHROPIC_API_KEY):

  ralph-rpc start NAME -m 'what to do' --verify 'make test' --max-cost 5
  ralph-rpc logs NAME -f        ralph-rpc steer NAME 'what to change'        ralph-rpc stop NAME"""

_TOUR = """
The same project, untouched, for you to try it:

  cd {folder}
  ralph-rpc start slugs --task {wishes} --verify '{verify}' --max-cost 5
  ralph-rpc start night --tickets --parallel 3 --verify 'python3 -m compileall -q .'"""

_SERVED = """
Without an account, first type this there, in another terminal:

  export {exports}

The scripted model answers until you press Ctrl-C here; it knows this one task and these tickets."""
