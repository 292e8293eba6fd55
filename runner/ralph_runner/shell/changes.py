"""What an iteration changed: new commits, and whether any file of the work tree differs.

`one_pi` measures before and after each iteration, and the next one waits for it: that is why it takes two git commands
and no more. A measure is exact and leaves the repository as it is: git adds everything to a *copy* of the index, whose
listing is the measure, and writes its objects into the runner's scratch folder, so that neither the user's index, nor
its lock, nor the object database is written (at most, existing objects get a new time). If git cannot answer, names,
sizes and times of the files are compared instead. Everything in scratch is disposable: nothing is lost if the machine
dies here.
"""

import asyncio
import contextlib
import hashlib
import itertools
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ralph_rpc import git
from ralph_runner.core.results import Measure
from ralph_runner.shell.ignored import NO_WORK, written_since

TIME_LIMIT_S = 60.0
MOST_COMMITS = 200
MOST_FILES_WALKED = 100_000
SNAPSHOTS_KEPT = 3  # one iteration compares two of them
NOT_WALKED = frozenset({b".git", b".ralph", b"node_modules", b".venv"})

_SETTINGS = (
    "core.fsync=none",  # scratch need not survive a power cut
    "core.splitIndex=false",  # a split index would put its shared half into the repository
    "core.safecrlf=false",
    # git-lfs would store what it cleans in the repository; the raw content shows changes as well.
    "filter.lfs.clean=",
    "filter.lfs.process=",
    "filter.lfs.required=false",
)

_BEFORE_PATH = {"git": b"\t", "walk": b"/"}
"""What stands before the path in a line of each kind of listing."""
_COMMIT = re.compile(rb"[0-9a-f]{40}([0-9a-f]{24})?")

T = TypeVar("T")


@dataclass(frozen=True)
class Change:
    """New commits (oldest first, at most 200), and how many files differ."""

    commits: list[str]
    files_changed: int


@dataclass(frozen=True)
class _Repository:
    """Its paths: the root of the work tree, what its `.git` says if that is a file, and git's own files."""

    top: Path
    link: bytes | None
    objects: Path
    index: Path
    head: Path
    common: Path

    def is_still_that_of(self, project: Path) -> bool:
        """False if git might find another one by now, or the same one elsewhere."""
        real = project.resolve()
        nearest = next((folder for folder in (real, *real.parents) if os.path.lexists(folder / ".git")), None)
        return nearest == self.top and _link(self.top) == self.link

    def commit(self) -> str | None:
        """The commit checked out, read without git; None if that takes more than reading two small files."""
        try:
            found = self.head.read_bytes().strip()
            if found.startswith(b"ref: refs/heads/"):
                found = (self.common / os.fsdecode(found[5:])).read_bytes().strip()
        except (OSError, ValueError):  # packed, or no commit yet
            return None
        return found.decode() if _COMMIT.fullmatch(found) else None


def _link(top: Path) -> bytes | None:
    try:
        return (top / ".git").read_bytes()
    except OSError:  # a folder, mostly
        return None


