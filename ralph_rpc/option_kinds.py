"""What an option can be: the kinds of values, each with its parser from text.

Used by the table in options.py. Every value arrives as text (command line, environment, most of TOML); a
relative path counts from a folder that the caller names. Pure but for the files that a value points at.
"""

import os
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args

import orjson

from ralph_rpc.errors import UsageError
from ralph_rpc.model.config import Thinking

LARGEST_FILE = 1 << 20
_LARGEST = 10**15  # stays an exact number in every JSON reader
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_THOUSANDS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}
_BYTES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_YES, _NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


class Wrong(ValueError):
    """A value that an option cannot take; the text says why, without naming the option."""


@dataclass(frozen=True)
class Kind:
    """What an option takes. `parse(text, folder)` resolves relative paths against the folder."""

    metavar: str
    parse: Callable[[str, Path], object]
    toml: tuple[type, ...] = (str,)
    """The TOML types that mean the same as the text."""
    expects: str = "expected text in quotes"
    """Said when the TOML type is wrong."""


def _scaled(text: str, units: Mapping[str, int], example: str) -> int:
    match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,9})?)([a-z]?)", text.strip().lower())
    if match is None or match[2] not in units:
        raise Wrong(f"expected {example}, not {text!r}")
    return _bounded(round(float(match[1]) * units[match[2]]), text)


def _bounded(value: int, text: str) -> int:
    if value > _LARGEST:
        raise Wrong(f"{text!r} is too large")
    return value


def _line(text: str, _folder: Path) -> str:
    if not text.strip():
        raise Wrong("must not be empty")
    if any(ord(char) < 32 or ord(char) == 127 for char in text.strip()):
        raise Wrong("must be one line without control characters")
    return text.strip()


def _text(text: str, _folder: Path) -> str:
    if not text.strip() or "\0" in text:
        raise Wrong("must not be empty")
    return text


def _thinking(text: str, _folder: Path) -> str:
    levels = get_args(Thinking)
    if text not in levels:
        raise Wrong(f"expected one of {', '.join(levels)}, not {text!r}")
    return text


def _whole(text: str, _folder: Path) -> int:
    if not re.fullmatch(r"\d{1,9}", text.strip()):
        raise Wrong(f"expected a whole number from 0 on, not {text!r}")
    return int(text)


def _count(text: str, folder: Path) -> int:
    count = _whole(text, folder)
    if count == 0:
        raise Wrong("must be at least 1")
    return count


def _money(text: str, _folder: Path) -> float | None:
    if not re.fullmatch(r"\$?\d{1,9}(\.\d+)?", text.strip()):
        raise Wrong(f"expected US dollars such as 2.50, not {text!r}")
    return float(text.strip().lstrip("$")) or None


def _tokens(text: str, _folder: Path) -> int | None:
    return _scaled(text, _THOUSANDS, "a number of tokens such as 500k or 2M") or None


def _duration(text: str, _folder: Path) -> int:
    plain = text.strip().lower()
    if re.fullmatch(r"\d{1,12}(\.\d{1,9})?", plain):
        return _bounded(round(float(plain) * 1000), text)
    parts = re.findall(r"(\d{1,12}(?:\.\d{1,9})?)([smhd])", plain)
    if not parts or "".join(number + unit for number, unit in parts) != plain:
        raise Wrong(
            f"expected a duration such as 30s, 10m, 2h or 1d (a plain number is seconds), not {text!r}"
        )
    return _bounded(round(sum(float(number) * _SECONDS[unit] for number, unit in parts) * 1000), text)


def _limit(text: str, folder: Path) -> int | None:
    return _duration(text, folder) or None


def _size(text: str, _folder: Path) -> int:
    size = _scaled(re.sub(r"(?i)(?<=[kmg])i?b$", "", text.strip()), _BYTES, "a size such as 100M")
    if size == 0:
        raise Wrong("must be more than 0")
    return size


