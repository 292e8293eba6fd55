"""The extension of pi that lies in `ralph_rpc/pi_extension`: installed and removed by pi itself, and seen as it is.

`ralph-rpc pi-extension` and `doctor` ask. pi's own `install` and `remove` change pi's settings; here they are read. Beside
them there is one file of ours, `$RALPH_HOME/pi-extension.json`, which tells the extension how to start this program. It is
written before pi is told, and removed after: if the machine dies in between, `install` and `remove` can be run again.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from ralph_rpc import __version__
from ralph_rpc.errors import PiUnusable, RalphError
from ralph_rpc.files.atomic import make_private_dir, write_atomic
from ralph_rpc.files.paths import registry_dir
from ralph_rpc.pi.agent_folder import agent_folder
from ralph_rpc.pi.find import Pi, aside, read_json

PACKAGE = "ralph-rpc-pi-extension"
"""Its name in package.json, by which a copy is recognised."""
FOLDER = Path(__file__).parents[1] / "pi_extension"
PI_S = 120


class Installed(NamedTuple):
    """One place from which pi would load the extension."""

    path: Path
    source: str
    """As pi's settings name it; empty for a copy in a folder that pi looks into by itself."""
    settings: Path
    """The settings, or that folder."""
    version: str | None
    """None: nothing is there any more."""

    @property
    def is_ours(self) -> bool:
        """It is the one of this program."""
        return _same(self.path, FOLDER)

    @property
    def is_package(self) -> bool:
        """pi's settings name it, so pi can remove it."""
        return self.source != ""


def installed(env: Mapping[str, str], project: Path | None = None) -> list[Installed]:
    """All places, the user's before the project's; what cannot be read is not there."""
    agent = agent_folder(env)
    places = [*_packages(agent / "settings.json"), *_copies(agent / "extensions")]
    if project is not None:
        places += [*_packages(project / ".pi/settings.json"), *_copies(project / ".pi/extensions")]
    return places


def record_path() -> Path:
    """What tells the extension how to start this program."""
    return registry_dir().parent / "pi-extension.json"


def record() -> dict[str, object] | None:
    """The record, if there is one."""
    return read_json(record_path())


def program() -> list[str]:
    """How this very program is started, from wherever it was installed."""
    return [sys.executable, "-P", "-m", "ralph_rpc"]


def install(pi: Pi, env: Mapping[str, str]) -> bool:
    """Has pi load the extension; False if it did already. What names another copy of it is removed first.

    Raises RalphError where a copy lies in pi's own folder, which would make pi fail at its start, and PiUnusable where
    pi refuses.
    """
    places = installed(env)
    for copy in places:
        if not copy.is_package:
            raise RalphError(
                f"{copy.path} is a copy of the extension; with two of them pi does not start",
                f"remove it: rm -r {copy.path}",
            )
    others = [place for place in places if not place.is_ours]
    there = len(others) < len(places)
    settings = agent_folder(env) / "settings.json"
    before = read_json(record_path()) or {}
    kept = before.get("settingsBefore") if there or others else _text(settings)
    _write_record({"command": program(), "version": __version__, "settingsBefore": kept})
    for other in others:
        _run(pi, ["remove", str(other.path)], env)
    if not there:
        _run(pi, ["install", str(FOLDER)], env)
    return not there


def remove(pi: Pi, env: Mapping[str, str]) -> bool:
    """Has pi forget the extension, wherever its settings say it is; False if there was nothing to do."""
    places = [place for place in installed(env) if place.is_package]
    kept = (record() or {}).get("settingsBefore")
    for place in places:
        _run(pi, ["remove", str(place.path)], env)
    if places:
        _without_trace(agent_folder(env) / "settings.json", kept)
    there = record_path().exists()
    record_path().unlink(missing_ok=True)
    return bool(places) or there


