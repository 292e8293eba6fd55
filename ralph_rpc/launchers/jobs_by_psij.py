"""`python -P -m ralph_rpc.launchers.jobs_by_psij ENGINE`: speaks with an engine by PSI/J, for a runner.

A process of its own, because PSI/J polls in threads, pins old versions and is optional. One JSON object a line.
In: {"op": "submit", "job", "argv", "env", "cwd", "out"}, {"op": "attach", "job", "id"}, {"op": "cancel", "job"}.
Out: {"job", "is": "queued"|"active", "id"}, {"job", "is": "refused", "words"}, {"job", "is": "ended", "words"}.
It ends with its stdin, and takes no job with it. If the machine dies here, the jobs are the engine's.

What of PSI/J has to be worked around: it polls every 30 s; it takes a queue that could not be asked for the end of all
jobs; a job lasts ten minutes unless it is told otherwise; its `local` ends only the shell around a job, and forgets
jobs with the process that started them.
"""

import importlib
import io
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
import psutil

from ralph_rpc.launchers.engines import Engine, parse, seconds

psij: Any = importlib.import_module("psij")  # optional, so nobody can rely on its types
POLL_S = 3
ATTEMPTS = 3
AGAIN_S = 2.0
_IN_BACKGROUND = """\
trap '' TERM
{launch} &
_launched=$!
trap 'pkill -TERM -P $_launched' TERM
while wait $_launched; _code=$?; kill -0 $_launched 2>/dev/null; do :; done
(exit $_code)
"""
"""A shell heeds a signal only while it waits. `wait` ends with each signal, and then has to be said again."""
_COULD_NOT_ASK = ("Failed to poll", "Error updating", "Failed to update")


class Jobs:
    """The jobs of one runner, by the names that it gives them."""

    def __init__(self, engine: Engine, executor: Any) -> None:
        self._engine, self._executor = engine, executor
        self._jobs: dict[str, Any] = {}
        self._out: dict[str, str] = {}
        self._saying = threading.Lock()

    def submit(self, name: str, argv: list[str], env: dict[str, str], cwd: str, out: str) -> None:
        try:
            spec = self._spec(name, argv, env, cwd, out)
        except Exception as error:  # noqa: BLE001 - PSI/J raises what it likes
            self._say(name, "refused", words=_line(error))
            return
        self._out[name] = out
        for attempt in range(1, ATTEMPTS + 1):
            job = psij.Job(spec)
            job.name = name  # its scripts look here, and not into the spec
            try:
                self._watch(name, job)
                self._executor.submit(job)
                return
            except Exception as error:  # noqa: BLE001
                if attempt == ATTEMPTS or not _may_pass(str(error)):
                    self._say(name, "refused", words=_line(error))
                    return
                time.sleep(AGAIN_S * attempt)

    def _spec(self, name: str, argv: list[str], env: dict[str, str], cwd: str, out: str) -> Any:
        return psij.JobSpec(
            name=name,
            executable=argv[0],
            arguments=argv[1:],
            directory=Path(cwd),
            inherit_environment=False,
            environment=env,
            stdout_path=Path(out),
            stderr_path=Path(out),
            attributes=_attributes(self._engine),
        )

    def attach(self, name: str, id: str, out: str) -> None:
        native, _, started = id.partition("@")
        self._out[name] = out
        job = psij.Job(psij.JobSpec(executable="/bin/true"))
        try:
            if started and f"{psutil.Process(int(native)).create_time():.2f}" != started:
                raise psutil.NoSuchProcess(int(native))
            self._watch(name, job)
            self._executor.attach(job, native)
        except Exception as error:  # noqa: BLE001
            self._say(name, "ended", words=_line(error))

    def cancel(self, name: str) -> None:
        job = self._jobs.get(name)
        if job is None:
            return
        if self._engine.kind == "local":
            _terminate_below(int(job.native_id))
            return
        with suppress(Exception):  # it is over, or the next one who looks ends it
            job.cancel()

    def _watch(self, name: str, job: Any) -> None:
        self._jobs[name] = job

        def changed(job: Any, status: Any) -> None:
            state = status.state.name
            if state == "QUEUED":
                self._say(name, "queued", id=self._id(job))
            elif state == "ACTIVE":
                self._say(name, "active", id=self._id(job))
            elif status.final and (status.message or "").startswith(_COULD_NOT_ASK):
                again = psij.Job(psij.JobSpec(executable="/bin/true"))
                self._watch(name, again)
                self._executor.attach(again, job.native_id)
            elif status.final:
                self._say(name, "ended", words=self._words(name, status))

        job.set_job_status_callback(changed)

    def _id(self, job: Any) -> str:
        native = str(job.native_id)
        if self._engine.kind != "local":
            return native
        with suppress(psutil.Error):
            return f"{native}@{psutil.Process(int(native)).create_time():.2f}"
        return native

    def _words(self, name: str, status: Any) -> str:
        code = status.exit_code
        said = status.state.name.lower() + (f", exit code {code}" if code else "")
        tail = _tail(Path(self._out[name])) or " ".join((status.message or "").split())[-300:]
        return f"{said}: {tail}" if tail else said

    def _say(self, name: str, what: str, **more: str | None) -> None:
        with self._saying:
            sys.stdout.buffer.write(orjson.dumps({"job": name, "is": what, **more}) + b"\n")
            sys.stdout.buffer.flush()


