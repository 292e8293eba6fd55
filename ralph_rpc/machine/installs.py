"""Which environments outside of a checkout lead into it by what is installed in them: editable installs and links.

Asked by `start` before a loop works in worktrees: whoever uses such an environment there runs the main checkout's
code, whatever folder it is called from. Only looks at files, and runs nothing.
"""

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from ralph_rpc.machine.leads import Leads

MOST_ENTRIES = 20_000
LARGEST = 1 << 20
_FINDER = re.compile(r"__editable__.*\.py|_.*_editable_.*\.py|.*_editable_impl.*\.py")
_VERSIONS = tuple(
    f"{where}/lib/python3*/site-packages" for where in ("versions/*", "versions/*/envs/*", "installs/python/*")
)
"""Where pyenv, asdf and mise have the Pythons of which one stands behind the `python` in their `shims`."""
_PATH_IN_TEXT = re.compile(r"""['"](/[^'"\n]+)['"]""")


class Install(NamedTuple):
    """A package in an environment that is not a copy, but the checkout itself."""

    environment: str
    package: str


def installs_into(env: Mapping[str, str], checkout: Path, lies_in_it: bool = False) -> list[Install]:
    """Those of the environments that `env` uses; one in the checkout itself is skipped, unless `lies_in_it` is asked."""
    into = Leads(checkout)
    found: dict[Install, None] = {}
    for environment, folder in _package_folders(env):
        if lies_in_it or not (into.lead(environment) or into.lead(str(folder))):
            names = _links(folder, into) if folder.name == "node_modules" else _editable(folder, into)
            found.update(dict.fromkeys(Install(environment, name) for name in names))
    return list(found)


def _package_folders(env: Mapping[str, str]) -> Iterator[tuple[str, Path]]:
    """Each environment, and a folder of it in which packages lie."""
    prefixes = [env.get("VIRTUAL_ENV"), env.get("CONDA_PREFIX"), env.get("UV_PROJECT_ENVIRONMENT")]
    prefixes += [_prefix_of(program, env) for program in ("python", "python3", "pytest", "node")]
    for prefix in dict.fromkeys(prefix for prefix in prefixes if prefix and prefix.startswith("/")):
        for pattern in ("lib*/python3*/site-packages", "lib*/python3*/dist-packages", "lib/node_modules"):
            for folder in sorted(Path(prefix).glob(pattern)):
                yield prefix, folder
        if (Path(prefix) / "shims").is_dir():
            for pattern in _VERSIONS:
                for folder in sorted(Path(prefix).glob(pattern)):
                    yield str(folder.parents[2]), folder
    base = env.get("PYTHONUSERBASE") or f"{env.get('HOME', '')}/.local"
    for folder in sorted(Path(base).glob("lib/python3*/site-packages")):
        yield base, folder
    for entry in env.get("PYTHONPATH", "").split(os.pathsep):
        if entry.startswith("/") and Path(entry).is_dir():
            yield entry, Path(entry)


def _prefix_of(program: str, env: Mapping[str, str]) -> str | None:
    found = shutil.which(program, path=env.get("PATH", ""))
    # Not resolved: the python of a venv is a link to another one.
    return str(Path(found).absolute().parent.parent) if found else None


def _editable(folder: Path, into: Leads) -> Iterator[str]:
    """Packages of a site-packages folder that lie in the checkout."""
    with suppress(OSError), os.scandir(folder) as entries:
        for count, entry in enumerate(entries):
            if count > MOST_ENTRIES:
                return
            name = _package_of(entry, into)
            if name:
                yield name


def _package_of(entry: "os.DirEntry[str]", into: Leads) -> str | None:
    if entry.name.endswith((".pth", ".egg-link")):
        lines = _text(entry.path).splitlines()
        led = any(into.lead(line.strip()) for line in lines)
        # An import line of a .pth loads a finder, which is a file of its own.
        return _plain(entry.name) if led else None
    if _FINDER.fullmatch(entry.name):
        return _plain(entry.name) if any(map(into.lead, _PATH_IN_TEXT.findall(_text(entry.path)))) else None
    if entry.name.endswith(".dist-info"):
        with suppress(ValueError, AttributeError):
            said = json.loads(_text(f"{entry.path}/direct_url.json") or "{}")
            is_editable = (said.get("dir_info") or {}).get("editable") is True
            return _plain(entry.name) if is_editable and into.lead(unquote(urlsplit(said["url"]).path)) else None
        return None
    return entry.name if entry.is_symlink() and into.lead(entry.path) else None


def _links(folder: Path, into: Leads) -> Iterator[str]:
    """Packages that `npm link` put there, also below a scope."""
    with suppress(OSError):
        for entry in sorted(folder.iterdir()):
            inside = sorted(entry.iterdir()) if entry.name.startswith("@") and not entry.is_symlink() else [entry]
            yield from (one.name for one in inside if one.is_symlink() and into.lead(str(one)))


def _plain(name: str) -> str:
    """The package's name in that of its file: `__editable__.shop-0.1.pth` is `shop`."""
    name = re.sub(r"^(?:__editable__[._]+|_+editable_(?:impl_)?)", "", name)
    name = re.sub(r"\.(?:pth|egg-link|py|dist-info)$", "", name)
    return re.split(r"-\d|_\d+_\d|_finder$", name)[0].strip("_") or name


def _text(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            return file.read(LARGEST).decode(errors="replace")
    except OSError:
        return ""
