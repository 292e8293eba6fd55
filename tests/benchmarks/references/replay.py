"""Stands for pi: writes a recorded stream to stdout, from the moment at which it is told to.

    replay.py GO STREAM [PER_SECOND] [pi's own arguments]

GO is a FIFO; whoever opens it for writing finds the writer ready, and a byte starts it. Writes 64 KiB at a time, what
a pipe holds; with PER_SECOND above 0 line by line, so many a second. Given `--mode rpc` it first answers one
`get_state`, as clients ask for a sign of life, and to `--version` it says one.
"""

import contextlib
import json
import mmap
import os
import sys
import time
from pathlib import Path

PIECE = 65_536
STATE = {"sessionId": "0", "isStreaming": False, "isCompacting": False, "pendingMessageCount": 0}


def main() -> None:
    go, stream, arguments = sys.argv[1], sys.argv[2], sys.argv[3:]
    if "--version" in arguments:
        print("1.4.0")
        return
    if "answer" in arguments:
        asked = json.loads(sys.stdin.readline())
        answer = {"id": asked["id"], "type": "response", "command": asked["type"], "success": True}
        os.write(1, json.dumps(answer | {"data": STATE}).encode() + b"\n")
    pace = float(arguments[0]) if arguments and arguments[0].isdigit() else 0.0
    with Path(stream).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        content.madvise(mmap.MADV_WILLNEED)
        fifo = os.open(go, os.O_RDONLY)
        if not os.read(fifo, 1):
            return
        # A reader that is ended before the stream is has its reasons.
        with contextlib.suppress(BrokenPipeError):
            if pace:
                _write_lines(content, pace)
            else:
                _write_all(content)


def _write_all(content: mmap.mmap) -> None:
    with memoryview(content) as view:
        for at in range(0, len(view), PIECE):
            piece = view[at : at + PIECE]
            while piece:
                piece = piece[os.write(1, piece) :]


def _write_lines(content: mmap.mmap, pace: float) -> None:
    began = time.monotonic()
    number = 0
    while line := content.readline():
        number += 1
        time.sleep(max(0.0, began + number / pace - time.monotonic()))
        os.write(1, line)


if __name__ == "__main__":
    main()
