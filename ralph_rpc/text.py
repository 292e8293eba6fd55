"""Text as a terminal may see it: made inert, short, and coloured only where that is wanted.

Everything that came from a model, a file, a ticket or another program passes through `inert` before it is
shown, otherwise it could move the cursor, set the clipboard or turn the line around. Used by every command
that prints; it reads the environment for colours and does nothing else outside itself.
"""

import os
import re
import unicodedata
from typing import Any, Literal, TextIO

# C0 but TAB and LF, DEL, C1, bidi controls and marks, line and paragraph separators, lone surrogates.
_ACTIVE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)

Style = Literal["dim", "bold", "red", "green", "yellow", "cyan"]
_SGR: dict[Style, str] = {"dim": "2", "bold": "1", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}


def inert(text: str, keep_newlines: bool = True) -> str:
    """The text with every active character replaced by a visible one; TAB and LF stay.

    C0 and DEL become control pictures (ESC is shown as `␛`), all others a Python-like escape (`\\x9b`,
    `\\u202e`). Without `keep_newlines` the result is one line: LF is shown as `␊`, TAB becomes a space.
    """
    if text.isprintable():  # then nothing in it is active
        return text
    text = _ACTIVE.sub(_visible, text)
    return text if keep_newlines else text.replace("\n", "␊").replace("\t", " ")


def inert_json(text: str) -> str:
    """JSON text with every active character as a `\\u` escape: the same value, harmless to print.

    Valid JSON has such characters only within strings (but for CR between tokens, which our files lack).
    """
    return _ACTIVE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _visible(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "␡"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def line_of(text: str, limit: int) -> str:
    """One inert line of at most `limit` columns: the first that is not blank, `…` where more was cut."""
    first = ""
    lines = 0
    for line in text[: 64 * limit].split("\n"):
        if line.strip():
            first = first or line.strip()
            lines += 1
    more = lines > 1 or len(text) > 64 * limit
    return clip(inert(first, keep_newlines=False) + (" …" if more and first else ""), limit)


def clip(text: str, limit: int) -> str:
    """The text cut to `limit` terminal columns, with `…` in the last one where it was longer."""
    if len(text) <= limit and text.isascii():
        return text
    columns = 0
    fits = 0
    for index, char in enumerate(text):
        columns += char_width(char)
        if columns > limit:
            return text[:fits] + "…" if limit > 0 else ""
        if columns < limit:
            fits = index + 1
    return text


def clip_start(text: str, limit: int) -> str:
    """As `clip`, but the end is kept: of a path it says more."""
    if width(text) <= limit:
        return text
    kept = clip(text[::-1], limit)
    return "…" + kept[:-1][::-1] if kept else ""


def char_width(char: str) -> int:
    """Terminal columns of one character: 0, 1 or 2."""
    if unicodedata.combining(char) or unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def width(text: str) -> int:
    """Terminal columns of a text without control characters."""
    return len(text) if text.isascii() else sum(map(char_width, text))


def pad(text: str, columns: int, right: bool = False) -> str:
    """The text filled with spaces to `columns`; `right` puts them before it."""
    fill = " " * (columns - width(text))
    return fill + text if right else text + fill


def duration(ms: float) -> str:
    """`2d03h`, `1h02m`, `3m12s`, `4.2s`, `21ms`; nothing negative."""
    ms = max(ms, 0)
    if ms < 1_000:
        return f"{int(ms)}ms"
    if ms < 59_950:
        return f"{ms / 1000:.1f}s"
    seconds = round(ms / 1000)
    if seconds < 3_600:
        return f"{seconds // 60}m{seconds % 60:02}s"
    minutes = seconds // 60
    if minutes < 24 * 60:
        return f"{minutes // 60}h{minutes % 60:02}m"
    hours = minutes // 60
    return f"{hours // 24}d{hours % 24:02}h"


def ago(ms: float) -> str:
    """How long ago in one coarse unit: `now`, `12s ago`, `3m ago`, `5h ago`, `9d ago`."""
    seconds = int(ms / 1000)
    if seconds < 2:
        return "now"
    for unit, size, upto in (("s", 1, 60), ("m", 60, 3_600), ("h", 3_600, 86_400)):
        if seconds < upto:
            return f"{seconds // size}{unit} ago"
    return f"{seconds // 86_400}d ago"


def money(usd: float) -> str:
    """`$1.23`; under a cent four decimals, so that a cheap model does not look free."""
    return f"${usd:.4f}" if 0 < abs(usd) < 0.01 else f"${usd:,.2f}"


def count(number: float) -> str:
    """`950`, `12.3k`, `4.5M`."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(number) >= size * 0.99995:
            return f"{number / size:.1f}{unit}"
    return str(int(number))


def number(value: Any) -> float:
    """A finite number from a file that may hold anything; 0 for what is none."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e15:
        return value
    return 0


def wants_colour(stream: TextIO) -> bool:
    """Colours only on a terminal, never with NO_COLOR (no-color.org: set and not empty) or TERM=dumb."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def paint(text: str, style: Style, colour: bool) -> str:
    """The text in a style, where `colour` says so; `text` is inert already."""
    return f"\x1b[{_SGR[style]}m{text}\x1b[0m" if colour and text else text