def _attributes(engine: Engine) -> Any:
    words = dict(engine.words)
    duration = words.pop("duration", None)
    found = psij.JobAttributes(
        queue_name=words.pop("queue", None),
        account=words.pop("account", None),
        reservation_id=words.pop("reservation", None),
        custom_attributes={f"{engine.kind}.{key}": value for key, value in words.items()},
    )
    found.duration = None if duration is None else timedelta(seconds=seconds(duration))
    return found


def _may_pass(words: str) -> bool:
    told = ("unable to contact", "timed out", "temporarily", "socket", "connection")
    return any(word in words.lower() for word in told)


def _terminate_below(pid: int) -> None:
    """PSI/J ends the shell around a job alone; what it has started is to end in order."""
    with suppress(psutil.Error):
        for child in psutil.Process(pid).children():
            child.send_signal(signal.SIGTERM)


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 2_000))
            lines = [" ".join(line.split()) for line in file.read().decode(errors="replace").splitlines()]
    except OSError:
        return ""
    return " / ".join([line for line in lines if line][-3:])[-300:]


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def _executor(engine: Engine) -> Any:
    found = psij.JobExecutor.get_instance(engine.kind)
    config = found.config
    if hasattr(config, "queue_polling_interval"):
        config.queue_polling_interval = POLL_S
        config.initial_queue_polling_delay = 1
        config.queue_polling_error_threshold = 10
    if hasattr(found, "generate_submit_script"):
        found.generate_submit_script = _with_trap(found.generate_submit_script)
    return found


def _with_trap(generate: Any) -> Any:
    """A job's shell hands on the signal by which schedulers end a job.

    They send it to the shell alone, which would die of it, and then kill the rest at once. The shell of PSI/J's own
    between the two ignores it.
    """

    def generated(job: Any, context: Any, file: Any) -> None:
        text = io.StringIO()
        generate(job, context, text)
        for line in text.getvalue().splitlines(keepends=True):
            file.write(_IN_BACKGROUND.format(launch=line.strip()) if "_launch.sh " in line else line)

    return generated


def main() -> None:
    engine = parse(sys.argv[1])
    jobs = Jobs(engine, _executor(engine))
    for line in sys.stdin.buffer:
        asked: Mapping[str, Any] = orjson.loads(line)
        match asked["op"]:
            case "submit":
                jobs.submit(asked["job"], asked["argv"], asked["env"], asked["cwd"], asked["out"])
            case "attach":
                jobs.attach(asked["job"], asked["id"], asked["out"])
            case _:
                jobs.cancel(asked["job"])
    os._exit(0)  # PSI/J's threads would wait


if __name__ == "__main__":
    main()
