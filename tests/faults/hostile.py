"""Values and texts that somebody may leave in a file of ours: broken, absurd, or made to be shown on a terminal."""

import json
import random
from collections.abc import Iterator
from typing import Any

ACTIVE = (
    "\x00",
    "\x07",
    "\x08",
    "\x0d",
    "\x1b",
    "\x7f",
    "\x85",
    "\x90",
    "\x9b",
    "\x9d",
    "\u200e",
    "\u202e",
    "\u2066",
    "\u2028",
    "\u061c",
    "\x1b]52;c;cm0gLXJm\x07",
    "\x1b[2J",
    "\x1b]0;title\x1b\\",
    "\x1b[31m",
    "\x9b31m",
    "\x1bPq\x1b\\",
    "\u2069",
)
"""ESC, C1, OSC 52, bidi and what else makes a terminal act."""
PLAIN = (
    "",
    " ",
    "\n",
    "\t",
    "word",
    "two words",
    "naïve",
    "漢字",
    "🙂",
    "/",
    "..",
    "-",
    "x" * 300,
    "<promise>COMPLETE</promise>",
)
NUMBERS = (0, -1, 1, 2, 2**31, 2**53, 2**63 - 1, -(2**63), 0.5, -0.0, 1e-300, 1e308, -1e308, 10**15)

NOTHING: tuple[bytes, ...] = (
    b"",
    b" ",
    b"\n",
    b"\0" * 50,
    b"null",
    b"true",
    b"1",
    b'"text"',
    b"[]",
    b"[1]",
    b"{",
    b"}",
    b'{"a":',
    b"{'a': 1}",
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b"{" + b" " * 100_000,
    b"\xff\xfe",
    b'\xef\xbb\xbf{"a": 1}',
    '{"a": 1}'.encode("utf-16"),
    b'{"a": "\xff"}',
    b'{"a": "\xed\xa0\x80"}',
    b'{"a": "\\ud800"}',
    b'{"a": NaN}',
    b'{"a": Infinity}',
    b'{"a": 1e999}',
    b'{"a": ' + b"9" * 5_000 + b"}",
    b'{"a": 1} {"a": 1}',
    b'{"a": 1,}',
    b"\x1b]0;title\x07",
    "\u202e{}".encode(),
)
"""What is no JSON object at all, or none that every reader understands alike."""


def text(rng: random.Random) -> str:
    """A text with something active in it, most of the time."""
    return "".join(rng.choice(ACTIVE if rng.random() < 0.5 else PLAIN) for _ in range(rng.randint(1, 6)))


def absurd(rng: random.Random, like: object) -> object:
    """A value of the same type as `like`, beyond all sense."""
    if isinstance(like, bool):
        return rng.random() < 0.5
    if isinstance(like, str):
        # A path keeps its end: it is by its last parts that it is believed.
        head, _, tail = like.rpartition("/.ralph/")
        return f"{head}/{text(rng)}/.ralph/{tail}" if head and rng.random() < 0.7 else text(rng)
    if isinstance(like, int):
        return rng.choice([n for n in NUMBERS if isinstance(n, int)])
    if isinstance(like, float):
        return rng.choice(NUMBERS)
    if isinstance(like, list):
        return [absurd(rng, one) for one in like for _ in range(rng.randint(0, 3))] or [text(rng)] * rng.randint(0, 2)
    if isinstance(like, dict):
        return {key: absurd(rng, one) for key, one in like.items()}
    return like


def other(rng: random.Random) -> object:
    """A value of any type."""
    return rng.choice([None, True, [], {}, [[]], {"a": {}}, text(rng), rng.choice(NUMBERS), "running", 10**30])


def mutant(rng: random.Random, whole: dict[str, Any], right_types: bool = False) -> bytes:
    """The JSON of an object with some members absurd, and unless `right_types` perhaps wrong, gone, or bytes broken."""
    value = dict(whole)
    for key in rng.sample(sorted(value), rng.randint(1, 4)):
        how = 0 if right_types else rng.randint(0, 3)
        if how == 3:
            del value[key]
        else:
            value[key] = absurd(rng, value[key]) if how < 2 else other(rng)
    data = json.dumps(value, ensure_ascii=rng.random() < 0.3, allow_nan=False).encode("utf-8", "surrogatepass")
    if right_types or rng.random() < 0.6:
        return data
    broken = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        at = rng.randint(0, len(broken))
        match rng.randint(0, 3):
            case 0:
                broken[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                del broken[at:]
                broken += b"}"
            case 2:
                broken[at:at] = rng.choice(NOTHING)[:50]
            case _:
                del broken[at : at + rng.randint(1, 20)]
    return bytes(broken)


def mutants(seed: int, count: int, whole: dict[str, Any]) -> Iterator[bytes]:
    """`count` contents of a file that should hold `whole`: the corpus first, then mutants."""
    rng = random.Random(seed)
    for n in range(count):
        yield NOTHING[n] if n < len(NOTHING) else mutant(rng, whole)
