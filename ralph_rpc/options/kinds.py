"""The kinds of values that options take, each with its parser from text.

Used by the table of options. Every value arrives as text (command line, environment, most of TOML); a relative path
is resolved against a folder that the caller names. Pure but for the files that a value points at.
"""

import os
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args
from urllib.parse import urlsplit

import orjson

from ralph_rpc.errors import UsageError
from ralph_rpc.files.text import read_text
from ralph_rpc.model.config import Thinking

LARGEST = 10**15
"""Stays an exact number in every JSON reader."""
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_THOUSANDS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}
_BYTES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_YES, _NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


class Wrong(ValueError):
    """A value that does not fit an option; the text says why, without naming the option."""


@dataclass(frozen=True)
class Kind:
    """What an option takes. `parse(text, folder)` resolves relative paths against the folder."""

    metavar: str
    parse: Callable[[str, Path], object]
    toml: tuple[type, ...] = (str,)
    """The TOML types that it may be written in."""
    expects: str = "expected quoted text"
    """The complaint when the TOML type is wrong."""


def _scaled(text: str, units: Mapping[str, int], example: str) -> int:
    match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,9})?)([a-z]?)", text.strip().lower())
    if match is None or match[2] not in units:
        raise Wrong(f"expected {example}, not {text!r}")
    return _bounded(round(float(match[1]) * units[match[2]]), text)


def _bounded(value: int, text: str) -> int:
    if value > LARGEST:
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


def _notify(text: str, folder: Path) -> str:
    """A command; or an address, of which no complaint repeats more than the kind: it can be a secret."""
    kind = next((kind for kind in ("ntfy:", "webhook:") if text.strip().startswith(kind)), None)
    if kind is None:
        return _text(text, folder)
    address = text.strip().removeprefix(kind)
    if not _is_address(address, with_path=kind == "ntfy:"):
        raise Wrong(f"expected {kind}https://HOST/{'TOPIC' if kind == 'ntfy:' else '…'}")
    return kind + address


def _is_address(text: str, with_path: bool) -> bool:
    if re.search(r"[\s\x00-\x1f\x7f]", text):
        return False
    try:
        parts = urlsplit(text)
        parts.port  # noqa: B018 - raises for what is no number
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and (not with_path or bool(parts.path.strip("/")))


def _thinking(text: str, _folder: Path) -> str:
    levels = get_args(Thinking)
    if text not in levels:
        raise Wrong(f"expected one of {', '.join(levels)}, not {text!r}")
    return text


def _whole(text: str, _folder: Path) -> int:
    if not re.fullmatch(r"\d{1,9}", text.strip()):
        raise Wrong(f"expected a whole number, 0 or more, not {text!r}")
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
        raise Wrong(f"expected a duration such as 30s, 10m, 2h or 1d (a plain number is seconds), not {text!r}")
    return _bounded(round(sum(float(number) * _SECONDS[unit] for number, unit in parts) * 1000), text)


def _limit(text: str, folder: Path) -> int | None:
    return _duration(text, folder) or None


def _lease(text: str, folder: Path) -> int:
    lease = _duration(text, folder)
    if not 4_000 <= lease <= 3_600_000:
        raise Wrong(f"expected a time from 4s to 1h, not {text!r}")
    return lease


def _memory(text: str, _folder: Path) -> int:
    return _scaled(re.sub(r"(?i)(?<=[kmg])i?b$", "", text.strip()), _BYTES, "a size such as 100M")


def _size(text: str, folder: Path) -> int:
    size = _memory(text, folder)
    if size == 0:
        raise Wrong("must be more than 0")
    return size


def _path(text: str, folder: Path) -> Path:
    if not text.strip() or "\0" in text:
        raise Wrong("must not be empty")
    # normpath, not resolve: a link that names the current version of something stays a link.
    return Path(os.path.normpath(folder / Path(text).expanduser()))


def _folder(text: str, folder: Path) -> str:
    path = _path(text, folder)
    if path.exists() and not path.is_dir():
        raise Wrong(f"{str(path)!r} is not a folder")
    return str(path)


def _existing(text: str, folder: Path) -> str:
    path = _path(text, folder)
    if not path.exists():
        raise Wrong(f"there is no {str(path)!r}")
    return str(path)


