"""The scripted fake pi, watched: what its model was shown, and whether another pi or its tree was still there.

Started as fake_pi.py is, by `lives.py`; every prompt gets the script's first behaviour. It appends to the file
WITNESS, one JSON object a line, each on disk before pi says the same to the runner, so that no death of pi or of
the runner hides it:

    {"start": pid, "overlap": another pi holds its lock, "left": processes with WITNESS_TOKEN in their command lines}
    {"saw": [words of the user messages that the model begins to answer], "again": [those of them that the journal
     calls delivered already]}
"""

import fcntl
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.fake_pi import fake_pi

FILE = Path(os.environ["WITNESS"])
WORD = re.compile(r"\bword-[0-9]+\b")
UNANSWERED = ("error", "aborted")


def note(**members: Any) -> None:
    with FILE.open("ab", buffering=0) as file:
        file.write(json.dumps(members).encode() + b"\n")


def left(token: str) -> list[int]:
    found: list[int] = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if token.encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def is_alone() -> bool:
    """Takes a lock that this process holds until it dies; nothing inherits it."""
    fd = os.open(f"{FILE}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def delivered() -> set[str]:
    """Commands with a receipt; their ids are their words."""
    found: set[str] = set()
    for line in Path(os.environ["RALPH_LOOP_DIR"], "commands.jsonl").read_bytes().split(b"\n")[:-1]:
        if b'"delivered"' in line:
            found.add(json.loads(line)["id"])
    return found


class Witness(fake_pi.FakePi):
    seen = 0

    def new_session(self) -> None:
        super().new_session()
        self.seen = 0

    def assistant(
        self, parts: list[dict[str, Any]], stop: str, error: str = "", step: dict[str, Any] | None = None
    ) -> bool:
        if stop not in UNANSWERED:
            texts = [m["content"][0]["text"] for m in self.messages[self.seen :] if m["role"] == "user"]
            self.seen = len(self.messages)
            words = WORD.findall(" ".join(texts))
            if words:
                note(saw=words, again=sorted(delivered() & set(words)))
        return super().assistant(parts, stop, error, step)


def main() -> None:
    if "--version" in sys.argv:
        fake_pi.main()
        return
    note(start=os.getpid(), overlap=not is_alone(), left=left(os.environ["WITNESS_TOKEN"]))
    script = json.loads(Path(os.environ["FAKE_PI_SCRIPT"]).read_text())
    Witness(script, None, os.environ.get("FAKE_PI_GENERATION") == "old").serve()


if __name__ == "__main__":
    main()
