"""The far guard: the small process beside pi on the far side of a launcher. Nothing that pi starts outlives it.

Needs Python 3.8 or newer, its standard library and Linux, and is installed nowhere: the launcher carries it there in its
command line (`carried.py`). It says nothing before it is spoken to, because what a container says before somebody is
attached to it may be lost. Its stdin is the near side's: the first line opens (names, environment, folders), every other
goes to pi, but for those that are meant for the far guard itself. stdout and stderr are pi's own; only before pi runs and
after its whole tree is gone does the far guard write a line of its own to stdout.

It holds a lease: where stdin has ended, or nothing has come for that long, the near side is gone, and it ends pi's whole
tree, detached children included (it adopts them). So it does when it gets a signal to end: a time limit, a preemption, a
shutdown. If it is itself killed, pi gets a SIGTERM from the kernel, and the next far guard of that name on this machine
ends what is left before it starts anything.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

OPENING_S = 120.0
"""For the first line; it was written before this process existed."""
EOF_GRACE_S = 0.7
"""From the end of pi's stdin to its SIGTERM where the near side is gone."""
TERM_GRACE_S = 0.8
"""From SIGTERM to the sweep, and in that to SIGKILL."""
GIVE_UP_S = 10.0
"""What is still there then hangs in the kernel."""
OUTSIDE_S = 2.0
"""From pi's end by a signal to the same signal for this process, where both get it: pi may get it first."""
LAST_WORD_S = 2.0
"""For the last line, if nobody reads."""
KEEP = b'{"type":"ralph_keep"'
END = b'{"type":"ralph_end"'
MARK = "RALPH_FAR"
"""In the environment of pi and of all that it starts: the name of the job."""
GUARDS_NAME = "ralph-far"

_OUTSIDE = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
_WATCHED = (*_OUTSIDE, signal.SIGCHLD)
_BY_SIGNAL = tuple(code for number in _OUTSIDE for code in (-number, 128 + number))
_PDEATHSIG, _NAME, _SUBREAPER = 1, 15, 36
_LIBC = ctypes.CDLL(None)


def parent_of(pid: int) -> int | None:
    """The pid of a process's parent; None if it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            stat = file.read()
    except OSError:
        return None
    return int(stat[stat.rfind(b")") + 1 :].split()[1])


def pids() -> list[int]:
    """All that the process table shows; nothing where there is none to be seen."""
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []


def descendants() -> list[int]:
    """What descends from this process."""
    children: dict[int | None, list[int]] = {}
    for pid in pids():
        children.setdefault(parent_of(pid), []).append(pid)
    found: list[int] = []
    queue = [os.getpid()]
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += below
    return found


def namesakes(name: str) -> list[int]:
    """Living processes that an earlier far guard of this name has left behind."""
    mark, me = f"{MARK}={name}".encode(), os.getpid()
    found = []
    for pid in pids():
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                if pid != me and mark in file.read().split(b"\0"):
                    found.append(pid)
        except OSError:
            continue
    return found


def send(pid: int, number: int) -> None:
    """A signal to a process that may be gone."""
    try:
        os.kill(pid, number)
    except OSError:
        pass


def end_all(there: Callable[[], list[int]], reap: Callable[[], bool] = lambda: False) -> None:
    """Ends all processes that `there()` gives: SIGTERM once, then SIGKILL until there is none."""
    termed: set[int] = set()
    begun = time.monotonic()
    while time.monotonic() < begun + GIVE_UP_S:
        if reap():
            return
        left = there()
        if not left:
            return
        hard = time.monotonic() >= begun + TERM_GRACE_S
        for pid in left:
            if hard:
                send(pid, signal.SIGKILL)
            elif pid not in termed:
                termed.add(pid)
                send(pid, signal.SIGTERM)
                send(pid, signal.SIGCONT)
        time.sleep(0.005 if hard else 0.02)


def remove(folder: str) -> None:
    """A folder with all that is in it, as far as that can be done."""
    for above, folders, files in os.walk(folder, topdown=False):
        for name in files + folders:
            path = os.path.join(above, name)
            try:
                if name in files or os.path.islink(path):
                    os.unlink(path)
                else:
                    os.rmdir(path)
            except OSError:
                pass
    try:
        os.rmdir(folder)
    except OSError:
        pass


def watched_signals() -> int:
    """An fd of the signals that matter, which are blocked from now on: each record says who sent it."""
    numbers = (ctypes.c_ulong * 16)()
    numbers[0] = sum(1 << (number - 1) for number in _WATCHED)
    signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    fd: int = _LIBC.signalfd(-1, ctypes.byref(numbers), os.O_NONBLOCK | os.O_CLOEXEC)
    return fd


def from_inside(sender: int) -> bool:
    """Whether a process is of pi's own tree, or gone: `pkill python` of an agent does not mean this one."""
    if sender <= 0:
        return False
    while sender > 1:
        above = parent_of(sender)
        if above is None or above == os.getpid():
            return True
        sender = above
    return False


