"""Runs --verify for a ticket: in its worktree, or in a checkout of the commit itself, which is all that others will get.

Used by `ticket_effects`, for a claim. The second way is taken where the ticket made files that git ignores, or anything
else that no commit takes along: verify in the worktree would see it, and a clone would not. --verify-clean and
--no-verify-clean decide it for all. If the machine dies here, the checkout is replaced by the next one, or goes with the
worktree.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from ralph_rpc.git.ignored_files import Made
from ralph_rpc.git.installed import lend
from ralph_rpc.model.config import Config
from ralph_rpc.model.iteration import Verify
from ralph_rpc.terminal.inert import inert
from ralph_runner.shell.claims import NOTHING, Claims
from ralph_runner.shell.ticket_environment import TicketEnvironment
from ralph_runner.shell.ticket_files import TicketFiles
from ralph_runner.shell.verify import Verification

SHOWN = 10


class TicketVerify:
    """Of one loop."""

    def __init__(self, config: Config, files: TicketFiles, claims: Claims, environment: TicketEnvironment) -> None:
        self._config, self._files, self._claims, self._environment = config, files, claims, environment

    async def run(self, ticket: str, verification: Verification, command: str, timeout_ms: int) -> Verify | None:
        """The run of the command; None if it was cancelled. Raises as `Verification.run`, and RalphError."""
        made = NOTHING
        clean = self._config.get("verifyClean")
        if clean is not False and self._config.get("worktrees"):
            made = await asyncio.to_thread(self._claims.made, ticket)
        if not clean and made == NOTHING:
            workdir = self._files.workdir(ticket)
            return await verification.run(command, workdir, self._environment.of(ticket), timeout_ms)
        workdir = await asyncio.to_thread(self._files.open_clean, ticket)
        try:
            return await self._in_clean(ticket, verification, command, timeout_ms, workdir, made)
        finally:
            await asyncio.to_thread(self._files.close_clean, ticket)

    async def _in_clean(
        self, ticket: str, verification: Verification, command: str, timeout_ms: int, workdir: Path, made: Made
    ) -> Verify | None:
        env, setup = self._environment.of(ticket, workdir), self._config.get("worktreeSetup")
        lacks: list[str] = []
        if not setup:
            lacks = await asyncio.to_thread(lend, self._files.worktree(ticket), self._files.clean_checkout(ticket))
        else:
            prepared = await verification.run(setup, workdir, env, timeout_ms)
            if prepared is None or prepared["exitCode"] != 0:
                return None if prepared is None else _told(prepared, made, lacks)
        done = await verification.run(command, workdir, env, timeout_ms)
        return _told(done, made, lacks) if done is not None and done["exitCode"] != 0 else done


def _told(run: Verify, made: Made, lacks: list[str]) -> Verify:
    """With where it ran, and what was missing there."""
    lines = [run["tail"].rstrip(), "", "(This ran in a fresh checkout of your commit, not in your directory."]
    if made.ignored:
        lines.append(f"Files that git ignores were not there: {_named(made.ignored)}.")
        lines.append("What the work needs of them must be committed (`git add -f`), or be made by what is run here.")
    if made.other:
        lines.append(f"No commit takes these along: {_named(made.other)}.")
    if lacks:
        lines.append(
            f"Not there either: {_named(lacks)}, which leads into your directory; the loop has no --worktree-setup."
        )
    return {**run, "tail": "\n".join(lines).lstrip("\n") + ")"}


def _named(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - SHOWN} more" if len(paths) > SHOWN else ""
    return ", ".join(inert(path, keep_newlines=False) for path in paths[:SHOWN]) + more
