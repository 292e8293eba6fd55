"""Two machines on one: each a network namespace with a PID namespace of its own, a cable between them, sshd on the far one.

Found by a name of this process's own, and removed with all that runs in them. Needs root, iproute2 and openssh-server.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.rig import wait_for

INIT = "import os,time\nwhile True:\n try: os.wait()\n except ChildProcessError: time.sleep(.05)"
"""The first process of a PID namespace: it reaps."""


def why_not() -> str | None:
    """Why there can be no machines here, as one line."""
    if os.geteuid() != 0:
        return "needs root, for namespaces"
    missing = [tool for tool in ("ip", "unshare", "nsenter", "sshd", "ssh-keygen", "ssh") if shutil.which(tool) is None]
    return f"needs {', '.join(missing)}" if missing else None


def run(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


class Machine:
    """One of the two. `init` is the pid, as seen from outside, of the first process in its PID namespace."""

    def __init__(self, net: str) -> None:
        self.net = net
        self._shell = subprocess.Popen(
            ["ip", "netns", "exec", net, "unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
            + [sys.executable, "-S", "-c", INIT]
        )
        self.init = wait_for("its first process", self._first)

    def _first(self) -> int | None:
        # `ip netns exec` and then `unshare` become one another; unshare forks.
        children = Path(f"/proc/{self._shell.pid}/task/{self._shell.pid}/children").read_text().split()
        if not children:
            return None
        command = Path(f"/proc/{children[0]}/cmdline").read_bytes().split(b"\0")
        return int(children[0]) if b"-S" in command else None

    def inside(self, folder: Path = Path("/")) -> list[str]:
        """What stands before a command that is to run in it, in that folder."""
        there = ["nsenter", f"--target={self.init}", "--pid", "--mount", "--net", "--"]
        return [*there, "env", f"--chdir={folder}"]

    def end(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.init, signal.SIGKILL)
        self._shell.wait()


class Machines:
    """`near`, `far`, and the cable."""

    def __init__(self, folder: Path, name: str) -> None:
        self._near, self._far = f"{name}n", f"{name}f"
        self._v0, self._v1 = f"v{name}n", f"v{name}f"
        self.folder = folder
        for net in (self._near, self._far):
            run("ip", "netns", "add", net)
            run("ip", "-n", net, "link", "set", "lo", "up")
        run(
            "ip",
            "link",
            "add",
            self._v0,
            "netns",
            self._near,
            "type",
            "veth",
            "peer",
            "name",
            self._v1,
            "netns",
            self._far,
        )
        for net, link, address in ((self._near, self._v0, "10.9.8.1/24"), (self._far, self._v1, "10.9.8.2/24")):
            run("ip", "-n", net, "address", "add", address, "dev", link)
            run("ip", "-n", net, "link", "set", link, "up")
        self.near, self.far = Machine(self._near), Machine(self._far)
        self._sshd()

    def _sshd(self) -> None:
        Path("/run/sshd").mkdir(exist_ok=True)
        for key in ("host", "user"):
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / key))
        (self.folder / "authorized").write_bytes((self.folder / "user.pub").read_bytes())
        config = self.folder / "sshd_config"
        config.write_text(
            f"Port 22\nListenAddress 10.9.8.2\nHostKey {self.folder}/host\nAuthorizedKeysFile {self.folder}/authorized\n"
            f"UsePAM no\nStrictModes no\nPidFile none\nPermitRootLogin yes\nPasswordAuthentication no\n"
        )
        self._server = subprocess.Popen(
            [*self.far.inside(), shutil.which("sshd") or "sshd", "-D", "-f", str(config)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_for("sshd", lambda: subprocess.run(self.ssh("true"), capture_output=True, check=False).returncode == 0)

    def options(self, known: bool = True) -> list[str]:
        """Words of ssh's that know the far machine and its key."""
        hosts = self.folder / "known_hosts"
        key = (self.folder / "host.pub").read_text() if known else ""
        hosts.write_text(f"10.9.8.2 {key}" if known else "")
        return ["-F", "none", "-i", str(self.folder / "user"), "-o", f"UserKnownHostsFile={hosts}"] + [
            *("-o", "StrictHostKeyChecking=yes", "-o", "ConnectTimeout=5"),
            "root@10.9.8.2",
        ]

    def ssh(self, *command: str) -> list[str]:
        return [*self.near.inside(), "ssh", *self.options(), *command]

    def cable(self, up: bool) -> None:
        run("ip", "-n", self._near, "link", "set", self._v0, "up" if up else "down")

    def end(self) -> None:
        for machine in (self.near, self.far):
            machine.end()
        self._server.wait()
        for net in (self._near, self._far):
            run("ip", "netns", "delete", net)


@contextmanager
def machines(folder: Path) -> Iterator[Machines]:
    folder.mkdir()
    # Names of network interfaces have at most 15 letters.
    made = Machines(folder, f"r{os.getpid() % 10**6}")
    try:
        yield made
    finally:
        made.end()


def launcher(words: Sequence[str]) -> str:
    return f"ssh:{' '.join(words)}"
