"""The folder in which a job works on one ticket: a clone of the hub, and what the loop in it needs of its own.

Used by `work` under the folder's lock. A job that is begun again on the same machine finds its clone, with all that its
first run has done; what another job has left is removed. If the machine dies here, the next job on this ticket cleans up.
"""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, cast

import orjson

from ralph_rpc.errors import AlreadyRunning, RalphError, UsageError
from ralph_rpc.files import trust
from ralph_rpc.files.atomic import Unreadable, ensure_ralph_dir, make_private_dir, read_json_object, write_atomic
from ralph_rpc.files.inbox import drop
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.files.removal import remove_tree
from ralph_rpc.files.shapes import misfit
from ralph_rpc.git import hub as hubs
from ralph_rpc.git.calls import CHECKOUT_TIMEOUT_S, GitError, run
from ralph_rpc.machine import locks
from ralph_rpc.model.config import Config
from ralph_rpc.model.work import ORDER, WorkOrder, order_ref, record_ref
from ralph_rpc.tickets.ticket import branch_of

BEFORE_US_S = 60.0
"""For an earlier run of the job, which is just ending."""


class Errand(NamedTuple):
    """What `work` was asked for."""

    ticket: str
    hub: str
    loop: str
    job: str | None
    """None: nobody has ordered it; it is done by the options of the command line."""


class Workplace(NamedTuple):
    """The folder of one errand."""

    base: Path
    errand: Errand

    @property
    def clone(self) -> Path:
        return self.base / "clone"

    @property
    def home(self) -> Path:
        """Instead of ~/.ralph, which other machines may share."""
        return self.base / "home"

    @property
    def worktrees(self) -> Path:
        return self.base / "worktrees"

    @property
    def _mark(self) -> Path:
        return self.base / "work.json"

    @contextmanager
    def held(self) -> Iterator[None]:
        """No other job works here meanwhile. AlreadyRunning where one does."""
        make_private_dir(self.base)
        lock = locks.acquire(self.base / "lock", BEFORE_US_S)
        if lock is None:
            raise AlreadyRunning(f"{self.errand.ticket} is being worked on in {self.base}", "wait for that job's end")
        with lock:
            yield

    def is_begun(self) -> bool:
        """Whether this very job has begun here before."""
        with suppress(Unreadable, OSError):
            return read_json_object(self._mark) == self.errand._asdict()
        return False

    def begin(self) -> None:
        """From now on what is here is this job's."""
        write_atomic(self._mark, orjson.dumps(self.errand._asdict()))

    def clear(self) -> None:
        """Removes all but the lock's file."""
        for path in (self._mark, self.home, self.worktrees, self.clone):
            with suppress(FileNotFoundError):
                remove_tree(path) if path.is_dir() else path.unlink()

    def leave(self, paths: LoopPaths) -> None:
        """All is pushed: nothing stays. What cannot be removed is the next job's to remove."""
        with suppress(OSError, RalphError):
            trust.forget_loop(paths)
        with suppress(OSError):
            remove_tree(self.base)


def workplace(errand: Errand, folder: Path | None) -> Workplace:
    """Where the errand is done: `folder`, or one below the system's folder for temporary files. UsageError."""
    if folder is not None:
        base = folder.resolve()
        if base.exists() and any(base.iterdir()) and not (base / "work.json").exists():
            raise UsageError(f"{base} is not empty", "--dir takes a new or an empty folder")
        return Workplace(base, errand)
    key = hashlib.sha256(f"{errand.hub}\0{errand.loop}\0{errand.ticket}".encode()).hexdigest()[:16]
    above = Path(tempfile.gettempdir()).resolve() / f"ralph-work-{os.geteuid()}"
    make_private_dir(above)
    found = above.lstat()
    if found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise UsageError(f"{above} belongs to somebody else", "name another folder: --dir, or TMPDIR")
    return Workplace(above / key, errand)


