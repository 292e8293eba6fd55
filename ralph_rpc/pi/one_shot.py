"""For `--backend print`: a pi that holds a session, made of many that do not. Carried in the command line, as the far guard is.

Speaks RPC as far as the runner does: each `prompt` starts one `pi -p --mode json`, which gets the prompt on its stdin, and
whose lines are passed on. What needs a living session (steer, follow_up) is refused, so that it heads the next prompt. A pi
that ends before its first event has not taken the prompt, and its words are the refusal; one that dies in the middle
ends this program in the same way. Nothing is kept on disk. Standard library only, Python 3.8 or newer.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SETTLED = b'{"type":"agent_settled"'
END = b'{"type":"agent_end"'
TAIL = 4096
"""Bytes of stderr that a refusal may quote."""


def write(data: bytes) -> None:
    """All of it to stdout."""
    while data:
        data = data[os.write(1, data) :]


def model_of(argv: list[str]) -> dict[str, Any]:
    """The model as the options name it: pi itself is asked by no prompt."""
    found = {"id": "as pi has it", "provider": "pi"}
    for flag, key in (("--model", "id"), ("--provider", "provider")):
        if flag in argv[:-1]:
            found[key] = argv[argv.index(flag) + 1]
    return found


class OneShot:
    """The requests of the runner, and the pi that runs."""

    def __init__(self, argv: list[str]) -> None:
        self.argv = argv
        self.pi: subprocess.Popen[bytes] | None = None
        self.prompt: dict[str, Any] | None = None
        """The request that pi has not taken yet."""
        self.requests, self.lines, self.errors = b"", b"", b""
        self.settled, self.ended, self.aborted = b"", False, False
        self.session: str | None = None
        self.waiting: dict[str, Any] | None = None
        """A prompt that came while the last pi was leaving."""

    def answer(self, request: dict[str, Any], error: str = "", **data: Any) -> None:
        told: dict[str, Any] = {"type": "response", "command": request["type"], "success": not error}
        if "id" in request:
            told["id"] = request["id"]
        told.update({"error": error} if error else {"data": data})
        write(json.dumps(told).encode() + b"\n")

    def hear(self, request: dict[str, Any]) -> None:
        """One request."""
        kind = request.get("type")
        if kind == "prompt" and self.pi is not None:
            self.waiting = request
        elif kind == "prompt":
            self.begin(request)
        elif kind == "get_state":
            self.answer(request, model=model_of(self.argv), isStreaming=self.pi is not None, isCompacting=False)
        elif kind == "get_session_stats":
            self.answer(request, **({} if self.session is None else {"sessionId": self.session}))
        elif kind in ("new_session", "clear_queue"):
            self.answer(request, cancelled=False)
        elif kind == "abort":
            self.aborted = True
            if self.pi is not None:
                self.pi.terminate()
            self.answer(request)
        elif "id" in request:
            self.answer(request, f"a one-shot pi (--backend print) knows no {kind} while it works")

    def begin(self, request: dict[str, Any]) -> None:
        """One pi for one prompt."""
        self.prompt, self.lines, self.errors = request, b"", b""
        self.settled, self.ended, self.aborted = b"", False, False
        try:
            self.pi = subprocess.Popen(self.argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        except OSError as error:
            self.answer(request, f"pi cannot be started: {error}")
            return
        assert self.pi.stdin is not None
        try:
            self.pi.stdin.write(request.get("message", "").encode("utf-8", "surrogatepass"))
            self.pi.stdin.close()
        except OSError:
            pass  # it has ended already

    def take(self, data: bytes) -> None:
        """What pi wrote: whole lines are passed on, and its word that it has settled waits until it is gone."""
        lines = (self.lines + data).split(b"\n")
        self.lines = lines.pop()
        for line in lines:
            if line.startswith(b'{"type":"session"'):
                try:
                    self.session = json.loads(line).get("id")
                except ValueError:
                    pass
            elif self.prompt is not None and line:
                self.answer(self.prompt)
                self.prompt = None
            if line.startswith(SETTLED):
                self.settled = line + b"\n"
                continue
            self.ended = self.ended or line.startswith(END)
            write(line + b"\n")

    def over(self) -> None:
        """pi is gone."""
        assert self.pi is not None
        code = self.pi.wait()
        self.pi = None
        if self.lines:
            self.take(b"\n")
        if self.prompt is not None and not self.aborted:
            words = " ".join(self.errors.decode("utf-8", "replace").split())[-1000:]
            self.answer(self.prompt, words or f"pi ended with exit code {code} before its first event")
            self.prompt = None
        elif not self.ended and not self.aborted:
            leave(code)
        else:
            if self.prompt is not None:
                self.answer(self.prompt)
                self.prompt = None
            if not self.ended:
                write(END + b',"messages":[]}\n')
            write(self.settled or SETTLED + b"}\n")
        if self.waiting is not None:
            request, self.waiting = self.waiting, None
            self.begin(request)

    def run(self) -> None:
        """Until the runner has closed its end."""
        while True:
            streams: list[Any] = [0]
            if self.pi is not None:
                streams += [stream for stream in (self.pi.stdout, self.pi.stderr) if stream and not stream.closed]
                if len(streams) == 1:
                    self.over()
                    continue
            for one in select.select(streams, [], [])[0]:
                data = os.read(one if one == 0 else one.fileno(), 65536)
                if one == 0 and not data:
                    return
                if one == 0:
                    *whole, self.requests = (self.requests + data).split(b"\n")
                    for line in whole:
                        if line.strip():
                            self.hear(json.loads(line))
                elif not data:
                    one.close()
                elif self.pi is not None and one is self.pi.stdout:
                    self.take(data)
                else:
                    self.errors = (self.errors + data)[-TAIL:]
                    os.write(2, data)


def leave(code: int) -> None:
    """As pi did."""
    if code >= 0:
        sys.exit(code or 1)
    if -code not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)


def main() -> None:
    """Be a session for the one-shot pi on the command line."""
    one = OneShot(sys.argv[2:])
    try:
        one.run()
    finally:
        if one.pi is not None:
            one.pi.terminate()
            one.pi.wait()


if __name__ == "__main__":
    main()
