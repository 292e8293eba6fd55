"""A Slurm of this test's own: munge, a controller, three nodes, on free ports. Needs root, munge, slurmctld, slurmd, srun.

Every file is in its folder, every node's name is its own, and all processes and cgroups are found by these and removed.
"""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from tests.rig import wait_for

TOOLS = ("munged", "slurmctld", "slurmd", "srun", "scancel", "squeue")


def why_not() -> str | None:
    """Why there can be no Slurm here, as one line."""
    if os.geteuid() != 0:
        return "needs root, for a Slurm of its own"
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    return f"needs {', '.join(missing)}" if missing else None


def free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        found = []
        for _ in range(count):
            one = held.enter_context(socket.socket())
            one.bind(("127.0.0.1", 0))
            found.append(one.getsockname()[1])
        return found


CONFIG = """\
ClusterName=t
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={dir}/munge.sock
CryptoType=crypto/munge
SlurmctldPort={port}
StateSaveLocation={dir}/state
SlurmdSpoolDir={dir}/spool/%n
SlurmctldPidFile={dir}/ctld.pid
SlurmdPidFile={dir}/%n.pid
SlurmctldLogFile={dir}/ctld.log
SlurmdLogFile={dir}/%n.log
ProctrackType=proctrack/{track}
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SlurmdTimeout={node_timeout}
KillWait=120
OverTimeLimit=0
ReturnToService=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=sched_interval=1,bf_interval=1
{nodes}
PartitionName=low Nodes=ALL Default=YES MaxTime=INFINITE PriorityTier=1 State=UP
PartitionName=high Nodes=ALL MaxTime=INFINITE PriorityTier=10 State=UP PreemptMode=OFF
"""


class Slurm:
    """Three nodes of `cpus` processors each, `nodes` by name."""

    def __init__(self, folder: Path, track: str, cpus: int, node_timeout: int) -> None:
        self.folder = folder
        self.nodes = [f"r{os.getpid()}n{n}" for n in (1, 2, 3)]
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        for name in ("state", *(f"spool/{node}" for node in self.nodes)):
            (folder / name).mkdir(parents=True)
        port, *ports = free_ports(4)
        host = socket.gethostname()
        rows = "\n".join(
            f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={number} CPUs={cpus} RealMemory=1000"
            for node, number in zip(self.nodes, ports, strict=True)
        )
        self.conf = folder / "slurm.conf"
        self.conf.write_text(
            CONFIG.format(host=host, dir=folder, port=port, track=track, nodes=rows, node_timeout=node_timeout)
        )
        plugin = "cgroup/v1" if Path("/sys/fs/cgroup/freezer").is_dir() else "autodetect"
        (folder / "cgroup.conf").write_text(f"CgroupPlugin={plugin}\nCgroupAutomount=no\n")
        self.env = {"SLURM_CONF": str(self.conf)}

    def begin(self) -> None:
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        files = {"socket": "munge.sock", "key-file": "munge.key", "pid-file": "munge.pid", "log-file": "munge.log"}
        words = [f"--{option}={self.folder / name}" for option, name in {**files, "seed-file": "munge.seed"}.items()]
        self._start("munged", "munged", "--foreground", "--force", *words)
        wait_for("munge", (self.folder / "munge.sock").exists)
        self._start("slurmctld", "slurmctld", "-D", "-c", "-f", str(self.conf))
        for node in self.nodes:
            self.begin_node(node)
        wait_for("idle nodes", lambda: self.run("sinfo", "-h", "-t", "idle", "-o", "%D").strip() == "3")

    def begin_node(self, node: str) -> None:
        self._start(node, "slurmd", "-D", "-N", node, "-f", str(self.conf))

    def _start(self, name: str, *words: str) -> None:
        log = (self.folder / f"{name}.out").open("wb")
        with log:
            self._processes[name] = subprocess.Popen(
                words, env={**os.environ, **self.env}, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def run(self, *words: str) -> str:
        done = subprocess.run(words, env={**os.environ, **self.env}, capture_output=True, text=True, check=False)
        return done.stdout

    def queue(self) -> list[str]:
        """Jobs that are not over: name, state and node of each."""
        return self.run("squeue", "-h", "-o", "%j %T %N").splitlines()

    def steps_of(self, node: str) -> list[int]:
        """The daemons of that node: slurmd and its step managers."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                command = (entry / "cmdline").read_bytes()
                environ = (entry / "environ").read_bytes()
                if command.startswith(b"slurmstepd") and f"{self.folder}".encode() in environ + command:
                    found.append(int(entry.name))
        return [*found, self._processes[node].pid]

    def end(self) -> None:
        self.run("scancel", "--signal=KILL", "--user=root")
        with suppress(AssertionError):
            wait_for("an empty queue", lambda: not self.queue(), 10)
        for process in reversed(self._processes.values()):
            process.terminate()
        for process in reversed(self._processes.values()):
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._remove_cgroups()

    def _remove_cgroups(self) -> None:
        until = time.monotonic() + 5
        while time.monotonic() < until:
            left = [path for node in self.nodes for path in Path("/sys/fs/cgroup").glob(f"*/slurm_{node}")]
            for top in left:
                for path in sorted((path for path in top.rglob("*") if path.is_dir()), reverse=True):
                    with suppress(OSError):
                        path.rmdir()
                with suppress(OSError):
                    top.rmdir()
            if not left:
                return
            time.sleep(0.1)


@contextmanager
def slurm(track: str = "cgroup", cpus: int = 2, node_timeout: int = 60) -> Iterator[Slurm]:
    """A node that says nothing for `node_timeout` seconds, as on a busy machine, is taken for dead."""
    # A socket's path has at most 107 letters, and a test's own folder has nearly as many.
    with tempfile.TemporaryDirectory(prefix="rs", dir="/tmp", ignore_cleanup_errors=True) as folder:
        made = Slurm(Path(folder), track, cpus, node_timeout)
        try:
            made.begin()
            yield made
        finally:
            made.end()


def kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