def is_wanted(place: Workplace) -> bool:
    """Whether the head still wants this job done, and has no record of it. GitError where the hub cannot be asked."""
    errand = place.errand
    if errand.job is None:
        return True
    record = record_ref(errand.loop, errand.ticket, errand.job)
    if hubs.refs(place.base, errand.hub, record):
        return False
    order = hubs.refs(place.base, errand.hub, order_ref(errand.loop, errand.ticket)).values()
    if not order or not place.is_begun():
        return bool(order)
    # Each order is a commit of its own: the one that was fetched is this job's.
    known = run(["rev-parse", "--verify", "--quiet", "refs/order"], place.clone, check=False)
    return known.code != 0 or known.line in order


def open_clone(place: Workplace) -> bool:
    """Makes a clone of the hub, with the order if there is one; False where that is for another job. UsageError, GitError."""
    errand = place.errand
    if errand.job is None:
        words = ["clone", "--quiet", "--no-recurse-submodules", errand.hub, str(place.clone)]
        run(words, place.base, timeout=CHECKOUT_TIMEOUT_S)
        return True
    run(["init", "--quiet", str(place.clone)], place.base)
    ref = order_ref(errand.loop, errand.ticket)
    hubs.fetch(place.clone, errand.hub, [ref])
    note = run(["rev-parse", ref], place.clone).line
    run(["update-ref", "refs/order", note], place.clone)
    run(["update-ref", "-d", ref], place.clone)
    order = read_order(place.clone)
    if order["job"] != errand.job or order["loop"] != errand.loop:
        return False
    start, *rest = hubs.parents_of(place.clone, note)
    target = rest[0] if rest else start
    run(["update-ref", f"refs/heads/{order['into']}", target], place.clone)
    if start != target:
        run(["update-ref", f"refs/heads/{branch_of(order['loop'], order['ticket'])}", start], place.clone)
    run(["symbolic-ref", "HEAD", f"refs/heads/{order['into']}"], place.clone)
    run(["reset", "--quiet", "--hard"], place.clone, timeout=CHECKOUT_TIMEOUT_S)
    run(["config", "user.name", order["author"]["name"]], place.clone)
    run(["config", "user.email", order["author"]["email"]], place.clone)
    return True


def read_order(clone: Path) -> WorkOrder:
    """The order that a clone was made for. UsageError where it is none."""
    try:
        found: Any = orjson.loads(hubs.read_note(clone, "refs/order", ORDER))
    except (orjson.JSONDecodeError, GitError) as error:
        raise UsageError(f"the order cannot be read: {error}", "start jobs with: ralph-rpc start --engine") from None
    if (problem := misfit(found, WorkOrder)) is not None:
        raise UsageError(f"the order cannot be used: {problem}", "use the same version of ralph-rpc everywhere")
    return cast(WorkOrder, found)


def project_of(place: Workplace, order: WorkOrder) -> Path:
    """The project in the clone."""
    return place.clone / order["project"]


def furnish(place: Workplace, order: WorkOrder) -> Config:
    """The tickets as the head has them, what the agent is to be told first, and the options of the loop in the clone."""
    project = project_of(place, order)
    folder = project / order["tickets"]
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in order["files"].items():
        (folder / Path(name).name).write_text(text)
    paths = LoopPaths.of(project, order["loop"])
    ensure_ralph_dir(project)
    for made in (paths.dir, paths.inbox):
        make_private_dir(made)
    if order["lessons"]:
        write_atomic(paths.dir / "lessons.md", order["lessons"].encode())
    for message in order["messages"]:
        drop(paths.inbox, "steer", {"message": message})
    config = order["config"]
    return {
        **config,
        # Those of the project's are told from its folder.
        "extensions": [str(project / path) for path in config["extensions"]],
        "skills": [str(project / path) for path in config["skills"]],
        "tickets": str(folder),
        "only": [order["ticket"]],
        "into": order["into"],
        "parallel": 1,
        "worktrees": True,
        "worktreesDir": str(place.worktrees),
        "keepWorktrees": None,
        "merge": False,
        "takeInProgress": True,
        "assignees": [],
        "tags": [],
        "notify": None,
    }
