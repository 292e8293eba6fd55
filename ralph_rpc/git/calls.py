"""Calling git: the one place that says how.

Every command runs without prompts, editors, background maintenance and those of the caller's GIT_* variables that lead
elsewhere, and is bounded in time. No hook of the repository runs: one that fails, waits or pushes must not decide
whether a loop starts, nor what becomes of a ticket; checking the work is the job of `--verify`. Nothing is signed,
because nobody is there to type a passphrase. A machine that dies here leaves what a killed git leaves; the callers say
how they cope with that.
"""

import errno
import os
import re
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ralph_rpc.errors import RalphError
from ralph_rpc.machine.programs import on_path

OLDEST = (2, 38)
STATUS_TIMEOUT_S = 120.0
CHECKOUT_TIMEOUT_S = 600.0  # a worktree of a large repository takes minutes to write or delete

_SETTINGS = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "gc.auto=0",
    "maintenance.auto=false",
    "commit.gpgSign=false",
    "core.safecrlf=false",
    # Any number of writers lock refs for an instant: wait for them.
    "core.filesRefLockTimeout=1000",
    "core.packedRefsTimeout=1000",
)

_DROPPED = frozenset(
    {
        # What `git rev-parse --local-env-vars` lists, as it leads to another repository; but GIT_CONFIG_COUNT and
        # GIT_CONFIG_PARAMETERS are settings of the user's, and containers give the author of commits by them.
        *("GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_CONFIG", "GIT_OBJECT_DIRECTORY", "GIT_DIR", "GIT_WORK_TREE"),
        *(
            "GIT_IMPLICIT_WORK_TREE",
            "GIT_GRAFT_FILE",
            "GIT_INDEX_FILE",
            "GIT_NO_REPLACE_OBJECTS",
            "GIT_REPLACE_REF_BASE",
        ),
        *("GIT_PREFIX", "GIT_INTERNAL_SUPER_PREFIX", "GIT_SHALLOW_FILE", "GIT_COMMON_DIR", "GIT_NAMESPACE"),
        # What would change the meaning of our arguments and of git's answers.
        *("GIT_LITERAL_PATHSPECS", "GIT_GLOB_PATHSPECS", "GIT_NOGLOB_PATHSPECS", "GIT_ICASE_PATHSPECS"),
        *("GIT_EXTERNAL_DIFF", "GIT_DIFF_OPTS", "GIT_CURL_VERBOSE"),
    }
)


_UNFETCHED = {"GIT_NO_LAZY_FETCH": "1", "GIT_ALLOW_PROTOCOL": "none"}
"""What keeps git from fetching by itself what a partial clone lacks; the first is for git 2.45 and newer."""
_may_fetch = False

_LOCKED = re.compile(r"Unable to create '.*\.lock'|cannot lock ref|could not lock|index\.lock|Stale file handle")
_HALF_MADE = re.compile(r"failed to read (.*/worktrees/[^/]+)/commondir")


class GitError(RalphError):
    """A git command that failed: which one, its exit code (None: ended by us, or never ran), and why."""

    def __init__(self, command: str, returncode: int | None, reason: str, hint: str = "") -> None:
        super().__init__(f"`git {command}` failed: {reason}", hint)
        self.command = command
        self.returncode = returncode
        self.reason = reason

    @property
    def half_made(self) -> str | None:
        """The folder of a worktree that somebody is just adding: for an instant, no git can list the worktrees."""
        found = _HALF_MADE.search(self.reason)
        return found[1] if found is not None else None

    @property
    def is_passing(self) -> bool:
        """True if git gave no answer: it could not be run, was ended, could not take a lock that somebody held, or met a
        worktree that somebody was adding.
        """
        gave_none = self.returncode is None or self.returncode < 0
        return gave_none or _LOCKED.search(self.reason) is not None or self.half_made is not None


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


def allow_fetching() -> None:
    """From now on git may fetch what a partial clone lacks. Who only looks does not allow it: it runs what the
    repository's settings name as the other side.
    """
    global _may_fetch
    _may_fetch = True


def command(args: Sequence[str], settings: Sequence[str] = ()) -> list[str]:
    """The argv of a git command that runs no hook and starts nothing in the background. OSError without a git."""
    pairs = [word for setting in (*_SETTINGS, *settings) for word in ("-c", setting)]
    git = on_path("git")
    if git is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "git")
    return [git, "--no-pager", *pairs, *args]


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment, set so that git never asks and speaks English.

    Of GIT_* it drops what could lead to another repository or change the answers. Who commits, and the user's settings,
    containers and CI often give this way alone.
    """
    clean = {key: value for key, value in os.environ.items() if key not in _DROPPED and not key.startswith("GIT_TRACE")}
    # `status` takes optional locks, to refresh (so rewrite) the user's index.
    fixed = {"GIT_TERMINAL_PROMPT": "0", "GIT_EDITOR": "true", "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    return clean | fixed | ({} if _may_fetch else _UNFETCHED) | dict(extra or {})


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

    Without `check` any exit code is an answer. A git that was killed gives none, and may have done its work: GitError.
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
            raise GitError(shown, None, f"it did not finish within {timeout:g} s") from error
        except BaseException:
            _end(process)
            raise
    result = Result(process.returncode, out, err.decode(errors="replace"))
    if result.code < 0 or (check and result.code != 0):
        raise GitError(shown, result.code, result.last_error)
    return result


def without_filters(path: Path) -> tuple[str, ...]:
    """Settings for `run` with which no filter runs that the repository's own settings name.

    A clone brings none, but an archive or a shared folder may. What the user has set for all repositories stays.
    """
    asked = ["config", "--show-scope", "--name-only", "-z", "--get-regexp", r"^filter\."]
    words = run(asked, path, check=False).fields
    found = zip(words[::2], words[1::2], strict=False)
    drivers = {name.rpartition(".")[0] for scope, name in found if scope in ("local", "worktree")}
    off = ("clean=", "smudge=", "process=", "required=false")
    return tuple(f"{driver}.{setting}" for driver in sorted(drivers) for setting in off)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End git and its helpers, at first so that it removes its lock files."""
    os.killpg(process.pid, signal.SIGTERM)
    os.killpg(process.pid, signal.SIGINT)  # a runner keeps SIGTERM to itself, and what it starts inherits that
    try:
        process.communicate(timeout=2)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)


def version() -> tuple[int, int]:
    """The installed git's version, as (2, 39). GitError if there is none."""
    text = run(["--version"], Path("/")).line
    found = re.match(r"git version (\d+)\.(\d+)", text)
    if found is None:
        raise GitError("--version", 0, f"unexpected output {text!r}")
    return int(found[1]), int(found[2])


def is_repo(path: Path) -> bool:
    """Whether `path` lies in the work tree of a git repository."""
    return toplevel(path) is not None


def toplevel(path: Path) -> Path | None:
    """The root of the work tree that `path` lies in; None if there is none, or no git is installed."""
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
