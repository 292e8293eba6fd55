"""The three generations of real pi, installed once per checkout by the program's own installer.

They lie in `$RALPH_TEST_PI_CACHE`, by default `.cache/pi` of the checkout, node included where the system's
does not fit. Workers that run at the same time wait for each other.
"""

import fcntl
import functools
import os
from pathlib import Path

import pytest

from ralph_rpc.errors import PiUnusable
from ralph_rpc.pi_install import PINNED, Pi, install_pi

VERSIONS = tuple(sorted(version for _, version in PINNED))
NEWEST = PINNED[0][1]
CACHE = Path(os.environ.get("RALPH_TEST_PI_CACHE") or Path(__file__).parents[2] / ".cache/pi").absolute()


@functools.cache
def _attempt(version: str) -> Pi | PiUnusable:
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock, pytest.MonkeyPatch.context() as patch:
        fcntl.flock(lock, fcntl.LOCK_EX)
        patch.setenv("XDG_DATA_HOME", str(CACHE))
        patch.setenv("npm_config_cache", str(CACHE / "npm"))
        patch.setenv("PIP_CACHE_DIR", str(CACHE / "pip"))
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