def _program(text: str, folder: Path) -> list[str]:
    # A bare name is looked up on PATH when pi is located.
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
        raise Wrong(f"{must} an object that maps each dialog's title to a text, true or false")
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


def _model(text: str, folder: Path) -> str:
    provider, slash, id = _line(text, folder).partition("/")
    if not (provider.strip() and slash and id.strip()) or " " in text.strip():
        raise Wrong(f"expected PROVIDER/ID such as anthropic/claude-sonnet-4-5, not {text!r}")
    return text.strip()


def _hosts(text: str, _folder: Path) -> str:
    # Imported here: the everyday commands have the table of options, too.
    from ralph_rpc.launchers.hosts import parse_hosts

    try:
        return ",".join(f"{host}:{slots}" for host, slots in parse_hosts(text.split(",")).items())
    except ValueError as error:
        raise Wrong(str(error)) from None


def _backend(text: str, _folder: Path) -> str:
    if text.strip() not in ("rpc", "print"):
        raise Wrong(f"expected rpc or print, not {text!r}")
    return text.strip()


def _launcher(text: str, folder: Path) -> str:
    # Imported here: the everyday commands have the table of options, too.
    from ralph_rpc.launchers import presets

    try:
        presets.parse(_line(text, folder))
    except ValueError as error:
        raise Wrong(str(error)) from None
    return text.strip()


def _engine(text: str, folder: Path) -> str:
    # Imported here: the everyday commands have the table of options, too.
    from ralph_rpc.launchers import engines

    try:
        return engines.text(engines.parse(_line(text, folder)))
    except ValueError as error:
        raise Wrong(str(error)) from None


def _variables(text: str, _folder: Path) -> str:
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise Wrong(f"expected names of variables such as ANTHROPIC_API_KEY, not {name!r}")
    return ",".join(names)


LINE = Kind("TEXT", _line)
COMMAND = Kind("CMD", _text)
NOTIFY = Kind("CMD", _notify)
THINKING = Kind("LEVEL", _thinking)
WHOLE = Kind("N", _whole, (int, str), "expected a whole number")
COUNT = Kind("N", _count, (int, str), "expected a whole number, 1 or more")
NAMES = Kind("TEXT", _line, (list,), "expected a list of quoted texts")
LABELS = Kind("TEXT", _line, (list,), "expected a list of quoted names")
"""Names that may hold colons."""
MODELS = Kind("PROVIDER/ID", _model, (list,), 'expected a list of quoted texts such as "openai/gpt-5"')
MONEY = Kind("USD", _money, (int, float, str), "expected US dollars such as 2.50")
TOKENS = Kind("N", _tokens, (int, str), 'expected a number of tokens such as 2000000 or "2M"')
DURATION = Kind("TIME", _duration, (int, float, str), 'expected seconds or a text such as "10m"')
LEASE = Kind("TIME", _lease, (int, float, str), 'expected seconds or a text such as "1m"')
LIMIT = Kind("TIME", _limit, (int, float, str), 'expected seconds or a text such as "10m"')
SIZE = Kind("SIZE", _size, (int, str), 'expected bytes or a text such as "100M"')
MEMORY = Kind("SIZE", _memory, (int, str), 'expected bytes or a text such as "1G"')
HOSTS = Kind("HOST:N,...", _hosts, (list,), 'expected a list of quoted texts such as "worker1:4"')
BACKEND = Kind("rpc|print", _backend)
LAUNCHER = Kind("LAUNCHER", _launcher)
ENGINE = Kind("ENGINE", _engine)
VARIABLES = Kind("NAMES", _variables, (list,), 'expected a list of quoted names such as "ANTHROPIC_API_KEY"')
PATHS = Kind("PATH", _existing, (list,), "expected a list of quoted paths")
FOLDER = Kind("DIR", _folder)
PROGRAM = Kind("PATH", _program)
FILE = Kind("FILE", _contents)
ANSWERS = Kind("FILE.json", _answers, (str, dict), "expected the name of a JSON file, or a table")
ARGUMENTS = Kind("ARGS", _arguments, (list,), "expected a list of quoted arguments")
BOOLEAN = Kind("", _boolean, (bool,), "expected true or false")
