"""The environment of pi, --worktree-setup and --verify in a ticket's worktree.

Used by `ticket_effects`. In a worktree nothing leads into the main checkout: no virtual environment, no PATH entry, no
repository of git's; what was taken out is told once. Each worker has a number and ports of its own. Nothing is kept on
disk.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.git.worktrees import QUEUE_PLACE
from ralph_rpc.machine.leads import without_leads
from ralph_runner.shell.environment import checkout_of, child_environment, told_of
from ralph_runner.shell.ticket_files import TicketFiles
from ralph_runner.shell.workers import Workers


class TicketEnvironment:
    """Of one loop."""

    def __init__(
        self,
        paths: LoopPaths,
        tmp: Path,
        files: TicketFiles,
        worktrees: bool,
        parallel: int,
        tell: Callable[[str], None],
    ) -> None:
        self.workers = Workers(parallel, QUEUE_PLACE)
        self._paths, self._tmp, self._files, self._worktrees = paths, tmp, files, worktrees
        self._checkout = checkout_of(paths) if worktrees else None
        self._tell: Callable[[str], None] | None = tell

    def of(self, ticket: str, workdir: Path | None = None) -> dict[str, str]:
        """For a command of this ticket's, in its worktree or at `workdir` in the checkout that is verified."""
        env = child_environment(self._paths, self._tmp, ticket)
        env["RALPH_WORKER"] = str(self.workers.number_of(ticket))
        env["RALPH_PORT_BASE"] = str(self.workers.port_base(ticket))
        if self._checkout is None:
            return env
        own = self._files.worktree(ticket) if workdir is None else self._files.clean_checkout(ticket)
        cleaned = without_leads(env, self._checkout, own)
        told, clean = told_of(cleaned, self._checkout), cleaned.env
        if told is not None and self._tell is not None:
            self._tell(told)
            self._tell = None
        clean |= {"PWD": str(workdir or self._files.workdir(ticket))}
        # Without it, tk would find no tickets where git does not bring them into the worktree.
        return clean | {"TICKETS_DIR": self._files.tickets_of(ticket)}

    def of_queue(self, tickets: Sequence[str]) -> dict[str, str]:
        """For a command of the merge queue's, in its own place: a worker beside the others.

        RALPH_TICKETS has all tickets of the batch, RALPH_TICKET the last of them.
        """
        env = {**self.of(QUEUE_PLACE), "RALPH_TICKETS": " ".join(tickets)}
        env.pop("RALPH_TICKET")
        return env | {"RALPH_TICKET": tickets[-1]} if tickets else env

    def of_pi(self, ticket: str) -> dict[str, str]:
        """For the ticket's pi; one that works on several would keep the name of the first."""
        env = self.of(ticket)
        if not self._worktrees:
            env.pop("RALPH_TICKET", None)
        return env