def _path(text: str, folder: Path) -> Path:
    if not text.strip() or "\0" in text:
        raise Wrong("must not be empty")
    # normpath, not resolve: a link that names the current version of something stays a link.
    return Path(os.path.normpath(folder / Path(text).expanduser()))


def _existing(text: str, folder: Path) -> str:
    path = _path(text, folder)
    if not path.exists():
        raise Wrong(f"there is no {str(path)!r}")
    return str(path)


def _program(text: str, folder: Path) -> list[str]:
    # A bare name is looked up on PATH by whoever finds pi.
    return [str(_path(text, folder)) if os.sep in text or text.startswith("~") else _line(text, folder)]


def _contents(text: str, folder: Path) -> str:
    try:
        return read_text(_path(text, folder))
    except UsageError as error:
        raise Wrong(error.message) from None


def _answers(text: str, folder: Path) -> dict[str, str | bool]:
    path = _path(text, folder)
    try:
        value = orjson.loads(_contents(text, folder))
    except orjson.JSONDecodeError as error:
        raise Wrong(f"{str(path)!r} is not JSON: {error}") from None
    return checked_answers(value, f"{str(path)!r} must hold")


def checked_answers(value: object, must: str) -> dict[str, str | bool]:
    answers = cast(dict[str, str | bool], value)
    if not isinstance(value, dict) or not all(isinstance(answer, str | bool) for answer in answers.values()):
        raise Wrong(f"{must} an object that gives each dialog's title a text, true or false")
    return answers


def _arguments(text: str, _folder: Path) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise Wrong(f"{error}: {text!r}") from None


def _boolean(text: str, _folder: Path) -> bool:
    if text.strip().lower() not in _YES + _NO:
        raise Wrong(f"expected true or false, not {text!r}")
    return text.strip().lower() in _YES


LINE = Kind("TEXT", _line)
COMMAND = Kind("CMD", _text)
THINKING = Kind("LEVEL", _thinking)
WHOLE = Kind("N", _whole, (int, str), "expected a whole number")
COUNT = Kind("N", _count, (int, str), "expected a whole number from 1 on")
NAMES = Kind("TEXT", _line, (list,), "expected a list of texts in quotes")
MONEY = Kind("USD", _money, (int, float, str), "expected US dollars such as 2.50")
TOKENS = Kind("N", _tokens, (int, str), 'expected a number of tokens such as 2000000 or "2M"')
DURATION = Kind("TIME", _duration, (int, float, str), 'expected seconds or a text such as "10m"')
LIMIT = Kind("TIME", _limit, (int, float, str), 'expected seconds or a text such as "10m"')
SIZE = Kind("SIZE", _size, (int, str), 'expected bytes or a text such as "100M"')
PATHS = Kind("PATH", _existing, (list,), "expected a list of paths in quotes")
PROGRAM = Kind("PATH", _program)
FILE = Kind("FILE", _contents)
ANSWERS = Kind("FILE.json", _answers, (str, dict), "expected the name of a JSON file, or a table")
ARGUMENTS = Kind("ARGS", _arguments, (list,), "expected a list of arguments in quotes")
BOOLEAN = Kind("", _boolean, (bool,), "expected true or false")


def read_text(path: Path) -> str:
    """A text that a person wrote: a regular file, UTF-8, not blank, at most 1 MiB. Raises UsageError."""
    try:
        if not path.is_file():
            raise UsageError(
                f"{str(path)!r} is not a file" if path.exists() else f"there is no file {str(path)!r}"
            )
        with path.open("rb") as file:
            data = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise UsageError(f"cannot read {str(path)!r}: {error.strerror}") from error
    return decode_text(data, repr(str(path)))


def decode_text(data: bytes, what: str) -> str:
    """UTF-8 that is not blank and at most 1 MiB, with or without a BOM. Raises UsageError."""
    if len(data) > LARGEST_FILE:
        raise UsageError(f"{what} is larger than 1 MiB")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{what} is not UTF-8: byte {error.start} is 0x{data[error.start]:02x}") from None
    if not text.strip():
        raise UsageError(f"{what} is empty")
    return text
