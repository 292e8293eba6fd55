"""One ticket's way through git, as the runner takes it."""

from dataclasses import dataclass
from pathlib import Path

from ralph_rpc.git.batch import Built, Part, build_batch
from ralph_rpc.git.fork import note_target
from ralph_rpc.git.merge import Landed, Moved, Waits, land
from ralph_rpc.git.ticket_trees import Base, add_ticket_worktree, remove_ticket_worktree
from ralph_rpc.git.trees import Conflict
from ralph_rpc.git.uncommitted import Refused, commit_leftovers
from ralph_rpc.git.update import update_from_target
from ralph_rpc.tickets.ticket import branch_of

TICKETS = ".tickets"
"""The folder of the tickets."""


@dataclass
class Ticket:
    """A ticket of the loop `x` of a project."""

    project: Path
    id: str = "ab-1"
    into: str = "main"

    @property
    def path(self) -> Path:
        return self.project / ".ralph/x/worktrees" / self.id

    @property
    def branch(self) -> str:
        return branch_of("x", self.id)

    def add(self) -> Base:
        base = add_ticket_worktree(self.project, self.path, self.branch, self.into)
        note_target(self.path, base.commit)
        return base

    def write(self, name: str, text: str) -> None:
        """What the agent does."""
        (self.path / name).parent.mkdir(parents=True, exist_ok=True)
        (self.path / name).write_text(text)

    def message(self, subject: str) -> str:
        return f"{subject}\n\nTicket: {self.id}\n"

    def commit(self) -> str | Refused | None:
        return commit_leftovers(self.path, self.branch, self.message(f"Work on {self.id}"))

    def look(self) -> Built:
        """What the branch and the target come to; changes nothing."""
        part = Part(self.branch, self.message(f"Merge {self.id}"), self.path)
        return build_batch(self.project, self.into, [part], TICKETS)

    def conflict(self) -> Conflict | None:
        return self.look().conflicts.get(self.branch)

    def update(self) -> str | Conflict:
        return update_from_target(self.path, self.into, TICKETS)

    def land_built(self, built: Built) -> Landed | Moved | Waits:
        return land(self.project, self.into, built.target, built.links[-1].commit, [self.branch], TICKETS)

    def land(self) -> Landed | Waits | Conflict:
        """All steps up to the move of the ref, as often as others are faster."""
        while True:
            built = self.look()
            if self.branch in built.landed:
                return Landed(built.landed[self.branch])
            if self.branch in built.waits:
                return Waits(built.waits[self.branch])
            if self.branch in built.conflicts:
                return built.conflicts[self.branch]
            if self.branch in built.outdated:
                updated = self.update()
                if isinstance(updated, Conflict):
                    return updated
                continue
            landed = self.land_built(built)
            if not isinstance(landed, Moved):
                return landed

    def remove(self) -> str | None:
        return remove_ticket_worktree(self.project, self.path, self.branch, self.into)

    def run(self, name: str, text: str) -> Landed | Waits | Conflict:
        """A whole ticket that writes one file, up to its merge."""
        self.add()
        self.write(name, text)
        committed = self.commit()
        assert not isinstance(committed, Refused), committed
        return self.land()
