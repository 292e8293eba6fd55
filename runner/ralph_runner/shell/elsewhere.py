"""pi elsewhere: the launcher's command line, the record of what it started, and the end of what an earlier one has left.

Made by the shell for each pi of a loop with `--launcher`. far/<job>.json exists from before the launcher is started until
the far side has said how pi ended, so whoever comes next knows what may be running: no second pi is started while it
may, which is until the lease and ten seconds have passed since the last line that was written to it.
"""

import asyncio
import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from ralph_rpc.files import far as jobs
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.launchers import far_guard, presets
from ralph_rpc.launchers.boxes import Box
from ralph_rpc.launchers.cleanup import run_clean_up
from ralph_rpc.launchers.far_guard import GUARDS_NAME, MARK
from ralph_rpc.launchers.hosts import Hosts
from ralph_rpc.machine import identity
from ralph_rpc.machine.carried import carried
from ralph_rpc.model.config import Config
from ralph_rpc.model.far import FarJob, FarPlace
from ralph_rpc.pi.agent_folder import agent_folder
from ralph_rpc.pi.argv import held
from ralph_runner.core.inputs import FarEnd, FarRuns
from ralph_runner.pi.far import FarStream
from ralph_runner.shell.environment import UNATTENDED
from ralph_runner.shell.marked import Known, look

LEASE_MS = 60_000
LOOK_AGAIN_S = 0.5
_TOUCH_S = 1.0


