"""The small process between the runner and a program it runs (pi, a verify command): nothing outlives it.

Run as `python -I -S THIS LIFELINE_FD TREE_LOCK_FD|-1 -- ARGV...`, where THIS is its code in memory (spawn.py), so that
no upgrade of the program can take it away; the pipes on its fds 0, 1 and 2 go to the program. It adopts every orphan of
the tree (subreaper), so that setsid, double forks and wiped environments hide nothing, and it ends the whole tree when
the program ends, the runner says so, or the runner dies (end of file on the lifeline). It holds the inherited tree lock
until then. If the guard itself is killed, the program gets SIGTERM from the kernel and the runner sweeps (`sweep`
below); if both are killed, shell/orphans.py sweeps at the next start. Systems other than Linux have no subreaper:
there, what left the tree before the sweep is missed.

To the runner, lines: `pid PID STARTTIME`, or `failed ERRNO`; at the end `exit CODE METHOD` (CODE: exit status, or minus
the signal; METHOD: natural, eof, sigterm, sigkill). From the runner, bytes: `e` stdin was closed, `t` end the program
with SIGTERM, `k` end everything now. A SIGTERM has it end everything, too, but not one that the program's own tree has
sent: the agent's `pkill python` means other processes. Few imports: every running program costs one interpreter with
these.
"""

from __future__ import annotations

import ctypes
import os
import select
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Collection, Iterable
else:
    # What `signal` is built on, without the names it gives to numbers: those take a third of a guard's start, and pi
    # waits for it.
    import _signal as signal

EOF_GRACE_S = 5.0
"""From the end of stdin to SIGTERM."""
TERM_GRACE_S = 5.0
"""From SIGTERM to the sweep."""
ORPHAN_GRACE_S = 1.0
"""The same once the runner has died."""
SWEEP_TERM_S = 2.0
"""From the sweep's SIGTERM to its SIGKILL."""
ORPHAN_SWEEP_TERM_S = 1.0
"""The same once the runner or the guard has died: whichever is killed, nothing is alive 3 s later."""
SWEEP_KILL_S = 10.0
"""What is still there then cannot be killed (it hangs in the kernel, or runs as another user): give up."""

IN_MEMORY = "/proc/self/fd/"
"""Begins the path of this code where it is no file; the number of the fd follows."""

_HASTE = 50
"""Looks at adopted processes between two looks at the whole process table."""

ENDING = (signal.SIGTERM, signal.SIGQUIT)
"""Signals by which runner and guard are told to end, wherever the sender is not of their own tree."""
_MEANINGLESS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGVTALRM, signal.SIGPROF)
"""Those that would kill them although they mean nothing to them."""

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
_SIGINFO_BYTES = 128
_SIGINFO_PID = slice(12, 16)


class Process:
    """What the process table says about a process. `start` is 0 if the system does not say."""

    __slots__ = ("group", "parent", "session", "start", "zombie")

    def __init__(self, parent: int, group: int, session: int, start: int, zombie: bool) -> None:
        self.parent = parent
        self.group = group
        self.session = session
        self.start = start
        self.zombie = zombie


def become_subreaper() -> None:
    """Make orphaned descendants children of this process (Linux; elsewhere nothing happens)."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def be_named(name: str) -> None:
    """Set the name that `ps`, `pkill NAME` and `killall NAME` see, so that those for `python` do not mean this process."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)


def watch_signals() -> int | None:
    """Turn the signals of ENDING into records on an fd, for `senders`, and ignore the meaningless ones.

    None where the system cannot tell who sent a signal; then nothing is changed. For the main thread, before any other
    thread is started: all inherit the mask, and so does every child that does not set its own.
    """
    if not sys.platform.startswith("linux"):
        return None
    numbers = (ctypes.c_ulong * 16)()  # as large as any sigset_t
    numbers[0] = sum(1 << (number - 1) for number in ENDING)
    fd: int = ctypes.CDLL(None).signalfd(-1, ctypes.byref(numbers), os.O_NONBLOCK | os.O_CLOEXEC)
    if fd < 0:
        return None
    for number in _MEANINGLESS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    return fd


