"""What a test and the core said to each other, for the report of a test that fails (`conftest.py` shows it).

`talk.py` and `ticket_talk.py` begin a transcript with every core that they make, and note each step in it.
"""

from collections import deque
from collections.abc import Sequence

LONGEST = 300
"""Characters of one input or effect; a prompt is longer."""


class Transcript:
    """One core's conversation. Inputs and effects are values, so they are kept as they are and written out at need."""

    def __init__(self) -> None:
        self._inputs: list[tuple[int, object]] = []
        self._effects: list[Sequence[object]] = []

    def heard(self, mono: int, event: object) -> None:
        """The core gets an input at this time, in monotonic milliseconds; noted before the step, which may fail."""
        self._inputs.append((mono, event))

    def asked(self, effects: Sequence[object]) -> None:
        """What the core asked for then."""
        self._effects.append(effects)

    def text(self) -> str:
        """One line for each input, and below it one for each effect; times in seconds since the first input."""
        start = self._inputs[0][0] if self._inputs else 0
        lines: list[str] = []
        for n, (mono, event) in enumerate(self._inputs):
            lines.append(f"{(mono - start) / 1000:9.3f} s > {_short(event)}")
            lines += [
                f"            < {_short(effect)}" for effect in (self._effects[n] if n < len(self._effects) else ())
            ]
        return "\n".join(lines)


latest: deque[Transcript] = deque(maxlen=4)
"""Of the test that runs, or ran last; the newest is the last."""


def begin() -> Transcript:
    """A conversation begins."""
    transcript = Transcript()
    latest.append(transcript)
    return transcript


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
