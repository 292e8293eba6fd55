"""Installs pi for this user only, and a node for it where none fits.

`install_pi` is called by `demo` and by the tests. Everything installed lies in the user's data folder, is made in a
temporary folder beside its place and renamed when complete: if the machine dies, a `.tmp-…` folder is left
that is never taken for pi.
"""

import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from ralph_rpc.errors import PiUnusable
from ralph_rpc.files.paths import data_dir
from ralph_rpc.machine.programs import on_path
from ralph_rpc.pi.find import (
    NODE_WHEEL,
    PACKAGES,
    Pi,
    installed_where,
    needed_node,
    node_for,
    package_of,
    pi_at,
    probe_version,
    read_json,
    script_in,
    wheel_nodes,
)

PINNED = ((PACKAGES[0], "1.6.0"), (PACKAGES[0], "1.5.2"), (PACKAGES[0], "0.87.1"), (PACKAGES[1], "0.73.1"))
"""Packages that this program was tested with, newest first."""

INSTALL_S = 600

Say = Callable[[str], None]


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
        script = script_in(installed_where() / each)
        if script is None:
            say(f"installing {package} {each}")
            try:
                _install(package, each, say)
            except _InstallFailed as failed:
                reason = str(failed)
                say(f"that did not work: {reason}")
                continue
            script = script_in(installed_where() / each)
            assert script is not None, "checked before it was renamed into place"
        return pi_at(script, "installed")
    raise PiUnusable(f"pi could not be installed: {reason}", f"Install it yourself: npm i -g {PACKAGES[0]}")


def npm_command() -> list[str] | None:
    """The system's npm, else the wheel's."""
    system = on_path("npm")
    if system:
        return [system]
    for node in wheel_nodes():
        script = node.parent.parent / "lib/node_modules/npm/bin/npm-cli.js"
        if script.is_file():
            return [str(node), str(script)]
    return None


class _InstallFailed(Exception):
    """One line: why this attempt did not work."""


def _install(package: str, version: str, say: Say) -> None:
    """Makes `<data>/pi/<version>`, complete and tried, or raises _InstallFailed."""
    npm = npm_command()
    if npm is None:
        _install_node(say)
        npm = npm_command()
        if npm is None:
            raise _InstallFailed("npm is missing")
    with _made_aside(installed_where() / version) as folder:
        # Not --prefix: with it npm does not read the machine's npmrc, which may name a registry, a proxy or a certificate.
        install = [*npm, "i", "--ignore-scripts", "--no-audit", "--no-fund"]
        spec = f"{package}@{version}"
        try:
            _write_package_json(folder, {})
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
        script = script_in(folder)
        if script is None:
            raise _InstallFailed("the package holds no pi")
        needed = needed_node(package_of(script))
        try:
            node_for(needed, spec)
        except PiUnusable:
            _install_node(say)
        try:
            tried = probe_version(pi_at(script, "installed"))
        except PiUnusable as unusable:
            raise _InstallFailed(unusable.message) from unusable
        if tried != version:
            raise _InstallFailed(f"pi {version} does not run here")


def _write_foreign_dependencies(folder: Path, package: str) -> None:
    """Writes a package.json for what a bundled pi needs beside it; optional, as the registry may lack some.

    Its own sub-packages are in the bundle. The others are not: without jiti, for one, pi runs but loads no
    extension.
    """
    dependencies = (read_json(folder / "package/package.json") or {}).get("dependencies", {})
    scope = package.split("/")[0]
    foreign = {name: version for name, version in dependencies.items() if not name.startswith(f"{scope}/")}
    _write_package_json(folder, {"optionalDependencies": foreign})


def _write_package_json(folder: Path, members: Mapping[str, object]) -> None:
    """Makes `folder` the place into which npm installs; without it npm would take the nearest one above that has one."""
    (folder / "package.json").write_text(json.dumps({"private": True, **members}))


def _install_node(say: Say) -> None:
    """Installs node's wheel from PyPI into `<data>/node`."""
    say("installing node for it (no fitting one is here)")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    with _made_aside(data_dir() / "node") as folder:
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
        raise _InstallFailed(f"{Path(command[0]).name} did not finish in {INSTALL_S // 60} minutes") from error
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