def _without_trace(settings: Path, before: object) -> None:
    """Gives the settings their old bytes back, where they say the same as then.

    pi writes them anew in its own format, and its `remove` leaves an empty list of packages behind. Where anything else has
    changed since, nothing is touched. Done under the lock that pi itself takes for a change; while that is held, not at all.
    """
    if not isinstance(before, str):
        return
    lock = settings.with_name(f"{settings.name}.lock")
    try:
        lock.mkdir()
    except OSError:
        return
    try:
        file = settings.resolve()  # of a link, what it points to
        was = json.loads(before.encode() or b"{}")
        if read_json(file) != {"packages": [], **was}:
            return
        if before:
            write_atomic(file, before.encode(), file.stat().st_mode & 0o777)
        else:
            file.unlink()
    except (OSError, ValueError, TypeError):
        return  # they are as pi left them
    finally:
        lock.rmdir()


def _packages(settings: Path) -> Iterator[Installed]:
    listed = (read_json(settings) or {}).get("packages")
    for entry in listed if isinstance(listed, list) else ():
        source = entry.get("source") if isinstance(entry, dict) else entry
        if not isinstance(source, str) or source.startswith(("npm:", "git:", "http:", "https:", "ssh:")):
            continue
        path = Path(os.path.normpath(settings.parent / Path(source).expanduser()))
        package = read_json(path / "package.json")
        is_gone = package is None and path.name == FOLDER.name and path.parent.name == FOLDER.parent.name
        if is_gone or (package is not None and package.get("name") == PACKAGE):
            yield Installed(path, source, settings, str(package.get("version")) if package else None)


def _copies(folder: Path) -> Iterator[Installed]:
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return
    for path in entries:
        package = read_json(path / "package.json")
        # A link to the very folder is loaded once, however many ways lead there.
        if package is not None and package.get("name") == PACKAGE and not _same(path, FOLDER):
            yield Installed(path, "", folder, str(package.get("version")))


def _run(pi: Pi, args: list[str], env: Mapping[str, str]) -> None:
    try:
        done = subprocess.run(
            [*pi.command, *args],
            check=False,
            cwd=aside(),
            env={**env, "PI_OFFLINE": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PI_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PiUnusable(f"`pi {' '.join(args)}` failed: {error}", "") from None
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip()).split("\n")[-1]
        raise PiUnusable(f"`pi {' '.join(args)}` failed: {said}", "run it yourself to see more")


def _write_record(model: dict[str, object]) -> None:
    make_private_dir(record_path().parent)
    write_atomic(record_path(), json.dumps({"schemaVersion": 1, **model}, indent=2).encode() + b"\n")


def _text(path: Path) -> str | None:
    """The file's text with its line ends; empty where there is none, None where it cannot be kept."""
    try:
        return path.read_bytes().decode()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError):
        return None


def _same(path: Path, other: Path) -> bool:
    return path.resolve() == other.resolve()


class Trouble(NamedTuple):
    """Something that is wrong with what pi loads."""

    message: str
    hint: str
    fatal: bool
    """pi would not start."""


def troubles(places: list[Installed]) -> Iterator[Trouble]:
    """What is wrong with these places, in the order in which it should be fixed."""
    again = "run: ralph-rpc pi-extension install"
    there = [place for place in places if place.version is not None]
    for place in places:
        if place.version is None:
            yield Trouble(f"pi's settings name an extension that is gone: {place.path}", again, False)
        elif not place.is_package:
            yield Trouble(
                f"{place.path} is a copy of the extension, which no update of ralph-rpc reaches",
                f"remove it (rm -r {place.path}), then {again}",
                len(there) > 1,
            )
        elif place.version != __version__:
            yield Trouble(
                f"pi loads the extension of ralph-rpc {place.version} from {place.path}, this is {__version__}",
                again,
                False,
            )
        elif not place.is_ours:
            yield Trouble(f"pi loads the extension of another ralph-rpc, from {place.path}", again, False)
    if len(there) > 1:
        yield Trouble(f"pi finds the extension {len(there)} times: it may refuse to start", "keep one of them", True)
    if there:
        yield from _of_record()


def _of_record() -> Iterator[Trouble]:
    told = (record() or {}).get("command")
    if not isinstance(told, list) or not told:
        yield Trouble(
            f"{record_path()} is missing: the extension looks for ralph-rpc on PATH alone",
            "run: ralph-rpc pi-extension install",
            False,
        )
    elif not os.access(str(told[0]), os.X_OK):
        yield Trouble(
            f"the extension starts ralph-rpc by {told[0]}, which is gone", "run: ralph-rpc pi-extension install", False
        )