def senders(fd: int) -> list[int]:
    """The pids that sent the signals which have come since the last call; 0 for the kernel or another pid namespace."""
    found: list[int] = []
    try:
        while record := os.read(fd, _SIGINFO_BYTES):
            found.append(int.from_bytes(record[_SIGINFO_PID], sys.byteorder))
    except BlockingIOError:
        pass
    return found


def is_below(pid: int, root: int) -> bool | None:
    """Whether a process descends from another; None if it is gone, so that nobody can say."""
    seen = 0
    while pid > 1 and seen < 10_000:
        process = _look(pid)
        if process is None:
            return None
        if process.parent == root:
            return True
        pid, seen = process.parent, seen + 1
    return False


def processes() -> dict[int, Process]:
    """Look at the process table: every process by pid."""
    if not sys.platform.startswith("linux"):
        return _processes_by_ps()
    table = {}
    with os.scandir("/proc") as entries:
        for entry in entries:
            if entry.name.isdigit() and (process := _look(int(entry.name))):
                table[int(entry.name)] = process
    return table


def descendants(table: dict[int, Process], roots: Collection[int], spare: Collection[int] = ()) -> dict[int, Process]:
    """Pick from `table` what descends from `roots` (not themselves), leaving out `spare` and what descends from it."""
    children: dict[int, list[int]] = {}
    for pid, process in table.items():
        children.setdefault(process.parent, []).append(pid)
    found: dict[int, Process] = {}
    queue = list(roots)
    while queue:
        for pid in children.get(queue.pop(), ()):
            if pid not in found and pid not in spare and pid not in roots:
                found[pid] = table[pid]
                queue.append(pid)
    return found


def sweep(
    spare: Callable[[dict[int, Process]], Collection[int]],
    reap: Callable[[dict[int, Process]], bool],
    signalled: Iterable[tuple[int, int]] = (),
    term_s: float = SWEEP_TERM_S,
) -> bool:
    """End every descendant of this process: SIGTERM, `term_s` later SIGKILL, again and again.

    `spare` gets each process table and returns the pids to leave alone, their descendants included. `reap` gets
    the descendants just seen, collects the dead and returns True if nothing is left. `signalled` are the (pid, start)
    that had their SIGTERM already. Returns False if something is left after SWEEP_KILL_S.
    """
    me = os.getpid()
    signalled = set(signalled)
    kill_at = time.monotonic() + term_s
    give_up_at = kill_at + SWEEP_KILL_S
    while (now := time.monotonic()) < give_up_at:
        table = processes()
        left = descendants(table, (me,), spare(table))
        for pid, process in left.items():
            if now < kill_at:
                if (pid, process.start) not in signalled:
                    signalled.add((pid, process.start))
                    _send(pid, process, signal.SIGTERM)
                    _send(pid, process, signal.SIGCONT)
                continue
            _send(pid, process, signal.SIGKILL)
        if reap(left):
            return True
        if now >= kill_at:
            _kill_adopted(spare, reap)
        time.sleep(0.02 if now < kill_at else 0.001)
    return False


def _kill_adopted(
    spare: Callable[[dict[int, Process]], Collection[int]], reap: Callable[[dict[int, Process]], bool]
) -> None:
    # A chain of forks is faster than a look at the whole table, but each of its dead is adopted by this process at once.
    me, my_group = os.getpid(), os.getpgrp()
    for _ in range(_HASTE):
        adopted = _adopted()
        left = descendants(adopted, (me,), spare(adopted))
        if not left:
            return
        for pid, process in left.items():
            _send(pid, process, signal.SIGKILL)
            # The whole group is hit at once, and as long as this child is not reaped, the group's number cannot be
            # reused. A process cannot join a group of another session, so the group holds nothing but this tree.
            if process.group != my_group:
                _ignoring_errors(os.killpg, process.group, signal.SIGKILL)
        reap(left)


