"""The four generations of real pi, installed once per checkout by the program's own installer.

They lie in `$RALPH_TEST_PI_CACHE`, by default `.cache/pi` of the checkout, node included where the system's
does not fit. Workers that run at the same time wait for each other.

With `RALPH_TEST_PI_LATEST=1` the tests use one pi only: the one that `npm view` calls latest today. It is nobody's gate:
it may fail, and then shows what a newcomer will meet.
"""

import fcntl
import functools
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ralph_rpc.errors import PiUnusable
from ralph_rpc.pi import install
from ralph_rpc.pi.find import PACKAGES, Pi
from ralph_rpc.pi.install import PINNED, install_pi, npm_command

CACHE = Path(os.environ.get("RALPH_TEST_PI_CACHE") or Path(__file__).parents[2] / ".cache/pi").absolute()


@contextmanager
def _in_cache() -> Iterator[pytest.MonkeyPatch]:
    """One at a time; whatever is installed or fetched goes into the cache."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock, pytest.MonkeyPatch.context() as patch:
        fcntl.flock(lock, fcntl.LOCK_EX)
        patch.setenv("XDG_DATA_HOME", str(CACHE))
        patch.setenv("npm_config_cache", str(CACHE / "npm"))
        patch.setenv("PIP_CACHE_DIR", str(CACHE / "pip"))
        yield patch


def latest() -> str:
    """The version that the npm registry calls latest today; raises PiUnusable."""
    with _in_cache():
        npm = npm_command()
        if npm is None:
            raise PiUnusable(
                "there is no npm to ask for the latest pi", "Install node, or run the pi tests once without it"
            )
        asked = subprocess.run(
            [*npm, "view", PACKAGES[0], "version"], check=False, capture_output=True, text=True, timeout=120
        )
    version = asked.stdout.strip()
    if asked.returncode != 0 or not version:
        raise PiUnusable(f"npm does not say which pi is the latest: {asked.stderr.strip()[-300:]}", "")
    return version


VERSIONS = (latest(),) if os.environ.get("RALPH_TEST_PI_LATEST") else tuple(sorted(version for _, version in PINNED))
"""Those that the tests of `pi` are run with."""
NEWEST = VERSIONS[0] if len(VERSIONS) == 1 else PINNED[0][1]


@functools.cache
def _attempt(version: str) -> Pi | PiUnusable:
    with _in_cache() as patch:
        if version not in [pinned for _, pinned in PINNED]:
            patch.setattr(install, "PINNED", ((PACKAGES[0], version), *PINNED))
        try:
            return install_pi(print, version)
        except PiUnusable as error:
            return error


def provide(version: str) -> Pi:
    """Returns the real pi of that version; the first call may download it, a failure is not tried again."""
    result = _attempt(version)
    if isinstance(result, PiUnusable):
        raise result
    return result


def provide_all() -> None:
    """Installs what is missing, outside of any test's time limit; failures show in the tests that ask."""
    for version in VERSIONS:
        _attempt(version)


def use(pi: Pi, monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts the node that fits `pi` first on PATH, as on a machine where that pi was installed by hand."""
    node = Path(pi.command[0])
    monkeypatch.setenv("PATH", f"{node.parent}{os.pathsep}{os.environ['PATH']}")
