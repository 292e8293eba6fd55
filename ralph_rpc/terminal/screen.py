"""What a stream can show: how wide its terminal is, and text written to it whatever its encoding."""

import codecs
import os
from io import TextIOWrapper
from typing import TextIO

_ESCAPED = "escaped as JSON"


def columns_of(stream: TextIO) -> int | None:
    """The width of the terminal that the stream is; None for a file, a pipe, or a terminal that does not say."""
    try:
        return os.get_terminal_size(stream.fileno()).columns if stream.isatty() else None
    except (OSError, ValueError):
        return None


def show_in_any_encoding(*streams: TextIO) -> None:
    """From now on a character that a stream's encoding lacks is written as JSON escapes it, and ends no program."""
    codecs.register_error(_ESCAPED, _escaped)
    for stream in streams:
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors=_ESCAPED)


def _escaped(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    pairs = zip(units[::2], units[1::2], strict=True)
    return "".join(f"\\u{high:02x}{low:02x}" for high, low in pairs), error.end


def write_text(stream: TextIO, text: str) -> None:
    """Writes and flushes. A stream that is not UTF-8 gets question marks instead of an exception."""
    encoding = stream.encoding or "utf-8"
    stream.write(text.encode(encoding, "replace").decode(encoding))
    stream.flush()
