"""Real terminals for the view: tmux, whose screen can be read back, and a bare pty, whose bytes can."""

import fcntl
import os
import pty
import re
import shlex
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.rig import wait_for

PROGRAM = [sys.executable, "-P", "-m", "ralph_rpc"]
SGR = re.compile(rb"\x1b\[([0-9;]*)m")


class Tmux:
    """One window of a tmux server of its own."""

    def __init__(self, socket: Path, cwd: Path, env: Mapping[str, str], columns: int = 100, rows: int = 30) -> None:
        self.socket = socket
        self.env = dict(env) | {"TMUX": ""}
        shell = "exec env PS1='$ ' sh"
        self.call("-f", "/dev/null", "new-session", "-d", "-x", str(columns), "-y", str(rows), "-c", str(cwd), shell)
        self.call("set-option", "-g", "window-size", "manual")
        self.pid = int(self.call("display-message", "-p", "#{pid}"))

    def call(self, *args: str) -> str:
        done = subprocess.run(
            ["tmux", "-S", str(self.socket), *args],
            env=self.env,
            check=True,
            capture_output=True,
            text=True,
            timeout=30,
        )
        return done.stdout.strip()

    def types(self, text: str) -> None:
        self.call("send-keys", "-l", text)

    def presses(self, *keys: str) -> None:
        """Keys by tmux's names."""
        self.call("send-keys", *keys)

    def runs(self, *args: str) -> None:
        """Enters a call of the program at the shell's prompt."""
        self.types(shlex.join([*PROGRAM, *args]))
        self.presses("Enter")

    def screen(self) -> str:
        return self.call("capture-pane", "-p")

    def sees(self, *texts: str, never: str = "") -> str:
        """The screen as soon as it shows all of this, and `never` not."""

        def shown() -> str | None:
            screen = self.screen()
            fits = all(text in screen for text in texts) and not (never and never in screen)
            return screen if fits else None

        try:
            return wait_for(f"{texts} on the screen", shown)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.screen()}") from None

    def resize(self, columns: int, rows: int) -> None:
        self.call("resize-window", "-x", str(columns), "-y", str(rows))

    def is_plain(self) -> bool:
        """The terminal is as a shell wants it: first screen, cursor shown, no mouse."""
        flags = self.call(
            "display-message", "-p", "#{alternate_on} #{cursor_flag} #{mouse_any_flag} #{bracket_paste_flag}"
        )
        return flags.split()[:3] == ["0", "1", "0"]


@contextmanager
def tmux(folder: Path, cwd: Path, env: Mapping[str, str], columns: int = 100, rows: int = 30) -> Iterator[Tmux]:
    """A terminal that is gone afterwards, with all that runs in it."""
    terminal = Tmux(folder / "tmux.sock", cwd, env, columns, rows)
    try:
        yield terminal
    finally:
        terminal.call("kill-server")
        wait_for("the end of tmux", lambda: not Path(f"/proc/{terminal.pid}").exists())


class Pty:
    """The program on a terminal of its own; `data` is all that it wrote to it."""

    def __init__(self, args: list[str], cwd: Path, env: Mapping[str, str], columns: int = 100, rows: int = 30) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        os.set_blocking(self.master, False)
        self.data = b""
        self.process = subprocess.Popen(
            args, cwd=cwd, env=dict(env), stdin=slave, stdout=slave, stderr=slave, start_new_session=True
        )
        os.close(slave)

    def read(self) -> bytes:
        try:
            while part := os.read(self.master, 1 << 16):
                self.data += part
        except OSError:  # nothing now, or nothing any more
            pass
        return self.data

    def sees(self, text: bytes) -> None:
        wait_for(f"{text!r} on the terminal, had {self.read()[-2000:]!r}", lambda: text in self.read(), 30)

    def writes(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def ended(self) -> int:
        """Its exit code, once it has one; what it writes is read meanwhile."""

        def code() -> int | None:
            self.read()
            return None if self.process.poll() is None else self.process.returncode + 1000

        return wait_for("the end of the program", code, 30) - 1000

    def hang_up(self) -> None:
        """The terminal is gone."""
        os.close(self.master)
        self.master = -1

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self.master >= 0:
            os.close(self.master)


@contextmanager
def on_pty(args: list[str], cwd: Path, env: Mapping[str, str]) -> Iterator[Pty]:
    """The program on a terminal, ended afterwards."""
    terminal = Pty(args, cwd, env)
    try:
        yield terminal
    finally:
        terminal.close()


def colours(data: bytes) -> set[str]:
    """Parameters of all SGR sequences."""
    return {match[1].decode() for match in SGR.finditer(data)}
