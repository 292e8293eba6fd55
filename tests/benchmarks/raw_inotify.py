"""What the way from a file to a child's stdin costs at the least: inotify by ctypes, read, write. No receipt, no check.

`python raw_inotify.py FOLDER ARRIVALS`: the text of each file that is moved into FOLDER goes to the stdin of a
child, which writes `<monotonic ns> <text>` to ARRIVALS. Prints a line when it watches; ends with its stdin.
"""

import ctypes
import os
import select
import struct
import subprocess
import sys
import time
from pathlib import Path

IN_MOVED_TO = 0x80
EVENT = struct.Struct("iIII")


def child(arrivals: Path) -> None:
    with arrivals.open("a") as file:
        for line in sys.stdin:
            file.write(f"{time.monotonic_ns()} {line}")
            file.flush()


def main(folder: Path, arrivals: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    watch: int = libc.inotify_init1(os.O_CLOEXEC)
    if watch < 0 or libc.inotify_add_watch(watch, os.fsencode(folder), IN_MOVED_TO) < 0:
        raise OSError(ctypes.get_errno(), "inotify")
    reader = subprocess.Popen([sys.executable, __file__, "child", arrivals], stdin=subprocess.PIPE)
    assert reader.stdin is not None
    print("watching", flush=True)
    while True:
        ready, _, _ = select.select([watch, sys.stdin], [], [])
        if watch not in ready:
            break
        data = os.read(watch, 65_536)
        while data:
            length = EVENT.unpack_from(data)[3]
            name = data[EVENT.size : EVENT.size + length].rstrip(b"\0")
            data = data[EVENT.size + length :]
            os.write(reader.stdin.fileno(), (folder / os.fsdecode(name)).read_bytes() + b"\n")
    reader.stdin.close()
    reader.wait()


if __name__ == "__main__":
    if sys.argv[1] == "child":
        child(Path(sys.argv[2]))
    else:
        main(Path(sys.argv[1]), sys.argv[2])
