"""The steps of a ticket's job on disk: its worktree, its commits, its merge, its file. Blocking; one call per step.

Called in worker threads by `TicketHands`. A ticket's file travels with the work where git tracks it: then it is
closed on the ticket's own branch, and the user's copy changes with the merge, never before. Where git does not, the
user's copy is the only one. Every step may be repeated after a crash. Raises RalphError and OSError.
"""

import threading
from pathlib import Path
from typing import Any

from ralph_rpc import git
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.git import leftovers, merge, ticket_trees, update
from ralph_rpc.git.copying import copy_into
from ralph_rpc.git.repository import git_dir
from ralph_rpc.git.status import status_of
from ralph_rpc.model.config import Config
from ralph_rpc.tickets.frontmatter import fields
from ralph_rpc.tickets.markdown import MarkdownTickets
from ralph_rpc.tickets.ticket import Status
from ralph_runner.core.tickets import effects as fx
from ralph_runner.core.tickets import reports as rp

SET_UP = "ralph-set-up"
"""In a worktree's git_dir."""


class TicketFiles:
    """Of one loop. `project` is the user's checkout."""

    def __init__(self, paths: LoopPaths, config: Config, project: Path) -> None:
        self._paths, self._config, self._project = paths, config, project
        self._folder = Path(config.get("tickets") or "")
        self._into = config.get("into") or ""
        self._worktrees = bool(config.get("worktrees"))
        self._top = git.toplevel(project)
        self._writing = threading.Lock()
        """One change of the user's tickets at a time."""

    def workdir(self, ticket: str) -> Path:
        """Where the agent works."""
        return git.project_in(self.worktree(ticket), self._project) if self._worktrees else self._project

    def worktree(self, ticket: str) -> Path:
        """Where the ticket's worktree is, in a loop that has them."""
        return self._paths.worktrees / ticket

    def read(self, ticket: str) -> tuple[str, str, bool]:
        """The ticket's text, its path as the agent sees it, and whether it is closed, where the agent works."""
        source, path = self._copy(ticket)
        workdir = self.workdir(ticket)
        shown = path.relative_to(workdir) if path.is_relative_to(workdir) else path
        text = source.text(ticket)
        status = fields(text)[0].get("status")
        return text, str(shown), status is not None and status.value == "closed"

    def mark(self, ticket: str, status: Status | None, note: str | None) -> None:
        """A status, and a note, in the user's copy; where that changes by merges, the note goes with the work.

        The user's copy would otherwise be changed, and be in the way when the ticket is merged after all.
        """
        with self._writing:
            if self._travels(ticket):
                if note is not None:
                    self._note_on_branch(ticket, note)
                return
            source = MarkdownTickets(self._folder)
            if status is not None:
                source.set_status(ticket, status)
            if note is not None:
                source.add_note(ticket, note)

    def before_verify(self, ticket: str, title: str) -> str | None:
        """Commits what the agent left, so that only that is merged; None, or what the agent has to mend first."""
        return self._commit_rest(ticket, f"{ticket}: {title}") if self._worktrees else None

    def after_verify(self, ticket: str) -> None:
        """What the verification itself left in the worktree goes: it is not the agent's work."""
        if self._worktrees:
            leftovers.drop_uncommitted(self.worktree(ticket))

    def copy_files(self, ticket: str) -> list[str]:
        """Brings along what --worktree-copy names; what there is to say of it."""
        return copy_into(self.worktree(ticket), self._project, self._config.get("worktreeCopy", []))

    def note_set_up(self, ticket: str) -> None:
        """--worktree-setup need not run in this worktree again; one that is made anew knows nothing of it."""
        if (folder := git_dir(self.worktree(ticket))) is not None:
            (folder / SET_UP).touch()

    def carry_out(self, effect: Any) -> Any:
        """One step; the report of its outcome."""
        match effect:
            case fx.OpenWorktree(ticket, branch):
                base = ticket_trees.add_ticket_worktree(self._project, self.worktree(ticket), branch, self._into)
                folder = git_dir(self.worktree(ticket))
                set_up = folder is not None and (folder / SET_UP).exists()
                return rp.Opened(ticket, base.commit, str(self.worktree(ticket)), base.reused, set_up)
            case fx.Commit(ticket, subject):
                return self._commit(ticket, subject)
            case fx.LookAtTarget(ticket):
                return self._look(ticket)
            case fx.Update(ticket):
                found = update.update_from_target(self.worktree(ticket), self._into)
                return rp.Updated(ticket, _told(found) if isinstance(found, update.Conflict) else None)
            case fx.Land(ticket, target, subject):
                return self._land(ticket, target, subject)
            case fx.CloseTicket(ticket):
                with self._writing:
                    if not self._travels(ticket):
                        MarkdownTickets(self._folder).set_status(ticket, "closed")
                return rp.TicketClosed(ticket)
            case fx.RemoveWorktree(ticket):
                kept = ticket_trees.remove_ticket_worktree(
                    self._project, self.worktree(ticket), self._branch(ticket), self._into
                )
                return rp.Removed(ticket, kept)
            case fx.LookAtRest(ticket):
                return rp.RestSeen(ticket, self._rest())
        raise TypeError(f"no step of a ticket: {effect}")

    def _branch(self, ticket: str) -> str:
        return f"ralph/{self._paths.name}/{ticket}"

    def _path(self, ticket: str) -> Path:
        """The user's copy of the ticket."""
        usual = self._folder / f"{ticket}.md"
        return usual if usual.is_file() else MarkdownTickets(self._folder).scan().tickets[ticket].path

    def _copy(self, ticket: str) -> tuple[MarkdownTickets, Path]:
        """The ticket where the agent has it: in its worktree if git brought it there, else the user's."""
        path = self._path(ticket)
        if self._worktrees and self._top is not None and path.is_relative_to(self._top):
            own = self.worktree(ticket) / path.relative_to(self._top)
            if own.is_file() and not own.is_symlink():
                return MarkdownTickets(own.parent), own
        return MarkdownTickets(self._folder), path

    def _travels(self, ticket: str) -> bool:
        """Whether the merge brings the ticket's status to the user's copy."""
        path = self._path(ticket)
        if not self._worktrees or self._top is None or not path.is_relative_to(self._top):
            return False
        return git.run(["ls-files", "--error-unmatch", "--", str(path)], self._top, check=False).code == 0

    def _note_on_branch(self, ticket: str, note: str) -> None:
        """Committed, unless work lies about that nobody has verified."""
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
        # Verified work is committed already.
        committed = self._worktrees and self._config["verify"] is not None
        return rp.Committed(ticket, self._commit_rest(ticket, f"Close {ticket}" if committed else f"{ticket}: {subject}"))

    def _commit_rest(self, ticket: str, subject: str) -> str | None:
        where = self.worktree(ticket) if self._worktrees else self._project
        branch = self._branch(ticket) if self._worktrees else status_of(self._project, "no").branch
        done = leftovers.commit_leftovers(where, branch or "", subject, ticket)
        return done.reason if isinstance(done, leftovers.Refused) else None

    def _look(self, ticket: str) -> rp.Looked:
        match merge.preflight(self._project, self._branch(ticket), self._into):
            case merge.Ready(target=target):
                return rp.Looked(ticket, "ready", target)
            case merge.Behind(target=target):
                return rp.Looked(ticket, "behind", target)
            case conflict:
                return rp.Looked(ticket, "conflict", "", _told(conflict))

    def _land(self, ticket: str, target: str, subject: str) -> rp.Landed:
        message = leftovers.ticket_message(subject, ticket)
        match merge.land(self._project, self._branch(ticket), self._into, target, message):
            case merge.Landed(commit):
                return rp.Landed(ticket, commit)
            case merge.Waits(reason):
                return rp.Landed(ticket, waits=reason)
            case _:
                return rp.Landed(ticket)

    def _rest(self) -> str | None:
        """Uncommitted changes in the project itself, but for the tickets, which we write, too."""
        if self._top is None:
            return None
        top, tickets = self._top, self._folder
        changed = sum(not (top / entry.path).is_relative_to(tickets) for entry in status_of(self._project).entries)
        return f"{changed} uncommitted file{'s'[: changed != 1]}" if changed else None


def _told(conflict: update.Conflict) -> str:
    return f"Files: {', '.join(conflict.files)}\n\n{conflict.text}".strip()
