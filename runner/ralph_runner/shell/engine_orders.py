"""The head's side of the hub: orders for jobs, the records that they have left, and the branches that come with these.

Blocking; `engine` calls it in threads, one call for a ticket at a time. Every step may be repeated after a crash: an order is
one ref, a record is another, and neither is removed before what it says is here. Raises RalphError and OSError.
"""

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, cast

import orjson

from ralph_rpc import git
from ralph_rpc.errors import RalphError
from ralph_rpc.files.atomic import read_plain, write_atomic
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.files.shapes import misfit
from ralph_rpc.git import hub as hubs
from ralph_rpc.git.calls import GitError
from ralph_rpc.git.repository import branch_head, git_dir, is_ancestor
from ralph_rpc.model.config import Config
from ralph_rpc.model.work import ORDER, RECORD, WorkOrder, WorkRecord, order_ref, record_ref, records_of
from ralph_rpc.tickets.notes.memory import MemoryPlaces
from ralph_rpc.tickets.sources.opening import open_source
from ralph_rpc.tickets.ticket import branch_of
from ralph_runner.core.tickets import effects as fx

KEY_FILE = "engine.key"
_KEY = re.compile(r"[0-9a-f]{8}")
_JOB = re.compile(r"([0-9a-f]{8})-([1-9][0-9]*)")


class Found(NamedTuple):
    """A record at the hub."""

    ticket: str
    number: int
    report: WorkRecord


