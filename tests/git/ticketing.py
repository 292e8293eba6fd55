"""One ticket's way through git, as the runner takes it."""

from dataclasses import dataclass
from pathlib import Path

from ralph_rpc.git.leftovers import Refused, commit_leftovers, ticket_message
from ralph_rpc.git.merge import Behind, Landed, Moved, Ready, Waits, land, preflight
from ralph_rpc.git.ticket_trees import Base, add_ticket_worktree, remove_ticket_worktree
from ralph_rpc.git.update import Conflict, update_from_target


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
        return f"ralph/x/{self.id}"

    def add(self) -> Base:
        return add_ticket_worktree(self.project, self.path, self.branch, self.into)

    def write(self, name: str, text: str) -> None:
        """What the agent does."""
        (self.path / name).parent.mkdir(parents=True, exist_ok=True)
        (self.path / name).write_text(text)

    def commit(self) -> str | Refused | None:
        return commit_leftovers(self.path, self.branch, f"Work on {self.id}", self.id)

    def look(self) -> Ready | Behind | Conflict:
        return preflight(self.project, self.branch, self.into)

    def update(self) -> str | Conflict:
        return update_from_target(self.path, self.into)

    def land(self) -> Landed | Waits | Conflict:
        """All steps up to the move of the ref, as often as others are faster."""
        while True:
            found = self.look()
            if isinstance(found, Conflict):
                return found
            if isinstance(found, Behind):
                updated = self.update()
                if isinstance(updated, Conflict):
                    return updated
                continue
            message = ticket_message(f"Merge {self.id}", self.id)
            landed = land(self.project, self.branch, self.into, found.target, message)
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
