"""What an iteration changed: new commits, and whether any file of the work tree differs.

The runner measures before and after each iteration. A measure is exact and leaves the repository as it is:
git adds everything to a *copy* of the index and writes its objects into the runner's scratch folder, so that
neither the user's index, nor its lock, nor the object database is written (at most, objects that are there
already get a new time). Where git cannot answer, names, sizes and times of the files are compared instead.
Everything in scratch is disposable: a machine that dies here loses nothing.
"""

import asyncio
import contextlib
import hashlib
import itertools
import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ralph_rpc import git
from ralph_runner.core.reports import Measure

TIME_LIMIT_S = 60.0
MOST_COMMITS = 200
MOST_FILES_WALKED = 100_000
SNAPSHOTS_KEPT = 3  # one iteration compares two of them
NOT_WALKED = frozenset({b".git", b".ralph", b"node_modules", b".venv"})

_SETTINGS = (
    "core.fsync=none",  # scratch need not survive a power cut
    "core.splitIndex=false",  # a split index would put its shared half into the repository
    "core.safecrlf=false",
    # git-lfs would store what it cleans in the repository; the raw content tells changes as well.
    "filter.lfs.clean=",
    "filter.lfs.process=",
    "filter.lfs.required=false",
)


@dataclass(frozen=True)
class Change:
    """Commits that came since (oldest first, at most 200), and how many files differ."""

    commits: list[str]
    files_changed: int


class WorkMeter:
    """Measures the work tree that holds `project`; writes only to `scratch`, a folder of its own."""

    def __init__(self, project: Path, scratch: Path) -> None:
        self._project = project
        self._scratch = scratch.absolute()
        self._use_git = True

    async def measure(self) -> Measure:
        """The state of the work tree now. Never fails for what the tree, git or scratch is like."""
        snapshot = head = None
        try:
            snapshot = self._new_snapshot()
            if self._use_git:
                async with asyncio.timeout(TIME_LIMIT_S):
                    top, objects = await self._repository()
                    head = await self._head(top)
                    return Measure(head, await self._tree(top, objects, snapshot))
        except TimeoutError:
            # Too large for git here, now and after the next iteration: do not wait for it again.
            self._use_git = False
        except (_GitFailed, OSError):
            pass
        if head is None:
            head = await asyncio.to_thread(git.head, self._project)
        return Measure(head, await asyncio.to_thread(_walk, self._project, snapshot))

    async def compare(self, before: Measure, after: Measure) -> Change:
        """What changed between two measures of this meter, of the last three taken.

        Where two different fingerprints cannot be compared file by file (one made by git, one by looking at
        times; or older than that), they count as one changed file.
        """
        commits = await self._commits(before.head, after.head)
        if before.tree == after.tree or before.tree is None or after.tree is None:
            return Change(commits, 0)
        try:
            async with asyncio.timeout(TIME_LIMIT_S):
                return Change(commits, await self._files_changed(before.tree, after.tree))
        except (_GitFailed, OSError, TimeoutError):
            return Change(commits, 1)

    def _new_snapshot(self) -> Path:
        """A fresh folder in scratch; the oldest ones go."""
        self._scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
        numbers = sorted(int(entry.name) for entry in self._scratch.iterdir() if entry.name.isdecimal())
        for number in numbers[: -(SNAPSHOTS_KEPT - 1)]:
            shutil.rmtree(self._scratch / str(number), ignore_errors=True)
        snapshot = self._scratch / str(numbers[-1] + 1 if numbers else 1)
        (snapshot / "objects").mkdir(mode=0o700, parents=True)
        return snapshot

    async def _repository(self) -> tuple[Path, Path]:
        """The root of the work tree and the folder of the repository's objects."""
        ask = ["rev-parse", "--path-format=absolute", "--show-toplevel", "--git-path", "objects"]
        lines = os.fsdecode(await _git(ask, self._project)).split("\n")
        if len(lines) != 3:
            raise _GitFailed("a path with a line break")
        return Path(lines[0]), Path(lines[1])

    async def _head(self, top: Path) -> str | None:
        try:
            return (await _git(["rev-parse", "--quiet", "--verify", "HEAD^{commit}"], top)).decode().strip()
        except _GitFailed:
            return None

    async def _tree(self, top: Path, objects: Path, snapshot: Path) -> str:
        index = Path(
            os.fsdecode(await _git(["rev-parse", "--path-format=absolute", "--git-path", "index"], top))[:-1]
        )
        copy = snapshot / "index"
        try:
            # With its time: git trusts an entry whose file is older than the index.
            await asyncio.to_thread(shutil.copy2, index, copy)
        except FileNotFoundError:
            pass  # nothing was ever added
        env = {
            "GIT_INDEX_FILE": str(copy),
            "GIT_OBJECT_DIRECTORY": str(snapshot / "objects"),
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": _quoted(objects),
        }
        await _git(["add", "--all", "--sparse"], top, env)
        if b"\x00160000 " in b"\0" + await _git(["ls-files", "--stage", "-z"], top, env):
            raise _GitFailed("a submodule: its files are not in the tree")
        tree = await _git(["write-tree"], top, env)
        copy.unlink()
        return tree.decode().strip()

    async def _commits(self, before: str | None, after: str | None) -> list[str]:
        if after is None or before == after:
            return []
        span = [after] if before is None else [f"{before}..{after}"]
        try:
            async with asyncio.timeout(TIME_LIMIT_S):
                listed = await _git(["rev-list", "--reverse", *span], self._project)
        except (_GitFailed, OSError, TimeoutError):
            return []
        return listed.decode().split()[:MOST_COMMITS]

    async def _files_changed(self, before: str, after: str) -> int:
        old, new = self._listing(before), self._listing(after)
        if old and new:
            differing = set(old.read_bytes().split(b"\0")) ^ set(new.read_bytes().split(b"\0"))
            return len({line.partition(b"/")[2] for line in differing})
        _, objects = await self._repository()
        stores = [objects, *self._scratch.glob("*/objects")]
        env = {"GIT_ALTERNATE_OBJECT_DIRECTORIES": ":".join(_quoted(store) for store in stores)}
        listed = await _git(
            ["diff-tree", "-r", "--name-only", "--no-renames", "-z", before, after], self._project, env
        )
        return listed.count(b"\0")

    def _listing(self, tree: str) -> Path | None:
        """What a walk found; snapshots between which nothing changed all have it."""
        return next(self._scratch.glob(f"*/{tree}"), None)


class _GitFailed(Exception):
    pass


async def _git(args: list[str], cwd: Path, env: dict[str, str] | None = None) -> bytes:
    """What a git command wrote; _GitFailed unless it succeeded. A cancelled one is killed."""
    process = await asyncio.create_subprocess_exec(
        *git.command(args, _SETTINGS),
        cwd=cwd,
        env=git.environment(env),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        out, _ = await process.communicate()
    except asyncio.CancelledError:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        raise
    if process.returncode != 0:
        raise _GitFailed(f"git {args[0]}: {process.returncode}")
    return out


def _quoted(path: Path) -> str:
    """A path as GIT_ALTERNATE_OBJECT_DIRECTORIES wants it, where `:` separates."""
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _walk(top: Path, snapshot: Path | None) -> str:
    """Fingerprint of names, sizes and times below `top`; what it was made of is left in the snapshot."""
    listing = b"\0".join(itertools.islice(_files(top), MOST_FILES_WALKED))
    name = f"walk-{hashlib.sha256(listing).hexdigest()}"
    if snapshot is not None:
        with contextlib.suppress(OSError):  # the disk is full: then only the number of files is not known
            (snapshot / name).write_bytes(listing)
    return name


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