class EngineOrders:
    """Of one loop."""

    def __init__(self, paths: LoopPaths, config: Config) -> None:
        self._paths, self._config, self._hub = paths, config, config.get("hub")
        self._project, self._into = paths.project, config.get("into") or ""
        self._key = _key(paths)
        self._notes: dict[tuple[str, int], str] = {}
        """The commits of records."""
        self._seen: set[str] = set()
        """Refs of records that were told, or cannot be read."""

    @property
    def hub(self) -> str:
        """For a job."""
        return self._hub or str(git.toplevel(self._project) or self._project)

    def name(self, number: int) -> str:
        """Of a job of a ticket, as its order and its record have it: those of an earlier loop of this name have others."""
        return f"{self._key}-{number}"

    def order(self, effect: fx.SubmitJob) -> None:
        """Leaves the order at the hub, with the commits that the work begins with."""
        target = branch_head(self._project, self._into)
        if target is None:
            raise RalphError(f"branch {self._into!r} is gone", "restore it")
        start = branch_head(self._project, branch_of(self._paths.name, effect.ticket)) or target
        order: WorkOrder = {
            "loop": self._paths.name,
            "ticket": effect.ticket,
            "job": self.name(effect.number),
            "into": self._into,
            "project": self._inside(self._project),
            "tickets": str(Path(self._config.get("tickets") or "").relative_to(self._project)),
            "files": self._files(effect.ticket),
            "lessons": _text(MemoryPlaces.of(self._project, self._paths.dir).lessons),
            "messages": list(effect.messages),
            "author": {
                "name": self._setting("user.name", "GIT_AUTHOR_NAME"),
                "email": self._setting("user.email", "GIT_AUTHOR_EMAIL"),
            },
            "config": self._options(effect),
        }
        parents = [start, target] if start != target else [target]
        note = hubs.write_note(self._project, {ORDER: orjson.dumps(order)}, parents, f"{effect.ticket}: order")
        hubs.publish(self._project, self._hub, {order_ref(self._paths.name, effect.ticket): note})

    def _inside(self, folder: Path) -> str:
        top = git.toplevel(self._project)
        inside = "." if top is None else str(folder.resolve().relative_to(top.resolve()))
        return "" if inside == "." else inside

    def _setting(self, key: str, variable: str) -> str:
        return os.environ.get(variable) or git.run(["config", key], self._project, check=False).line

    def _files(self, ticket: str) -> dict[str, str]:
        """The ticket, and what it depends on, as they are here: a clone has no uncommitted ones."""
        source = open_source(self._project, self._config.get("tickets") or "")
        found, text = source.read(ticket)
        files = {found.path.name: text}
        for dep in found.deps:
            with suppress(RalphError):
                other, said = source.read(dep)
                files[other.path.name] = said
        return files

    def _options(self, effect: fx.SubmitJob) -> Config:
        config = self._config
        changes: dict[str, Any] = {
            "attempts": effect.attempts,
            "maxCost": effect.max_cost,
            "maxTokens": effect.max_tokens,
            "maxTimeMs": effect.max_time_ms,
            "maxIterations": 0,
            "pi": [] if config["pi"] == ["pi"] else config["pi"],
            "engine": None,
            "hub": None,
            "notify": None,
            "verifyParallel": None,
            "extensions": [self._there(path) for path in config["extensions"]],
            "skills": [self._there(path) for path in config["skills"]],
        }
        return cast(Config, {**config, **changes})

    def _there(self, path: str) -> str:
        """A path of the project's is relative: the clone is elsewhere."""
        known = Path(path)
        return str(known.relative_to(self._project)) if known.is_relative_to(self._project) else path

    def withdraw(self, ticket: str) -> None:
        """No job is wanted for the ticket: one that has not begun does nothing, one that runs ends itself."""
        hubs.publish(self._project, self._hub, {order_ref(self._paths.name, ticket): None})

    def look(self) -> list[Found]:
        """The records that have come since the last look."""
        there = hubs.refs(self._project, self._hub, records_of(self._paths.name))
        new = {ref: commit for ref, commit in there.items() if ref not in self._seen and self._number(ref) is not None}
        hubs.fetch(self._project, self._hub, list(new))
        found = []
        for ref, commit in new.items():
            self._seen.add(ref)
            number, report = self._number(ref), self._read(commit)
            if report is None or number is None or ref != record_ref(report["loop"], report["ticket"], report["job"]):
                continue
            self._notes[report["ticket"], number] = commit
            found.append(Found(report["ticket"], number, report))
        return found

    def _number(self, ref: str) -> int | None:
        """Of the job, if it is one of this loop's."""
        known = _JOB.fullmatch(ref.rpartition("/")[2])
        return int(known[2]) if known is not None and known[1] == self._key else None

    def _read(self, commit: str) -> WorkRecord | None:
        with suppress(orjson.JSONDecodeError, GitError):
            found: Any = orjson.loads(hubs.read_note(self._project, commit, RECORD))
            if misfit(found, WorkRecord) is None:
                return cast(WorkRecord, found)
        return None

    def take(self, ticket: str, number: int, worktree: Path) -> None:
        """The ticket's branch, and its worktree where there is one, get what the job has pushed."""
        tip = self._tip(ticket, number)
        if tip is None:
            raise RalphError(f"the work of {ticket} is not in its job's record", "")
        if git_dir(worktree) is not None:
            git.run(["reset", "--quiet", "--keep", tip], worktree, timeout=600)
        else:
            git.run(["update-ref", f"refs/heads/{branch_of(self._paths.name, ticket)}", tip], self._project)

    def _tip(self, ticket: str, number: int) -> str | None:
        note = self._notes.get((ticket, number))
        return next(iter(hubs.parents_of(self._project, note)), None) if note is not None else None

    def forget(self, ticket: str, number: int, withdraw: bool) -> str | None:
        """Removes what is left of a job; a branch keeps work that is on no other one, and is returned."""
        kept = self._keep(ticket, number)
        ref = record_ref(self._paths.name, ticket, self.name(number))
        gone: dict[str, str | None] = {ref: None}
        if withdraw:
            gone[order_ref(self._paths.name, ticket)] = None
        there: Mapping[str, str] = hubs.refs(self._project, self._hub, f"refs/ralph/{self._paths.name}")
        if here := {name: None for name in gone if name in there}:
            hubs.publish(self._project, self._hub, here)
        if self._hub is not None:
            git.run(["update-ref", "-d", ref], self._project)
        self._seen.discard(ref)
        self._notes.pop((ticket, number), None)
        return kept

    def _keep(self, ticket: str, number: int) -> str | None:
        tip = self._tip(ticket, number)
        branch = branch_of(self._paths.name, ticket)
        known = (branch_head(self._project, name) for name in (branch, self._into))
        if tip is None or any(head is not None and is_ancestor(self._project, tip, head) for head in known):
            return None
        kept = f"{branch}-job-{number}"
        git.run(["update-ref", f"refs/heads/{kept}", tip], self._project)
        return kept


def _key(paths: LoopPaths) -> str:
    """Drawn once for each run of a name; it moves to the archive with the rest of a loop."""
    place = paths.dir / KEY_FILE
    with suppress(OSError, UnicodeDecodeError):
        known = read_plain(place, 64, follow=False).decode().strip()
        if _KEY.fullmatch(known):
            return known
    drawn = os.urandom(4).hex()
    write_atomic(place, drawn.encode())
    return drawn


def _text(path: Path) -> str:
    try:
        return read_plain(path, 1 << 20, follow=False).decode()
    except (OSError, UnicodeDecodeError):
        return ""