def say(fd: int, text: str, patience: float) -> None:
    """Writes to a pipe that perhaps nobody reads any more."""
    if select.select([], [fd], [], patience)[1]:
        try:
            os.write(fd, text.encode())
        except OSError:
            pass


def start(argv: list[str], env: dict[str, str], pipe: int) -> int:
    """pi, in a session of its own, with the pipe's reading end as stdin; raises OSError where it cannot be executed."""
    report, reporter = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            os.dup2(pipe, 0)
            _LIBC.prctl(_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            os.execvpe(argv[0], argv, env)
        except OSError as error:
            os.write(reporter, str(error.errno).encode())
        finally:
            os._exit(127)
    os.close(reporter)
    failed = os.read(report, 16)
    os.close(report)
    if failed:
        os.waitpid(pid, 0)
        raise OSError(int(failed), os.strerror(int(failed)), argv[0])
    return pid


class FarGuard:
    """One pi on the far side, from the opening line to the last word."""

    def __init__(self, signals: int) -> None:
        self.signals = signals
        self.key, self.lease, self.last = "", 0.0, 0.0
        self.lines = b""
        """The beginning of a line of stdin whose end has not come yet."""
        self.unsent = b""
        self.pi, self.to_pi = 0, -1
        self.code: int | None = None
        self.by, self.method, self.number = "pi", "natural", 0
        self.deadline: float | None = None
        self.termed = False

    def opening(self) -> dict[str, Any] | None:
        """What the near side says first; None if it is gone, or somebody ends this process before."""
        until = time.monotonic() + OPENING_S
        while b"\n" not in self.lines:
            ready = select.select([0, self.signals], [], [], max(0, until - time.monotonic()))[0]
            data = os.read(0, 65536) if 0 in ready else b""
            if not data:
                return None
            self.lines += data
        first, self.lines = self.lines.split(b"\n", 1)
        told: dict[str, Any] = json.loads(first.decode())
        return told

    def run(self, argv: list[str]) -> None:
        """All of it."""
        told = self.opening()
        if told is None:
            return
        self.key, self.lease = told["key"], told["lease"]
        env = dict(os.environ)
        env.update(told["env"])
        env[MARK] = told["name"]
        end_all(lambda: namesakes(told["name"]))
        made = not os.path.isdir(told["cwd"])
        self.say("ralph_far", host=os.uname().nodename, pid=os.getpid(), made=made, **machine())
        own_tmp = None
        try:
            os.makedirs(told["cwd"], exist_ok=True)
            os.chdir(told["cwd"])
            if not os.path.isdir(told["tmp"]):
                own_tmp = os.path.join(env.get("TMPDIR") or "/tmp", "ralph-" + os.urandom(6).hex())
                os.makedirs(own_tmp, 0o700)
            env["TMPDIR"] = own_tmp or told["tmp"]
            reading, self.to_pi = os.pipe()
            os.set_blocking(self.to_pi, False)
            self.pi = start(argv, env, reading)
            os.close(reading)
        except OSError as error:
            self.last_word(error=f"{error.filename or argv[0]}: {error.strerror}")
        else:
            self.last = time.monotonic()
            self.take(b"")
            self.attend()
            self.ask_who()
            self.sweep()
            self.last_word()
        finally:
            if own_tmp:
                remove(own_tmp)

    def attend(self) -> None:
        """Returns when pi has ended, or its tree is to be ended at once."""
        stdin = [0]
        while self.code is None:
            now = time.monotonic()
            due = self.last + self.lease if self.deadline is None else self.deadline
            if self.deadline is None and now >= due:
                self.finish("lease", EOF_GRACE_S)
                continue
            if now >= due:
                if self.termed:
                    return
                self.terminate()
                continue
            writing = [self.to_pi] if self.unsent and self.to_pi >= 0 else []
            ready, free, _ = select.select([*stdin, self.signals], writing, [], due - now)
            if self.signals in ready:
                self.hear_signals()
            if free:
                self.flush()
            if 0 in ready:
                try:
                    data = os.read(0, 65536)
                except OSError:
                    data = b""
                if data:
                    self.last = time.monotonic()
                    self.take(data)
                else:
                    stdin = []
                    self.finish("near", EOF_GRACE_S)

    def ask_who(self) -> None:
        """What ends a job signals each of its processes: where pi has ended by such a signal, ours may be about to come."""
        until = time.monotonic() + OUTSIDE_S
        while self.by == "pi" and self.code in _BY_SIGNAL:
            left = until - time.monotonic()
            if left <= 0 or not select.select([self.signals], [], [], left)[0]:
                return
            self.hear_signals()

    def take(self, data: bytes) -> None:
        """What came on stdin: whole lines go to pi, except those that are meant for this process."""
        lines = (self.lines + data).split(b"\n")
        self.lines = lines.pop()
        for line in lines:
            if line.startswith(KEEP):
                say(2, f"ralph-far {self.key}\n", 0)
            elif line.startswith(END):
                grace = json.loads(line.decode())["grace"]
                if grace:
                    self.finish("near", grace)
                else:
                    self.terminate()
            elif self.by == "pi":
                self.unsent += line + b"\n"
        self.flush()

    def flush(self) -> None:
        """As much to pi as its pipe takes now."""
        try:
            while self.unsent and self.to_pi >= 0:
                self.unsent = self.unsent[os.write(self.to_pi, self.unsent[:65536]) :]
        except BlockingIOError:
            return
        except OSError:
            self.unsent = b""
        if self.by != "pi" and not self.unsent:
            self.close()

    def close(self) -> None:
        """The end of pi's input."""
        if self.to_pi >= 0:
            os.close(self.to_pi)
            self.to_pi = -1

    def finish(self, by: str, grace: float) -> None:
        """Lets pi see the end of its input; after `grace` seconds it is told to end."""
        if self.by == "pi":
            self.by, self.method = by, "eof"
        until = time.monotonic() + grace
        self.deadline = until if self.deadline is None else min(until, self.deadline)
        self.flush()

    def terminate(self, by: str = "near") -> None:
        """pi's only SIGTERM."""
        if self.by == "pi":
            self.by = by
        if not self.termed:
            self.termed, self.method = True, "sigterm"
            self.unsent = b""
            self.close()
            self.deadline = time.monotonic() + TERM_GRACE_S
            if self.code is None:
                send(self.pi, signal.SIGTERM)
                send(self.pi, signal.SIGCONT)

    def hear_signals(self) -> None:
        """Reaps the dead, and ends pi where somebody outside of its tree says so."""
        while True:
            try:
                record = os.read(self.signals, 128)
            except OSError:
                break
            number = int.from_bytes(record[:4], sys.byteorder)
            if number != signal.SIGCHLD and not from_inside(int.from_bytes(record[12:16], sys.byteorder)):
                self.number = number
                self.terminate("signal")
        self.reap()

    def reap(self) -> bool:
        """Collects every dead child; True if none is left, dead or alive."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return True
            if pid == 0:
                return False
            if pid == self.pi:
                self.code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)

    def sweep(self) -> None:
        """Ends what is left of the tree."""
        alive = self.code is None
        self.close()
        end_all(descendants, self.reap)
        if self.code is None:
            self.code = -signal.SIGKILL
        if alive and self.code == -signal.SIGKILL:
            self.method = "sigkill"

    def say(self, kind: str, **members: Any) -> None:
        """One line to the near side, where no other begins in the middle of it."""
        line = json.dumps(dict({"type": kind, "key": self.key}, **members), separators=(",", ":"))
        say(1, f"\n{line}\n", LAST_WORD_S)

    def last_word(self, **members: Any) -> None:
        """How pi ended."""
        code = 127 if self.code is None else self.code
        members = dict(members, code=int(code), method=self.method, by=self.by)
        if self.number:
            members["signal"] = int(self.number)
        self.say("ralph_far_exit", **members)


def machine() -> dict[str, str]:
    """What tells this machine, and this view of its processes, from another."""
    found = {"bootId": "", "pidSpace": ""}
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            found["bootId"] = file.read().strip()
        found["pidSpace"] = os.readlink("/proc/self/ns/pid")
    except OSError:
        pass
    return found


def main() -> None:
    """Be the far guard of the program on the command line."""
    _LIBC.prctl(_NAME, GUARDS_NAME.encode(), 0, 0, 0)
    _LIBC.prctl(_SUBREAPER, 1, 0, 0, 0)
    FarGuard(watched_signals()).run(sys.argv[2:])


if __name__ == "__main__":
    main()
