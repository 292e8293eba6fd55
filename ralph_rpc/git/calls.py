"""Calling git: the one place that says how.

Every command runs without prompts, editors, background maintenance and the caller's GIT_* variables, and is
bounded in time. No hook of the repository runs: one that fails, waits or pushes must not decide whether a
loop starts, nor what becomes of a ticket; what has to hold of the work is what `--verify` is for. Nothing is
signed, as nobody is there to type a passphrase. A machine that dies here leaves what a killed git leaves; the
callers say what they make of it.
"""

import os
import re
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ralph_rpc.errors import RalphError

OLDEST = (2, 38)
STATUS_TIMEOUT_S = 120.0
CHECKOUT_TIMEOUT_S = 600.0  # a worktree of a large repository takes minutes to write or delete

_SETTINGS = (
    "core.hooksPath=/dev/null", "core.fsmonitor=false", "gc.auto=0", "maintenance.auto=false",
    "commit.gpgSign=false", "core.safecrlf=false",
    # Refs are locked for an instant, by any number of writers: they are waited for.
    "core.filesRefLockTimeout=1000", "core.packedRefsTimeout=1000",
)  # fmt: skip


class GitError(RalphError):
    """A git command that failed: what it was, its exit code (None: ended by us, or never ran), and why."""

    def __init__(self, command: str, returncode: int | None, reason: str, hint: str = "") -> None:
        super().__init__(f"`git {command}` failed: {reason}", hint)
        self.command = command
        self.returncode = returncode
        self.reason = reason


@dataclass(frozen=True)
class Result:
    """What a git command gave: exit code, stdout as bytes, stderr as text."""

    code: int
    out: bytes
    err: str

    @property
    def line(self) -> str:
        """The single line of its output."""
        return os.fsdecode(self.out.removesuffix(b"\n"))

    @property
    def fields(self) -> list[str]:
        """Its output as NUL-terminated fields (for commands given -z)."""
        return [os.fsdecode(field) for field in self.out.split(b"\0")[:-1]]

    @property
    def last_error(self) -> str:
        lines = [line.strip() for line in self.err.splitlines() if line.strip()]
        if self.code < 0:
            return f"it was killed by signal {-self.code}"
        return lines[-1] if lines else f"exit code {self.code}"


def command(args: Sequence[str], settings: Sequence[str] = ()) -> list[str]:
    """The argv of a git command that runs no hook and starts nothing in the background."""
    pairs = [word for setting in (*_SETTINGS, *settings) for word in ("-c", setting)]
    return ["git", "--no-pager", *pairs, *args]


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment less every GIT_*, such that git never asks and speaks English."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    # Optional locks are those of `status`, which would refresh (so rewrite) the user's index.
    fixed = {"GIT_TERMINAL_PROMPT": "0", "GIT_EDITOR": "true", "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    return clean | fixed | dict(extra or {})


def run(
    args: Sequence[str],
    cwd: Path,
    timeout: float = 30,
    env_extra: Mapping[str, str] | None = None,
    check: bool = True,
    stdin: bytes | None = None,
    settings: Sequence[str] = (),
) -> Result:
    """Run `git ARGS` in `cwd` for at most `timeout` seconds; GitError if it cannot, or fails and `check`.

    Without `check` an exit code is an answer. A git that was killed gives none, and may have done its work: GitError.
    """
    shown = " ".join(args[:2])
    try:
        process = subprocess.Popen(
            command(args, settings),
            cwd=cwd,
            env=environment(env_extra),
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # so that filters and helpers of git's end with it
        )
    except OSError as error:
        if error.filename == "git":
            raise GitError(shown, None, "git is not installed", "install git 2.38 or newer") from error
        raise GitError(shown, None, f"{error.strerror}: {error.filename}") from error
    with process:
        try:
            out, err = process.communicate(stdin, timeout=timeout)
        except subprocess.TimeoutExpired as error:
            _end(process)
            raise GitError(shown, None, f"no end after {timeout:g} s") from error
        except BaseException:
            _end(process)
            raise
    result = Result(process.returncode, out, err.decode(errors="replace"))
    if result.code < 0 or (check and result.code != 0):
        raise GitError(shown, result.code, result.last_error)
    return result


def _end(process: subprocess.Popen[bytes]) -> None:
    """End git and its helpers, first such that it removes its lock files."""
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.communicate(timeout=2)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)


def version() -> tuple[int, int]:
    """The installed git's version, as (2, 39). GitError if there is none."""
    text = run(["--version"], Path("/")).line
    found = re.match(r"git version (\d+)\.(\d+)", text)
    if found is None:
        raise GitError("--version", 0, f"unknown answer {text!r}")
    return int(found[1]), int(found[2])


def is_repo(path: Path) -> bool:
    """Whether `path` lies in the work tree of a git repository."""
    return toplevel(path) is not None


def toplevel(path: Path) -> Path | None:
    """The root of the work tree that `path` lies in; None if there is none, or no git."""
    found = _answer(["rev-parse", "--show-toplevel"], path)
    return Path(found) if found is not None else None


def head(path: Path) -> str | None:
    """The commit checked out at `path`; None before the first one, outside of a repository, without git."""
    return _answer(["rev-parse", "--quiet", "--verify", "HEAD^{commit}"], path)


def _answer(args: Sequence[str], cwd: Path) -> str | None:
    try:
        return run(args, cwd).line
    except GitError as error:
        if error.returncode is not None and error.returncode < 0:
            raise
        return None
