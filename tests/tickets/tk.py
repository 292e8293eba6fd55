"""The real `tk` (github.com/wedow/ticket, a bash script) of a pinned commit, fetched once per checkout.

It lies below `.cache/tk` of the checkout; `$TEST_TK` names another one.
"""

import fcntl
import functools
import os
import subprocess
from pathlib import Path

import pytest

URL = "https://github.com/wedow/ticket"
COMMIT = "4adf0c504eea4f4982c65a28544c0c73fea8e2e0"
CACHE = Path(__file__).parents[2] / ".cache" / "tk"
FETCH_S = 30


def provide() -> Path:
    """The script; skips the test where it cannot be had."""
    script, problem = _attempt()
    if problem:
        pytest.skip(f"tk cannot be fetched: {problem}")
    return script


@functools.cache
def _attempt() -> tuple[Path, str]:
    """Where the script is, and why it is not there; a failure is not tried again."""
    if given := os.environ.get("TEST_TK"):
        return Path(given), ""
    CACHE.mkdir(parents=True, exist_ok=True)
    script = CACHE / f"tk-{COMMIT}"
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            if not script.exists():
                _fetch(script)
        except (OSError, subprocess.SubprocessError) as error:
            stderr: bytes = getattr(error, "stderr", None) or b""
            return script, stderr.decode(errors="replace").strip() or str(error)
    return script, ""


def _fetch(script: Path) -> None:
    """By git, which holds what comes against the commit's hash."""
    repository = str(CACHE / "repository")
    _git("init", "-q", repository)
    _git("-C", repository, "fetch", "-q", "--depth", "1", URL, COMMIT)
    part = script.with_suffix(".part")
    part.write_bytes(_git("-C", repository, "show", f"{COMMIT}:ticket"))
    part.chmod(0o755)
    part.rename(script)


def _git(*args: str) -> bytes:
    return subprocess.run(["git", *args], capture_output=True, check=True, timeout=FETCH_S).stdout


def tk(project: Path, *args: str, stdin: str = "") -> str:
    """What `tk ARGS` prints in the project."""
    done = subprocess.run(
        [str(provide()), *args],
        cwd=project,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.strip()
