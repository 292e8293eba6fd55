"""Several machines on one: each a network namespace with a PID namespace of its own; a near one, and a cable from it to each
far one, on which sshd listens.

Found by a name of this process's own, and removed with all that runs in them. Needs root, iproute2 and openssh-server.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
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
    """One of them. `init` is the pid, as seen from outside, of the first process in its PID namespace."""

    def __init__(self, net: str) -> None:
        self.net = net
        run("ip", "netns", "add", net)
        run("ip", "-n", net, "link", "set", "lo", "up")
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

    def break_down(self) -> None:
        """Everything that runs in it is gone."""
        with suppress(ProcessLookupError):
            os.kill(self.init, signal.SIGKILL)
        self._shell.wait()

    def end(self) -> None:
        self.break_down()
        run("ip", "netns", "delete", self.net)


class FarMachine(Machine):
    """One at the end of a cable. `address` is its own."""

    def __init__(self, near: Machine, net: str, number: int, folder: Path) -> None:
        super().__init__(net)
        self.address, ours = f"10.9.{8 + number}.2", f"10.9.{8 + number}.1"
        self._near, self._link, there = near, f"v{net}n", f"v{net}f"
        pair = ["link", "add", self._link, "netns", near.net, "type", "veth", "peer", "name", there, "netns", net]
        run("ip", *pair)
        for space, link, address in ((near.net, self._link, ours), (net, there, self.address)):
            run("ip", "-n", space, "address", "add", f"{address}/24", "dev", link)
            run("ip", "-n", space, "link", "set", link, "up")
        config = folder / f"sshd_config-{number}"
        config.write_text(
            f"Port 22\nListenAddress {self.address}\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized\n"
            f"UsePAM no\nStrictModes no\nPidFile none\nPermitRootLogin yes\nPasswordAuthentication no\n"
        )
        self._server = subprocess.Popen(
            [*self.inside(), shutil.which("sshd") or "sshd", "-D", "-f", str(config)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def cable(self, up: bool) -> None:
        run("ip", "-n", self._near.net, "link", "set", self._link, "up" if up else "down")

    def end(self) -> None:
        super().end()
        self._server.wait()


class Machines:
    """`near`, and the `far` ones."""

    def __init__(self, folder: Path, name: str, count: int, held: ExitStack) -> None:
        self.folder = folder
        Path("/run/sshd").mkdir(exist_ok=True)
        for key in ("host", "user"):
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key))
        (folder / "authorized").write_bytes((folder / "user.pub").read_bytes())
        self.near = Machine(f"{name}n")
        held.callback(self.near.end)
        self.fars: list[FarMachine] = []
        for number in range(count):
            self.fars.append(FarMachine(self.near, f"{name}f{number}", number, folder))
            held.callback(self.fars[-1].end)
        self.far = self.fars[0]
        for far in self.fars:
            asked = self.ssh("true", far=far)
            wait_for("sshd", lambda: subprocess.run(asked, capture_output=True, check=False).returncode == 0)  # noqa: B023

    def options(self, known: bool = True) -> list[str]:
        """Words of ssh's that know the far machines and their key."""
        hosts = self.folder / "known_hosts"
        key = (self.folder / "host.pub").read_text().strip() if known else ""
        hosts.write_text("".join(f"{far.address} {key}\n" for far in self.fars))
        return ["-F", "none", "-i", str(self.folder / "user"), "-o", f"UserKnownHostsFile={hosts}"] + [
            *("-o", "StrictHostKeyChecking=yes", "-o", "ConnectTimeout=5")
        ]

    def to(self, known: bool = True) -> list[str]:
        """Words of ssh's that lead to the first far machine."""
        return [*self.options(known), f"root@{self.far.address}"]

    def ssh(self, *command: str, far: FarMachine | None = None) -> list[str]:
        return [*self.near.inside(), "ssh", *self.options(), f"root@{(far or self.far).address}", *command]


@contextmanager
def machines(folder: Path, far: int = 1) -> Iterator[Machines]:
    folder.mkdir()
    with ExitStack() as held:
        # Names of network interfaces have at most 15 letters.
        yield Machines(folder, f"r{os.getpid() % 10**6}", far, held)


def launcher(words: Sequence[str]) -> str:
    return f"ssh:{' '.join(words)}"
