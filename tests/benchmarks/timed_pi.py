"""The fake pi, which notes when each steer arrives and reads it at once, and which can flood its stdout.

TIMED_PI_ARRIVALS names the file that gets a line `<monotonic ns> <message>` for each steer; with TIMED_PI_FLOOD a
process of pi's tree writes so many bytes of events a second to pi's stdout, from the first prompt on; with 0, as fast as
they are taken.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.fake_pi import fake_pi

ATOMIC = 4096
"""What a pipe takes at once: so the flood never comes between the bytes of a line of pi's own (pipe(7))."""
PULSE_S = 0.002
"""What is written early before the flood rests: it comes in bursts, as pi's words do."""
DELTA = {
    "type": "message_update",
    "usage": {"input": 200, "output": 50, "cacheRead": 0, "cacheWrite": 0},
    "assistantMessageEvent": {"type": "text_delta", "contentIndex": 0, "delta": "some words of an answer "},
}


class TimedPi(fake_pi.FakePi):
    flooding = False

    def answer(self, command: str, request: fake_pi.Step) -> None:
        if command != "steer":
            if command == "prompt" and "TIMED_PI_FLOOD" in os.environ and not self.flooding:
                self.flooding = True
                subprocess.Popen([sys.executable, __file__, "flood"])
            return super().answer(command, request)
        with Path(os.environ["TIMED_PI_ARRIVALS"]).open("a") as file:
            file.write(f"{time.monotonic_ns()} {request['message']}\n")
        self.respond(request, disposition="queued")
        self.message({"role": "user", "content": [{"type": "text", "text": request["message"]}]})
        self.assistant([{"type": "text", "text": "ok"}], "toolUse")


def flood(rate: int) -> None:
    """Whole lines, until the reader is gone."""
    line = json.dumps(DELTA, separators=(",", ":")).encode() + b"\n"
    chunk = line * (ATOMIC // len(line))
    began, written = time.monotonic(), 0
    while True:
        written += os.write(1, chunk)
        if rate and (early := written / rate - (time.monotonic() - began)) > PULSE_S:
            time.sleep(early)


if __name__ == "__main__":
    if sys.argv[1:] == ["flood"]:
        flood(int(os.environ["TIMED_PI_FLOOD"]))
    fake_pi.FakePi = TimedPi  # type: ignore[misc]  # its main makes one of these
    fake_pi.main()