class WorkMeter:
    """Measures the work tree that holds `project`; writes only to `scratch`, a folder of its own.

    One measure or comparison at a time. Each runs in a worker thread from start to end: a turn of the event loop
    between two git commands would cost as much as a command.
    """

    def __init__(self, project: Path, scratch: Path) -> None:
        self._project = project
        self._scratch = scratch.absolute()
        self._use_git = True
        self._known: _Repository | None = None
        """The repository, as git last described it."""

    async def measure(self) -> Measure:
        """The state of the work tree now. Never fails, whatever the state of tree, git or scratch."""
        return await self._in_thread(self._measure)

    async def compare(self, before: Measure, after: Measure) -> Change:
        """What changed between two measures of this meter, of the last three taken.

        Two different fingerprints that cannot be compared file by file (one made by git, one from times; or one that
        is too old) count as one changed file.
        """
        if before == after:
            return Change([], 0)
        return await self._in_thread(lambda commands: self._compare(commands, before, after))

    async def wrote_ignored(self, since: int) -> bool:
        """Whether a file that git ignores was written since then (epoch milliseconds), as far as that is soon found out.

        Asked only before a loop would be called stalled: `node_modules` or `target` may hold a million files. See
        `ignored.py` for its bounds. Without git every file counts, as no rule says which are ignored.
        """
        return await self._in_thread(lambda commands: self._wrote_ignored(commands, since))

    async def _in_thread(self, work: "Callable[[_Commands], T]") -> T:
        """A cancelled call kills the git that it waits for, so that the runner can leave at once."""
        commands = _Commands()
        try:
            return await asyncio.to_thread(work, commands)
        except asyncio.CancelledError:
            commands.cancel()
            raise

    def _measure(self, commands: "_Commands") -> Measure:
        snapshot = head = None
        try:
            snapshot = self._new_snapshot()
            if self._use_git:
                repository, head = self._repository(commands)
                return Measure(head, self._content(commands, repository, snapshot))
        except TimeoutError:
            # The tree is too large for git here, and will be after the next iteration: do not wait for it again.
            self._use_git = False
        except (_GitFailed, OSError):
            pass
        if head is None:
            head = git.head(self._project)
        return Measure(head, _walk(self._project, snapshot))

    def _compare(self, commands: "_Commands", before: Measure, after: Measure) -> Change:
        commits = self._commits(commands, before.head, after.head)
        if before.tree == after.tree or before.tree is None or after.tree is None:
            return Change(commits, 0)
        try:
            return Change(commits, self._files_changed(before.tree, after.tree))
        except OSError:
            return Change(commits, 1)

    def _wrote_ignored(self, commands: "_Commands", since: int) -> bool:
        places = [os.fsencode(self._project)]
        try:
            if self._use_git:
                listed = commands.check(
                    ["ls-files", "--others", "--ignored", "--exclude-standard", "--directory", "-z"], self._project
                )
                places = [
                    places[0] + b"/" + name
                    for name in listed.split(b"\0")
                    if name and not NO_WORK & {*name.split(b"/")}
                ]
        except (TimeoutError, _GitFailed, OSError):
            pass
        return written_since(places, since)

    def _new_snapshot(self) -> Path:
        """A fresh folder in scratch; the oldest ones go."""
        self._scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
        numbers = sorted(int(entry.name) for entry in self._scratch.iterdir() if entry.name.isdecimal())
        for number in numbers[: -(SNAPSHOTS_KEPT - 1)]:
            shutil.rmtree(self._scratch / str(number), ignore_errors=True)
        snapshot = self._scratch / str(numbers[-1] + 1 if numbers else 1)
        (snapshot / "objects").mkdir(mode=0o700, parents=True)
        return snapshot

    def _repository(self, commands: "_Commands") -> tuple[_Repository, str | None]:
        """The repository, and the commit checked out (None: none yet)."""
        known = self._known
        if known is not None and known.is_still_that_of(self._project) and (commit := known.commit()) is not None:
            return known, commit
        names = ("objects", "index", "HEAD")
        paths = ["--show-toplevel", "--git-common-dir", *(word for name in names for word in ("--git-path", name))]
        # The commit comes last: where there is none yet, git fails after it has written the paths.
        code, out = commands.run(["rev-parse", "--path-format=absolute", *paths, "HEAD^{commit}"], self._project)
        lines = os.fsdecode(out).split("\n")
        if len(lines) < 6 or (code == 0 and len(lines) != 7):
            raise _GitFailed("no repository, or a path with a line break")
        top, common, objects, index, head = map(Path, lines[:5])
        self._known = _Repository(top, _link(top), objects, index, head, common)
        return self._known, lines[5] if code == 0 else None

    def _content(self, commands: "_Commands", repository: _Repository, snapshot: Path) -> str:
        """Fingerprint of all files that git would commit; the listing it is made of stays in the snapshot."""
        top, copy = repository.top, snapshot / "index"
        with contextlib.suppress(FileNotFoundError):  # nothing was ever added
            # With its time: git trusts an entry whose file is older than the index.
            shutil.copy2(repository.index, copy)
        env = {
            "GIT_INDEX_FILE": str(copy),
            "GIT_OBJECT_DIRECTORY": str(snapshot / "objects"),
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": _quoted(repository.objects),
        }
        commands.check(["add", "--all", "--sparse"], top, env)
        listing = commands.check(["ls-files", "--stage", "-z"], top, env)
        if b"\x00160000 " in b"\0" + listing:
            raise _GitFailed("a submodule: its files are not in the listing")
        copy.unlink(missing_ok=True)  # with nothing to add, git makes none
        return _kept("git", listing, snapshot)

    def _commits(self, commands: "_Commands", before: str | None, after: str | None) -> list[str]:
        if after is None or before == after:
            return []
        span = [after] if before is None else [f"{before}..{after}"]
        try:
            listed = commands.check(["rev-list", "--reverse", *span], self._project)
        except (_GitFailed, OSError):
            return []
        return listed.decode().split()[:MOST_COMMITS]

    def _files_changed(self, before: str, after: str) -> int:
        old, new = self._listing(before), self._listing(after)
        if old is None or new is None or _kind(before) != _kind(after):
            return 1
        differing = set(old.read_bytes().split(b"\0")) ^ set(new.read_bytes().split(b"\0"))
        return len({line.partition(_BEFORE_PATH[_kind(before)])[2] for line in differing})

    def _listing(self, tree: str) -> Path | None:
        """The listing a fingerprint was made of; every snapshot since the last change has it."""
        return next(self._scratch.glob(f"*/{tree}"), None)


