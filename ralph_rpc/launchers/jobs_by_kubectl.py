"""`python -P -m ralph_rpc.launchers.jobs_by_kubectl ENGINE`: speaks with Kubernetes by kubectl, for a runner.

The same language as `jobs_by_psij`. A Job's name is its id. It ends with its stdin, and takes no job with it. If the
machine dies here, the Jobs are the cluster's.
"""

import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

import orjson

from ralph_rpc.launchers.engines import Engine, parse
from ralph_rpc.launchers.kubernetes_job import LABEL, OURS, manifest, state, where

POLL_S = 3.0
PATIENCE_S = 60.0


class Jobs:
    """The Jobs of one runner."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._told: dict[str, str] = {}
        """What was said last of each that is not over."""
        self._lock = threading.Lock()

    def submit(self, name: str, argv: Sequence[str]) -> None:
        made = orjson.dumps(manifest(name, argv, self._engine))
        done = self._kubectl("create", "-f", "-", stdin=made)
        # It may have been made by a call whose answer was lost.
        if done.returncode != 0 and b"AlreadyExists" not in done.stderr:
            self._say(name, "refused", words=_line(done.stderr))
            return
        self.attach(name)

    def attach(self, name: str) -> None:
        with self._lock:
            self._told[name] = ""

    def cancel(self, name: str) -> None:
        # The Job stays until its pod is gone: by then the pod has left its record.
        self._kubectl("delete", "job", name, "--ignore-not-found", "--wait=false", "--cascade=foreground")

    def watch(self) -> None:
        """For ever, in a thread of its own."""
        while True:
            time.sleep(POLL_S)
            with self._lock:
                names = list(self._told)
            if names:
                self._look(names)

    def _look(self, names: list[str]) -> None:
        done = self._kubectl("get", "jobs", f"--selector={LABEL}={OURS}", "--output=json")
        if done.returncode != 0:
            return  # a cluster that does not answer says nothing about its jobs
        there = {job["metadata"]["name"]: state(job) for job in orjson.loads(done.stdout)["items"]}
        for name in names:
            found = there.get(name, "ended: it is gone")
            if found.startswith("ended"):
                tail = _line(self._kubectl("logs", f"job/{name}", "--tail=3").stdout)
                self._say(
                    name, "ended", words=f"{found.removeprefix('ended').strip(' :')}{f': {tail}' if tail else ''}"
                )
                self.cancel(name)
                with self._lock:
                    self._told.pop(name, None)
            elif found != self._told[name]:
                self._told[name] = found
                self._say(name, found, id=name)

    def _kubectl(self, *words: str, stdin: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
        command = ["kubectl", *where(self._engine), *words]
        try:
            return subprocess.run(command, input=stdin, capture_output=True, check=False, timeout=PATIENCE_S)
        except (OSError, subprocess.TimeoutExpired) as error:
            return subprocess.CompletedProcess(command, 1, b"", str(error).encode())

    def _say(self, name: str, what: str, **more: str) -> None:
        sys.stdout.buffer.write(orjson.dumps({"job": name, "is": what, **more}) + b"\n")
        sys.stdout.buffer.flush()


def _line(data: bytes) -> str:
    return " / ".join(" ".join(line.split()) for line in data.decode(errors="replace").splitlines() if line.strip())[
        -300:
    ]


def main() -> None:
    jobs = Jobs(parse(sys.argv[1]))
    threading.Thread(target=jobs.watch, daemon=True).start()
    for line in sys.stdin.buffer:
        asked: dict[str, Any] = orjson.loads(line)
        match asked["op"]:
            case "submit":
                jobs.submit(asked["job"], asked["argv"])
            case "attach":
                jobs.attach(asked["job"])
            case _:
                jobs.cancel(asked["job"])


if __name__ == "__main__":
    main()