def _adopted() -> dict[int, Process]:
    # The children of the main thread, which adopts the orphans. Empty if the kernel does not say.
    me = os.getpid()
    try:
        fd = os.open(f"/proc/{me}/task/{me}/children", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return {}
    try:
        pids = os.read(fd, 1 << 16).split()
    finally:
        os.close(fd)
    return {int(pid): process for pid in pids if (process := _look(int(pid)))}


class Guard:
    """One run of a program, from its start to the end of its tree."""

    def __init__(self, lifeline: int) -> None:
        self.lifeline = lifeline
        self.pid = 0
        self.start = 0
        self.code: int | None = None
        self.eof = False
        self.termed = False
        self.sweep_now = False
        self.deadline: float | None = None
        self.signals: int | None = None

    def is_to_obey(self, sender: int) -> bool:
        """Whether a signal to end comes from outside of the tree.

        One whose sender is gone already is as good as never sent: the runner has another way to say so, and so has
        whoever ends leftovers, which waits for the effect.
        """
        return sender == 0 or is_below(sender, os.getpid()) is False

    def run(self, argv: list[str]) -> None:
        """Start the program, tell the runner, and return when nothing of its tree is alive."""
        wake, wakeup = os.pipe()
        os.set_blocking(wake, False)
        os.set_blocking(wakeup, False)
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self.signals = watch_signals()
        if self.signals is None:
            signal.signal(signal.SIGTERM, self.on_sigterm)
        # A signal mask survives fork and exec: what the runner's thread blocked would be blocked here.
        signal.pthread_sigmask(signal.SIG_SETMASK, () if self.signals is None else ENDING)
        try:
            self.pid = _start(argv)
        except OSError as error:
            self.tell(f"failed {error.errno}")
            return
        try:
            child = _look(self.pid)
            self.start = child.start if child else 0
            _let_go_of_stdio()
            self.tell(f"pid {self.pid} {self.start}")
            self.attend(wake)
        finally:
            self.end()

    def attend(self, wake: int) -> None:
        """Return when the program has ended or everything is to be swept."""
        poll = select.poll()
        poll.register(wake, select.POLLIN)
        poll.register(self.lifeline, select.POLLIN)
        if self.signals is not None:
            poll.register(self.signals, select.POLLIN)
        while True:
            left = None if self.deadline is None else max(0.0, self.deadline - time.monotonic())
            for fd, _ in poll.poll(None if left is None else left * 1000):
                if fd == wake:
                    _ignoring_errors(os.read, wake, 4096)
                elif fd == self.signals and any(map(self.is_to_obey, senders(fd))):
                    self.sweep_now = True
            # The lifeline before the dead: `e` is sent before the end of stdin that it announces.
            if self.listen():
                poll.unregister(self.lifeline)
                os.close(self.lifeline)
                self.lifeline = -1
            self.reap({})
            if self.code is not None or self.sweep_now:
                return
            if self.deadline is not None and time.monotonic() >= self.deadline:
                if self.termed:
                    return
                self.terminate(TERM_GRACE_S)

    def listen(self) -> bool:
        """Carry out what the runner said; True if it has just died."""
        if self.lifeline < 0:
            return False
        try:
            said = os.read(self.lifeline, 64)
        except BlockingIOError:
            return False
        except OSError:
            said = b""
        if not said:
            self.terminate(ORPHAN_GRACE_S)
            return True
        if b"k" in said:
            self.sweep_now = True
        elif b"t" in said:
            self.terminate(TERM_GRACE_S)
        elif b"e" in said and not self.eof and not self.termed:
            self.eof = True
            self.deadline = time.monotonic() + EOF_GRACE_S
        return False

    def terminate(self, grace_s: float) -> None:
        """Send the only SIGTERM (at a second one pi skips its clean-up), and allow at most `grace_s` from now."""
        until = time.monotonic() + grace_s
        if self.termed:
            self.deadline = min(until, self.deadline or until)
            return
        self.termed = True
        self.deadline = until
        # Not reaped yet, so the pid is still the program's.
        _ignoring_errors(os.kill, self.pid, signal.SIGTERM)
        _ignoring_errors(os.kill, self.pid, signal.SIGCONT)

    def end(self) -> None:
        """Sweep what is left and say how the program ended."""
        alive = self.code is None
        if alive and not self.termed:
            self.terminate(0)
        if not self.reap({}):
            signalled = [(self.pid, self.start)] if alive else []
            sweep(lambda _: (), self.reap, signalled, ORPHAN_SWEEP_TERM_S if self.lifeline < 0 else SWEEP_TERM_S)
        code = -signal.SIGKILL if self.code is None else self.code
        if alive and code == -signal.SIGKILL:
            method = "sigkill"
        elif self.termed:
            method = "sigterm"
        else:
            method = "eof" if self.eof else "natural"
        self.tell(f"exit {int(code)} {method}")

    def reap(self, _left: dict[int, Process]) -> bool:
        """Collect every dead child; True if none is left, dead or alive."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return True
            if pid == 0:
                return False
            if pid == self.pid:
                self.code = os.waitstatus_to_exitcode(status)

    def on_sigterm(self, *_: object) -> None:
        self.sweep_now = True

    def tell(self, line: str) -> None:
        _ignoring_errors(os.write, self.lifeline, f"{line}\n".encode())


def _start(argv: list[str]) -> int:
    # Fork and exec in a session of its own; the exec's error comes back through a pipe that exec closes.
    report, reporter = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            signal.set_wakeup_fd(-1)
            os.setsid()
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            for number in signal.valid_signals():
                if number not in (signal.SIGKILL, signal.SIGSTOP):
                    _ignoring_errors(signal.signal, number, signal.SIG_DFL)
            _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            os.execvpe(argv[0], argv, os.environ)
        except OSError as error:
            os.write(reporter, str(error.errno).encode())
        finally:
            os._exit(127)
    os.close(reporter)
    failed = os.read(report, 16)
    os.close(report)
    if failed:
        os.waitpid(pid, 0)
        raise OSError(int(failed), os.strerror(int(failed)))
    return pid


def _let_go_of_stdio() -> None:
    # While the guard holds the pipes, no reader sees the program close them. It must not hold the folder either.
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.close(null)
    os.chdir("/")


def _send(pid: int, process: Process, sig: int) -> None:
    # Through a pidfd, with a second look: the pid may have been reused since the table was read.
    # Also to zombies: a process whose first thread has ended looks like one while its other threads run.
    handle = _open_pidfd(pid)
    try:
        now = _look(pid)
        if process.start and (now is None or now.start != process.start):
            return
        if handle is None:
            os.kill(pid, sig)
        else:
            signal.pidfd_send_signal(handle, sig)
    except OSError:
        pass
    finally:
        if handle is not None:
            os.close(handle)


def _open_pidfd(pid: int) -> int | None:
    # Missing on other systems, before Linux 5.3, and in Pythons built for older ones; some sandboxes refuse it.
    if sys.platform != "linux" or not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def _look(pid: int) -> Process | None:
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        stat = os.read(fd, 4096)
    except OSError:
        return None
    finally:
        os.close(fd)
    # Fields follow the last bracket: the name before it may contain anything.
    fields = stat[stat.rfind(b")") + 1 :].split()
    if len(fields) < 20:
        return None
    return Process(int(fields[1]), int(fields[2]), int(fields[3]), int(fields[19]), fields[0] in b"ZXx")


def _processes_by_ps() -> dict[int, Process]:
    import subprocess

    table = {}
    with subprocess.Popen(["ps", "-axo", "pid=,ppid=,pgid=,stat="], stdout=subprocess.PIPE) as ps:
        listing = ps.communicate()[0]
    for line in listing.splitlines():
        pid, parent, group, state = line.split()[:4]
        try:
            session = os.getsid(int(pid))
        except OSError:
            session = 0
        table[int(pid)] = Process(int(parent), int(group), session, 0, state.startswith(b"Z"))
    table.pop(ps.pid, None)  # it lists itself
    return table


def _prctl(option: int, value: int) -> None:
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _ignoring_errors(call: Callable[..., object], *arguments: object) -> None:
    # For calls that may fail because the other side is gone, when that is the goal.
    try:
        call(*arguments)
    except OSError:
        pass


def main() -> None:
    """Be the guard of the program on the command line."""
    lifeline, tree_lock = int(sys.argv[1]), int(sys.argv[2])
    for fd in (lifeline, tree_lock):
        if fd >= 0:
            os.set_inheritable(fd, False)
    os.set_blocking(lifeline, False)
    if sys.argv[0].startswith(IN_MEMORY):  # this code, which nothing below needs
        os.close(int(sys.argv[0].removeprefix(IN_MEMORY)))
    be_named("ralph-guard")
    become_subreaper()
    Guard(lifeline).run(sys.argv[4:])


if __name__ == "__main__":
    main()
