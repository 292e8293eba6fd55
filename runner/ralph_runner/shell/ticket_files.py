"""The steps of a ticket's job on disk: its worktree, its commits, its merge, its file. Blocking; one call per step.

Called in worker threads by `TicketEffects`. Where git tracks a ticket's file, the file travels with the work: it is
closed on the ticket's own branch, and the user's copy changes with the merge, never before. Otherwise the user's copy
is the only one. Every step may be repeated after a crash. Raises RalphError and OSError.

What git says is text from anywhere; it is made inert here, before it becomes a reason in a record or a prompt.
"""

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ralph_rpc import git
from ralph_rpc.errors import RalphError
from ralph_rpc.files import records
from ralph_rpc.files.atomic import make_private_dir
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.files.removal import remove_empty
from ralph_rpc.git import batch, fork, merge, queue_place, set_up, ticket_trees, uncommitted, update
from ralph_rpc.git.copying import copy_into
from ralph_rpc.git.installed import lend
from ralph_rpc.git.repository import branch_head, end_orphans, git_dir
from ralph_rpc.git.status import status_of
from ralph_rpc.git.trees import Conflict
from ralph_rpc.git.worktrees import QUEUE_PLACE
from ralph_rpc.model.config import Config
from ralph_rpc.model.ticket import file_name
from ralph_rpc.terminal.inert import inert
from ralph_rpc.terminal.width import line_of
from ralph_rpc.tickets.sources.opening import open_source
from ralph_rpc.tickets.sources.protocol import TicketSource
from ralph_rpc.tickets.ticket import Status, branch_of
from ralph_runner.core.tickets import effects as fx
from ralph_runner.core.tickets import results as rp
from ralph_runner.core.tickets.batch import Link

SET_UP = "ralph-set-up"
"""In a worktree's git_dir: --worktree-setup has succeeded in it."""
SUBJECT_COLUMNS = 200


