"""Which variables of an environment lead a program that works in one checkout to the code of another.

The runner takes them out for whatever works in a worktree: a test there that finds its packages, tools or repository by
them would judge the main checkout's code. `start` asks which environments would do so by what is installed in them
(`installs.py`). It looks at links and changes nothing.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

_LIST = re.compile(r"(?:\w*PATH|\w*LIBS?|R_LIBS_USER|GEM_HOME|GOBIN|GOWORK)")
"""Names of variables that hold folders, with colons between them, in which programs, packages or headers are looked for."""

_PLACES = frozenset(
    {
        *("VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONHOME", "PYTHONUSERBASE", "PYTHONPYCACHEPREFIX", "PIPENV_PIPFILE"),
        *("UV_PROJECT", "UV_PROJECT_ENVIRONMENT", "UV_PYTHON", "UV_WORKING_DIRECTORY", "POETRY_ACTIVE_PROJECT"),
        *("BUNDLE_GEMFILE", "CARGO_TARGET_DIR", "CARGO_MANIFEST_DIR", "COMPOSER", "COMPOSER_VENDOR_DIR"),
        *("NPM_CONFIG_PREFIX", "NPM_CONFIG_LOCAL_PREFIX", "NPM_PACKAGE_JSON", "NVM_BIN", "INIT_CWD", "PROJECT_CWD"),
        *("DIRENV_DIR", "DIRENV_FILE", "PWD", "OLDPWD"),
        *("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY"),
    }
)
"""Variables that hold one place; compared in capitals, as npm writes its own in small letters."""

_GIT = frozenset({"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX"})
"""Those that hide a worktree's own repository even where they are relative, as in a git hook."""

_WORDS = frozenset(
    {
        *("NODE_OPTIONS", "RUBYOPT", "PERL5OPT", "PYTHONSTARTUP", "LD_PRELOAD", "BASH_ENV", "ENV", "GOFLAGS"),
        *("JAVA_TOOL_OPTIONS", "MAVEN_OPTS", "PYTEST_ADDOPTS", "MAKEFLAGS"),
    }
)
"""Variables that hold words, of which one may name a file to load."""

_WITH_IT = {"VIRTUAL_ENV": ("VIRTUAL_ENV_PROMPT",), "CONDA_PREFIX": ("CONDA_DEFAULT_ENV", "CONDA_PROMPT_MODIFIER")}
"""What makes no sense any more without the other."""
_SILENT = frozenset({"PWD", "OLDPWD", "INIT_CWD"})
"""Where the command was called from; nobody wants to hear of it."""


class Cleaned(NamedTuple):
    """An environment without what leads elsewhere."""

    env: dict[str, str]
    removed: tuple[str, ...]
    """What was taken out or changed, for a person: `PATH (/p/.venv/bin)`."""


def without_leads(env: Mapping[str, str], checkout: Path, own: Path) -> Cleaned:
    """The environment for work in `own`, without what leads into the other `checkout`, of which `own` is another one.

    Where the home lies in the checkout, nearly everything would: then it stays as it is.
    """
    into = Leads(checkout, own)
    if (home := env.get("HOME")) and into.lead(home):
        return Cleaned(dict(env), ())
    clean, removed = dict(env), []
    for name, value in env.items():
        if (there := _counterpart(name, value, into, own)) is not None:
            clean[name] = there
            removed.append(f"{name} (now {there})")
            continue
        left, gone = _without(name, value, into)
        if not gone:
            continue
        if left:
            clean[name] = left
        else:
            for one in (name, *_WITH_IT.get(name, ())):
                clean.pop(one, None)
        if name not in _SILENT:
            removed.append(f"{name} ({os.pathsep.join(gone)})")
    return Cleaned(clean, tuple(removed))


class Leads:
    """Tells whether a path leads into a checkout, by its name or by a link, and not into `own`."""

    def __init__(self, checkout: Path, own: Path | None = None) -> None:
        self.checkouts = {str(checkout.absolute()), str(checkout.resolve())}
        self._own = set() if own is None else {str(own.absolute()), str(own.resolve())}

    def lead(self, path: str) -> bool:
        """False for a relative path: it leads to what is beside whoever uses it."""
        if not path.startswith("/"):
            return False
        try:
            names = {os.path.normpath(path), str(Path(path).resolve())}
        except (OSError, ValueError, RuntimeError):  # a NUL, or a ring of links
            return False
        return any(_below(name, self.checkouts) and not _below(name, self._own) for name in names)


def _counterpart(name: str, value: str, into: Leads, own: Path) -> str | None:
    """The same place in `own`, for a variable of a person's that names one which both have, such as PROJECT_ROOT.

    None where there is no such place: data that only the checkout has are used from there.
    """
    if _is_known(name.upper()) or name.startswith("RALPH_") or not into.lead(value):
        return None
    for place in (os.path.normpath(value), str(Path(value).resolve())):
        for top in into.checkouts:
            there = own / os.path.relpath(place, top)
            if _below(place, {top}) and there.exists():
                return str(there)
    return None


def _is_known(name: str) -> bool:
    return name in _GIT | _PLACES | _WORDS or _LIST.fullmatch(name) is not None


def _below(path: str, folders: set[str]) -> bool:
    return any(path == folder or path.startswith(folder.rstrip("/") + "/") for folder in folders)


def _without(name: str, value: str, into: Leads) -> tuple[str, list[str]]:
    """The value without what leads there, and what that is."""
    known = name.upper()
    if known in _GIT:
        return "", [value]
    if known in _PLACES:
        place = value.removeprefix("-")  # as direnv writes it
        return ("", [value]) if into.lead(place) else (value, [])
    if known in _WORDS:
        names = any(f"{checkout}/" in value for checkout in into.checkouts)
        return ("", [value]) if names else (value, [])
    if _LIST.fullmatch(known):
        entries = value.split(os.pathsep)
        gone = [entry for entry in entries if into.lead(entry) and _is_searched(entry)]
        return os.pathsep.join(entry for entry in entries if entry not in gone), gone
    return value, []


def _is_searched(entry: str) -> bool:
    """Whether it is looked into; a variable such as KEY_PATH may hold the name of a file that is only read."""
    return not Path(entry).is_file() or entry.endswith((".jar", ".zip", ".egg", ".whl", ".so"))