class _GitFailed(Exception):
    pass


class _Commands:
    """Runs git commands, one after the other, for TIME_LIMIT_S in all; `cancel` from another thread ends it."""

    def __init__(self) -> None:
        self._until = time.monotonic() + TIME_LIMIT_S
        self._process: subprocess.Popen[bytes] | None = None
        self._cancelled = False
        self._lock = threading.Lock()

    def check(self, args: list[str], cwd: Path, env: dict[str, str] | None = None) -> bytes:
        """What a command wrote. _GitFailed unless it succeeded, TimeoutError when the time is up."""
        code, out = self.run(args, cwd, env)
        if code != 0:
            raise _GitFailed(f"git {args[0]}: {code}")
        return out

    def run(self, args: list[str], cwd: Path, env: dict[str, str] | None = None) -> tuple[int, bytes]:
        """The exit code of a command, and what it wrote."""
        with self._lock:
            if self._cancelled:
                raise _GitFailed("cancelled")
            self._process = process = subprocess.Popen(
                git.command(args, _SETTINGS),
                cwd=cwd,
                env=git.environment(env),
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        with process:
            try:
                out, _ = process.communicate(timeout=max(0.0, self._until - time.monotonic()))
            except subprocess.TimeoutExpired as error:
                self._kill()
                raise TimeoutError from error
        return process.returncode, out

    def cancel(self) -> None:
        with self._lock:
            self._cancelled = True
            self._kill()

    def _kill(self) -> None:
        """git and its helpers; not waited for yet, so the group's number is still theirs."""
        if self._process is not None and self._process.returncode is None:
            os.killpg(self._process.pid, signal.SIGKILL)


def _quoted(path: Path) -> str:
    """A path as GIT_ALTERNATE_OBJECT_DIRECTORIES wants it, where `:` separates."""
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _walk(top: Path, snapshot: Path | None) -> str:
    """Fingerprint of names, sizes and times below `top`; the listing it is made of stays in the snapshot."""
    return _kept("walk", b"\0".join(itertools.islice(_files(top), MOST_FILES_WALKED)), snapshot)


def _kept(kind: str, listing: bytes, snapshot: Path | None) -> str:
    """The name of a listing, from its kind and content; it is stored in the snapshot by that name."""
    name = f"{kind}-{hashlib.sha256(listing).hexdigest()}"
    if snapshot is not None:
        with contextlib.suppress(OSError):  # the disk is full: then only the number of changed files is unknown
            (snapshot / name).write_bytes(listing)
    return name


def _kind(name: str) -> str:
    return name.partition("-")[0]


def _files(top: Path) -> Iterator[bytes]:
    """`<size> <mtime_ns>/<path>` of every file and link below `top`, in a fixed order; follows no link."""
    root = len(os.fsencode(top)) + 1
    folders = [os.fsencode(top)]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError:
            continue  # gone meanwhile, or not ours to read
        for entry in found:
            try:
                if entry.is_dir(follow_symlinks=False):
                    if entry.name not in NOT_WALKED:
                        folders.append(entry.path)
                    continue
                status = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            yield b"%d %d/%s" % (status.st_size, status.st_mtime_ns, entry.path[root:])