class TicketFiles:
    """Of one loop. `project` is the user's checkout."""

    def __init__(self, paths: LoopPaths, config: Config, project: Path) -> None:
        self._paths, self._config, self._project = paths, config, project
        self._into = config.get("into") or ""
        self._worktrees = bool(config.get("worktrees"))
        self._top = git.toplevel(project)
        self._folder = paths.worktrees(config.get("worktreesDir"))
        self._recorded = {id: record["worktreePath"] for id, record in records.read_tickets(paths).items()}
        """Where an earlier runner had the worktrees."""
        self._tracked = self._worktrees and bool(self._by_line) and self._in_target(f"{self._by_line}/")
        self._began_on = self._head_file()
        self._queue_is_ours = False
        self._writing = threading.Lock()
        """One change of the user's tickets at a time."""

    def is_switched(self) -> bool:
        """Whether the user has another branch checked out than when the runner began, and with it other tickets."""
        return self._tracked and self._head_file() != self._began_on

    def lacks_tickets(self) -> bool:
        """Whether the user's copies are not to be had just now."""
        return self.is_switched() or not Path(self.tickets_folder).is_dir()

    def has_none_left(self) -> bool:
        """Whether the last ticket has left the target branch, and its folder with it, as git keeps no empty ones."""
        gone = self._tracked and not self.is_switched() and not os.path.lexists(self.tickets_folder)
        return gone and not self._in_target(self._by_line)

    def _head_file(self) -> bytes:
        folder = git_dir(self._top) if self._top is not None else None
        try:
            return (folder / "HEAD").read_bytes() if folder is not None else b""
        except OSError:
            return b""

    def _in_target(self, path: str) -> bool:
        """Whether git has something at this path, from the root of the repository, in the target branch."""
        assert self._top is not None
        found = git.run(
            ["ls-tree", "-z", "--full-tree", f"refs/heads/{self._into}", "--", path], self._top, check=False
        )
        return found.code == 0 and bool(found.out)

    def workdir(self, ticket: str) -> Path:
        """Where the agent works."""
        return git.project_in(self.worktree(ticket), self._project) if self._worktrees else self._project

    def worktree(self, ticket: str) -> Path:
        """Where the ticket's worktree is, in a loop that has them."""
        name = file_name(ticket)
        places = (self._recorded.get(ticket), self._paths.old_worktrees / name)
        return next((Path(place) for place in places if place and os.path.lexists(place)), self._folder / name)

    @property
    def queue_place(self) -> Path:
        """Where the merge queue verifies; beside the tickets' worktrees."""
        return self.worktree(QUEUE_PLACE)

    def queue_workdir(self) -> Path:
        return git.project_in(self.queue_place, self._project)

    def read(self, ticket: str) -> tuple[str, str, bool]:
        """The ticket's text, its path as the agent sees it, and whether it is closed, where the agent works."""
        source, path = self._copy(ticket)
        workdir = self.workdir(ticket)
        shown = path.relative_to(workdir) if path.is_relative_to(workdir) else path
        found, text = source.read(ticket)
        return text, str(shown), found.status == "closed"

    @property
    def tickets_folder(self) -> str:
        """Of the user's copies."""
        return self._source().where

    def own_file(self, ticket: str) -> str | None:
        """The ticket's file from the root of the checkout in which the agent works; None if it lies elsewhere."""
        top = self.worktree(ticket) if self._worktrees else self._top
        _, path = self._copy(ticket)
        return str(path.relative_to(top)) if top is not None and path.is_relative_to(top) else None

    def tickets_of(self, ticket: str) -> str:
        """The folder of the tickets as the agent has them."""
        source = self._source()
        own = source.in_checkout(self._top, self.worktree(ticket)) if self._top is not None else None
        return own.where if own is not None and Path(own.where).is_dir() else source.where

    def mark(self, ticket: str, status: Status | None, note: str | None) -> None:
        """Writes a status and a note into the user's copy; where that one changes by merges, the note goes with the work.

        Otherwise the changed copy would be in the way when the ticket is merged after all.
        """
        with self._writing:
            if self._travels(ticket):
                if note is not None:
                    self._note_on_branch(ticket, note)
                return
            source = self._source()
            if status is not None:
                source.set_status(ticket, status)
            if note is not None:
                source.add_note(ticket, note)

    def commit_work(self, ticket: str, title: str) -> str | None:
        """Commits what the agent left, so that only that is merged; None, or what the agent has to fix first."""
        return _problem(self._commit_rest(ticket, f"{ticket}: {title}")) if self._worktrees else None

    def after_verify(self, ticket: str) -> None:
        """Drops what the verification itself left in the worktree: it is not the agent's work."""
        if self._worktrees:
            uncommitted.drop_uncommitted(self.worktree(ticket))

    def copy_files(self, ticket: str) -> list[str]:
        """Copies what --worktree-copy names into the worktree; returns a line for each thing a person should know."""
        said = copy_into(self.worktree(ticket), self._project, self._config.get("worktreeCopy", []))
        return [inert(line, keep_newlines=False) for line in said]

    def clean_checkout(self, ticket: str) -> Path:
        """Where the ticket's commit is verified as others will get it; see `open_clean`."""
        return self.worktree(ticket).parent / f"{ticket_trees.CLEAN}{file_name(ticket)}"

    def open_clean(self, ticket: str) -> Path:
        """Makes that checkout, with the files of --worktree-copy; returns the place of the project in it."""
        head, place = branch_head(self._project, self.branch(ticket)), self.clean_checkout(ticket)
        if head is None:
            raise RalphError(f"branch {self.branch(ticket)!r} is gone", "restore it, then resume the loop")
        ticket_trees.open_clean(self._project, place, head)
        copy_into(place, self._project, self._config.get("worktreeCopy", []))
        return git.project_in(place, self._project)

    def lend_to_queue(self, tickets: Sequence[str]) -> None:
        """Without a setup, the merge queue has the packages that agents have installed."""
        for ticket in tickets:
            if git_dir(self.worktree(ticket)) is not None:
                lend(self.worktree(ticket), self.queue_place)

    def close_clean(self, ticket: str) -> None:
        """Removes it."""
        ticket_trees.close_clean(self._project, self.clean_checkout(ticket))

    def note_set_up(self, ticket: str) -> None:
        """--worktree-setup need not run in this worktree again; one that is made anew knows nothing of it."""
        if (folder := git_dir(self.worktree(ticket))) is not None:
            set_up.note_changes(self.worktree(ticket))
            (folder / SET_UP).touch()

    def carry_out(self, effect: Any) -> Any:
        """One step; the report of its outcome."""
        match effect:
            case fx.OpenWorktree(ticket, branch):
                make_private_dir(self._folder)
                base = ticket_trees.add_ticket_worktree(self._project, self.worktree(ticket), branch, self._into)
                fork.note_target(self.worktree(ticket), base.commit)
                folder = git_dir(self.worktree(ticket))
                ready = folder is not None and (folder / SET_UP).exists()
                return rp.Opened(ticket, base.commit, str(self.worktree(ticket)), base.reused, ready)
            case fx.Commit(ticket, subject):
                return self._commit(ticket, subject)
            case fx.Update(ticket):
                found = update.update_from_target(self.worktree(ticket), self._into, self._by_line)
                return rp.Updated(ticket, _told(found) if isinstance(found, Conflict) else None)
            case fx.BuildBatch(merges):
                return self._build(merges)
            case fx.CheckOutBatch(commit):
                make_private_dir(self._folder)
                if not self._queue_is_ours:
                    end_orphans(str(self.queue_place))  # of a runner that was killed
                    self._queue_is_ours = True
                everything = self._config.get("verifyClean") is not False
                queue_place.check_out(self._project, self.queue_place, commit, self._paths.name, everything)
                self.copy_files(QUEUE_PLACE)  # what there is to say of them, the tickets' worktrees have said
                return rp.BatchCheckedOut(commit)
            case fx.LandBatch(target, commit, tickets):
                return self._land(target, commit, tickets)
            case fx.LeaveQueue():
                queue_place.remove(self._project, self.queue_place)
                if not self._folder.is_symlink():
                    remove_empty(self._folder, self._folder.parent)
                return rp.QueueLeft()
            case fx.CloseTicket(ticket):
                with self._writing:
                    if not self._travels(ticket):
                        self._source().set_status(ticket, "closed")
                return rp.TicketClosed(ticket)
            case fx.CloseEpic(ticket):
                with self._writing:
                    if self._travels(ticket):
                        return rp.EpicTravels(ticket)
                    self._source().set_status(ticket, "closed")
                return rp.TicketClosed(ticket)
            case fx.RemoveWorktree(ticket):
                if self.clean_checkout(ticket).exists():  # a runner died in its verification
                    self.close_clean(ticket)
                kept = ticket_trees.remove_ticket_worktree(
                    self._project, self.worktree(ticket), self.branch(ticket), self._into
                )
                if kept is None and not self._folder.is_symlink():
                    remove_empty(self._folder, self._folder.parent)
                return rp.Removed(ticket, None if kept is None else inert(kept, keep_newlines=False))
            case fx.LookAtRest(ticket):
                return rp.RestSeen(ticket, self._rest())
        raise TypeError(f"no step of a ticket: {effect}")

    @property
    def _by_line(self) -> str:
        """The folder of the tickets from the root of the repository; empty where it is not in it."""
        where = Path(self._source().where)
        return str(where.relative_to(self._top)) if self._top is not None and where.is_relative_to(self._top) else ""

    def branch(self, ticket: str) -> str:
        """The ticket's own, in a loop with worktrees."""
        return branch_of(self._paths.name, ticket)

    def _source(self) -> TicketSource:
        """The user's tickets; opened for each step, as steps of different tickets run in different threads."""
        return open_source(self._paths.project, self._config.get("tickets") or "")

    def _copy(self, ticket: str) -> tuple[TicketSource, Path]:
        """The ticket where the agent has it: in its worktree if git brought it there, else the user's copy."""
        source = self._source()
        if self._worktrees and self._top is not None:
            own = source.in_checkout(self._top, self.worktree(ticket))
            if own is not None:
                try:
                    return own, own.locate(ticket)
                except RalphError:  # git does not track it, or the agent has deleted it
                    pass
        return source, source.locate(ticket)

    def _travels(self, ticket: str) -> bool:
        """Whether the merge brings the ticket's status to the user's copy, by what the target has: no switch changes that."""
        if not self._worktrees or self._top is None:
            return False
        _, path = self._copy(ticket)
        own = path.is_relative_to(self.worktree(ticket))
        root = self.worktree(ticket) if own else self._top
        return path.is_relative_to(root) and (self._in_target(str(path.relative_to(root))) or own)

    def _note_on_branch(self, ticket: str, note: str) -> None:
        """Committed, unless there are uncommitted changes that nobody has verified."""
        source, path = self._copy(ticket)
        if path.is_relative_to(self.worktree(ticket)):
            clean = not status_of(self.worktree(ticket)).entries
            source.add_note(ticket, note)
            if clean:
                self._commit_rest(ticket, f"Note on {ticket}")

    def _commit(self, ticket: str, subject: str) -> rp.Committed:
        """Closes the ticket where its file travels, or where there is only one, and commits it with all that is left."""
        source, path = self._copy(ticket)
        if not self._worktrees or path.is_relative_to(self.worktree(ticket)):
            with self._writing:
                source.set_status(ticket, "closed")
        if not self._worktrees and self._top is None:
            return rp.Committed(ticket)
        # Verified work is committed already, by `commit_work`: only the closed ticket is left.
        committed = self._worktrees and self._config["verify"] is not None
        done = self._commit_rest(ticket, f"Close {ticket}" if committed else f"{ticket}: {subject}")
        if (problem := _problem(done)) is not None:
            return rp.Committed(ticket, problem)
        if self._worktrees:
            return rp.Committed(ticket, tree=self._tree(ticket))
        return rp.Committed(ticket, commit=done if isinstance(done, str) else None)

    def _tree(self, ticket: str) -> str | None:
        found = git.run(["rev-parse", f"refs/heads/{self.branch(ticket)}^{{tree}}"], self._project, check=False)
        return found.line if found.code == 0 else None

    def _commit_rest(self, ticket: str, subject: str) -> str | uncommitted.Refused | None:
        """The commit; None: there was nothing to commit."""
        where = self.worktree(ticket) if self._worktrees else self._project
        branch = self.branch(ticket) if self._worktrees else status_of(self._project, "no").branch
        done = uncommitted.commit_leftovers(where, branch or "", commit_message(subject, ticket))
        if (
            self._worktrees
            and not isinstance(done, uncommitted.Refused)
            and set_up.has_changed(where)
            and (left := self.left_target(ticket)) is not None
        ):
            set_up.leave_out(where, left, commit_message("Leave out what --worktree-setup changed", ticket))
        return done

    def left_target(self, ticket: str) -> str | None:
        """The target's commit at which the ticket's branch left it."""
        target = branch_head(self._project, self._into)
        head = branch_head(self._project, self.branch(ticket))
        return fork.fork_point(self._project, self.worktree(ticket), target, head) if target and head else None

    def _build(self, merges: tuple[tuple[str, str], ...]) -> rp.BatchBuilt:
        ticket_of = {self.branch(ticket): ticket for ticket, _ in merges}
        parts = [
            batch.Part(self.branch(ticket), commit_message(subject, ticket), self.worktree(ticket))
            for ticket, subject in merges
        ]
        built = batch.build_batch(self._project, self._into, parts, self._by_line)
        return rp.BatchBuilt(
            built.target,
            built.tree,
            tuple(Link(ticket_of[link.branch], link.commit, link.tree) for link in built.links),
            landed={ticket_of[branch]: commit for branch, commit in built.landed.items()},
            conflicts={ticket_of[branch]: _told(conflict) for branch, conflict in built.conflicts.items()},
            behind=frozenset(ticket_of[branch] for branch in built.behind),
            outdated=frozenset(ticket_of[branch] for branch in built.outdated),
            waits={ticket_of[branch]: inert(why, keep_newlines=False) for branch, why in built.waits.items()},
            faults={ticket_of[branch]: inert(why, keep_newlines=False) for branch, why in built.faults.items()},
        )

    def _land(self, target: str, commit: str, tickets: tuple[str, ...]) -> rp.BatchLanded:
        branches = [self.branch(ticket) for ticket in tickets]
        match merge.land(self._project, self._into, target, commit, branches, self._by_line):
            case merge.Landed(commit):
                return rp.BatchLanded(commit)
            case merge.Waits(reason):
                return rp.BatchLanded(waits=inert(reason, keep_newlines=False))
            case _:
                return rp.BatchLanded()

    def _rest(self) -> str | None:
        """Uncommitted changes in the project itself, except in the tickets, which the runner writes as well."""
        if self._top is None:
            return None
        top, source = self._top, self._source()
        changed = sum(not source.holds(top / entry.path) for entry in status_of(self._project).entries)
        return f"{changed} uncommitted file{'s'[: changed != 1]}" if changed else None


def commit_message(subject: str, ticket: str) -> str:
    """The message of a commit that is made for a ticket, with its trailer."""
    title, id = line_of(subject, SUBJECT_COLUMNS), line_of(ticket, SUBJECT_COLUMNS)
    return f"{title or id}\n\nTicket: {id}\n"


def _problem(done: str | uncommitted.Refused | None) -> str | None:
    """What the agent has to fix before its work can be committed."""
    return inert(done.reason, keep_newlines=False) if isinstance(done, uncommitted.Refused) else None


def _told(conflict: Conflict) -> str:
    files = ", ".join(inert(file, keep_newlines=False) for file in conflict.files)
    return f"Files: {files}\n\n{inert(conflict.text)}".strip()
