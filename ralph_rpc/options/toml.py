"""Options from TOML files, each with the line that gives it.

A file is checked as a whole, even where its values do not count. Reads files, writes none.
"""

import difflib
import errno
import re
import tomllib
from pathlib import Path
from typing import Any, cast

from ralph_rpc.errors import UsageError
from ralph_rpc.files.atomic import read_plain
from ralph_rpc.files.text import LARGEST_FILE
from ralph_rpc.options.kinds import ARGUMENTS, BOOLEAN, Wrong, checked_answers
from ralph_rpc.options.table import BY_NAME, Option

Sourced = dict[str, tuple[Any, str]]
"""Option name -> value, origin."""


def user_config_file() -> Path:
    """The user's own defaults for every project."""
    import platformdirs

    return Path(platformdirs.user_config_dir("ralph-rpc")) / "config.toml"


def read_toml(path: Path, project: Path | None = None) -> Sourced:
    """One TOML file, all of it checked. Relative paths are resolved against the project, or the file's folder."""
    return parsed_toml(path, toml_bytes(path, project), project)


def toml_bytes(path: Path, project: Path | None = None) -> bytes:
    """What the file holds, nothing where there is none. Raises UsageError where it cannot be read."""
    shown = shown_as(path, project)
    try:
        data = read_plain(path, LARGEST_FILE, follow=project is None)
    except (FileNotFoundError, NotADirectoryError):
        return b""
    except OSError as error:
        why = "it is a link, and links are not followed" if error.errno == errno.ELOOP else error.strerror
        raise UsageError(f"cannot read {shown}: {why}") from error
    if len(data) > LARGEST_FILE:
        raise UsageError(f"{shown} is larger than 1 MiB")
    return data


def parsed_toml(path: Path, data: bytes, project: Path | None = None) -> Sourced:
    """The options in a file that holds `data`."""
    shown = shown_as(path, project)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{shown} is not UTF-8 (byte {error.start})") from None
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{shown} {_toml_trouble(error, text)}") from None
    found: Sourced = {}
    for name, value in table.items():
        origin = f"{shown} line {_line_of(name, text)}"
        option = BY_NAME.get(name)
        if option is None:
            near = difflib.get_close_matches(name.replace("_", "-").lower(), BY_NAME, 1, 0.5)
            known = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(BY_NAME)}"
            raise UsageError(f"{origin}: unknown key {name!r}", known)
        found[name] = (value_of(option, value, project or path.parent, f"{origin}: {name}"), origin)
    return found


def shown_as(path: Path, project: Path | None) -> str:
    """The file's name in messages."""
    return str(path.relative_to(project)) if project else _short(path)


def value_of(option: Option, value: object, folder: Path, origin: str) -> Any:
    """What an option is set to by a value that has a type. UsageError, which names the origin, where it does not fit."""
    # bool is an int to Python, but max-iterations = true is a mistake.
    if not isinstance(value, option.kind.toml) or isinstance(value, bool) != (option.kind is BOOLEAN):
        raise UsageError(f"{origin}: {option.kind.expects}")
    if isinstance(value, bool):
        return value
    if isinstance(value, dict):
        try:
            return checked_answers(value, "must be")
        except Wrong as error:
            raise UsageError(f"{origin}: {error}") from None
    if isinstance(value, list):
        texts = cast(list[object], value)
        if not all(isinstance(text, str) and text and "\0" not in text for text in texts):
            raise UsageError(f"{origin}: {option.kind.expects}")
        return texts if option.kind is ARGUMENTS else option.parse(cast(list[str], texts), folder, origin)
    text = format(value, "f") if isinstance(value, float) else str(value)
    return option.parse([text], folder, origin)


def _toml_trouble(error: tomllib.TOMLDecodeError, text: str) -> str:
    match = re.fullmatch(r"(.*?) \(at (?:line (\d+), column \d+|end of document)\)", str(error), re.DOTALL)
    if match is None:
        return f"is not TOML: {error}"
    line = match[2] or len(text.rstrip().split("\n"))
    return f"line {line} is not TOML: {match[1]}"


def _line_of(name: str, text: str) -> int:
    """The line that first sets a top-level key."""
    # tomllib does not say. What looks like the key counts if the text before it parses by itself.
    lines = text.split("\n")
    key = re.compile(rf"""\s*(?:\[+\s*)?(?:"{re.escape(name)}"|'{re.escape(name)}'|{re.escape(name)})\s*[=.\]]""")
    for number, line in enumerate(lines, 1):
        if key.match(line):
            try:
                if name not in tomllib.loads("\n".join(lines[: number - 1])):
                    return number
            except tomllib.TOMLDecodeError:
                continue  # inside a multi-line text
    return 1


def _short(path: Path) -> str:
    try:
        return str(Path("~") / path.relative_to(Path.home()))
    except ValueError:
        return str(path)