class Elsewhere:
    """One place for a pi, with one job's name."""

    def __init__(self, launcher: str, config: Config, paths: LoopPaths, tmp: Path, hosts: Hosts | None = None) -> None:
        self._text, self._config, self._paths, self._tmp = launcher, config, paths, tmp
        self.launcher = presets.parse(launcher)
        self._lease_ms = config.get("leaseMs", LEASE_MS)
        self._inner = carried(Path(far_guard.__file__))  # read now: an upgrade changes nothing for a loop that runs
        self._hosts = hosts
        self._host: str | None = None
        """The machine of `--hosts` that has a slot for this pi."""
        self.rested = ""
        """Why the last host was left, as one line."""
        self._job: FarJob | None = None
        self._touched = 0.0

    @property
    def name(self) -> str:
        """The launcher's, for people."""
        return self.launcher.shown

    async def make_way(self, ticket: str | None) -> int:
        """Ends what may be left of an earlier job of that name; gives the milliseconds for which it may still run."""
        name = presets.job_name(self._paths.dir, ticket)
        left = jobs.read(self._paths, name)
        if left is None:
            return 0
        fence = await asyncio.to_thread(self._fence_s, left)
        if fence <= 0:
            jobs.remove(self._paths, name)
        return int(fence * 1000)

    def _fence_s(self, job: FarJob) -> float:
        if run_clean_up(job) or "place" not in job:  # one that has not spoken was given nothing to do
            return 0.0
        seen = _seen_from_here(job)
        if seen is not None:
            return LOOK_AGAIN_S if seen else 0.0
        return jobs.fenced_s(self._paths, job)

    def take_host(self) -> int:
        """With `--hosts`, takes a slot; gives the milliseconds after which to ask again, where none is to be had."""
        if self._hosts is None or self._host is not None:
            return 0
        found = self._hosts.take(time.monotonic())
        if not isinstance(found, str):
            return int(found * 1000)
        self._host = found
        return 0

    def _give_back(self) -> None:
        if self._hosts is not None and self._host is not None:
            self._hosts.give_back(self._host)
            self._host = None

    def begin(
        self, pi: Sequence[str], cwd: Path, ticket: str | None, env: dict[str, str]
    ) -> tuple[list[str], FarStream]:
        """The command line that starts pi over there, and the language to be spoken with it. On disk before it returns."""
        home = Path.home()
        box = Box(cwd, self._paths.project, self._paths.dir, self._tmp, tuple(pi), home, agent_folder(os.environ))
        job = presets.Job(self._paths.dir, ticket, box, self._lease_ms / 1000)
        python = str(Path(sys.executable).resolve()) if self.launcher.kind in presets.HERE else "python3"
        text = self._text if self._host is None else self._text.replace("{host}", self._host)
        argv = presets.command(presets.parse(text), job, [python, *self._inner, *held(list(pi), self._config, python)])
        self._job = {"job": job.name, "launcher": text, "leaseMs": self._lease_ms}
        if ticket is not None:
            self._job["ticket"] = ticket
        jobs.write(self._paths, self._job)
        stream = FarStream(job.name, self._sent(env, box), str(cwd), str(self._tmp), self._lease_ms / 1000)
        return argv, stream

    def _sent(self, env: dict[str, str], box: Box) -> dict[str, str]:
        """The variables that go to the far side, by stdin."""
        names = {*UNATTENDED, *self._config.get("launcherEnv", ())}
        if self.launcher.kind in ("podman", "docker"):  # its folder is shown in there under the same name
            env = {**env, "PI_CODING_AGENT_DIR": str(box.agent)}
            names.add("PI_CODING_AGENT_DIR")
        return {name: value for name, value in env.items() if name in names or name.startswith("RALPH_")}

    def not_started(self) -> None:
        """The launcher itself could not be executed."""
        self._give_back()
        if self._job is not None:
            jobs.remove(self._paths, self._job["job"])
            self._job = None

    def runs(self, place: FarRuns) -> FarRuns:
        """The far guard has spoken; where, by the name that the user knows."""
        if self._host is not None:
            place = replace(place, host=self._host)
        if self._job is not None:
            told: FarPlace = {
                "host": place.host,
                "pid": place.pid,
                "bootId": place.boot_id,
                "pidSpace": place.pid_space,
            }
            self._job["place"] = told
            with suppress(OSError):
                jobs.write(self._paths, self._job)
        return place

    def written(self) -> None:
        """A line has gone to the far side."""
        now = time.monotonic()
        if self._job is not None and now - self._touched >= _TOUCH_S:
            self._touched = now
            jobs.touch(self._paths, self._job)

    async def ended(self, stream: FarStream, words: str) -> FarEnd:
        """The launcher is gone, with these last words. What it may have left is ended, as far as there is a command for
        that.
        """
        job, self._job = self._job, None
        end = _end_of(stream)
        if job is not None and end in ("", "outside", "unusable"):
            jobs.remove(self._paths, job["job"])
        elif job is not None:
            jobs.touch(self._paths, job)
            # A launcher that never got there has started nothing, unless it is queued somewhere.
            gone = await asyncio.to_thread(run_clean_up, job)
            if gone or end == "never":
                jobs.remove(self._paths, job["job"])
        return self._host_ended(end, words)

    def _host_ended(self, end: FarEnd, words: str) -> FarEnd:
        """What this says of the host: one that fails is rested, and where others may do better, they do."""
        hosts, host, self.rested = self._hosts, self._host, ""
        self._give_back()
        if hosts is None or host is None:
            return end
        if end in ("", "outside"):
            hosts.worked(host)
            return end
        rest = hosts.failed(host, words or end, time.monotonic())
        self.rested = f"host {host} is rested for {rest:.0f} s: {words or end}"
        return "elsewhere" if end != "lost" and hosts.have_hope else end


def end_left(paths: LoopPaths) -> list[str]:
    """Runs the clean-up of all that an earlier runner has started elsewhere, also for tickets that nobody takes up again.

    What may run all the same keeps its record: it is waited for where its ticket is. One line for each that was found.
    """
    told = []
    for job in list(jobs.jobs(paths)):
        gone = run_clean_up(job) or "place" not in job
        if gone:
            jobs.remove(paths, job["job"])
        told.append(f"an earlier runner had started {job['job']} elsewhere" + ("; it is gone" if gone else ""))
    return told


def _seen_from_here(job: FarJob) -> bool | None:
    """Whether anything of the job lives; None: it runs, or ran, where its processes cannot be seen from here."""
    place = job.get("place")
    if place is None or place["bootId"] != identity.boot_id() or place.get("pidSpace") != _pid_space():
        return None
    found: list[Known] = []
    whole = look(f"{MARK}={job['job']}".encode(), found.append)
    with suppress(OSError):
        if Path(f"/proc/{place['pid']}/comm").read_text().strip() == GUARDS_NAME:
            return True
    return bool(found) or not whole


def _pid_space() -> str | None:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return None


def _end_of(stream: FarStream) -> FarEnd:
    if stream.runs is None:
        return "never"
    if stream.exit is None:
        return "lost"
    if stream.exit.error:
        return "unusable"
    return "outside" if stream.exit.by in ("signal", "lease") else ""
