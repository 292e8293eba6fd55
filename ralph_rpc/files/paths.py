"""The name of every file and folder. It looks at the environment and builds paths, but changes no file."""

import os
from pathlib import Path
from typing import NamedTuple

from ralph_rpc.machine.nofollow import ralph_home

INBOX = "inbox"


class LoopPaths(NamedTuple):
    """The folder of one loop, `<project>/.ralph/<name>`."""

    dir: Path

    @classmethod
    def of(cls, project: Path, name: str) -> "LoopPaths":
        return cls(project / ".ralph" / name)

    @property
    def name(self) -> str:
        return self.dir.name

    @property
    def project(self) -> Path:
        return self.dir.parent.parent

    @property
    def task(self) -> Path:
        return self.dir / "task.md"

    @property
    def reflect(self) -> Path:
        return self.dir / "reflect.md"

    @property
    def config(self) -> Path:
        return self.dir / "config.json"

    @property
    def state(self) -> Path:
        return self.dir / "state.json"

    @property
    def pid(self) -> Path:
        return self.dir / "pid"

    @property
    def events(self) -> Path:
        return self.dir / "events.jsonl"

    @property
    def inbox(self) -> Path:
        return self.dir / INBOX

    @property
    def rejected(self) -> Path:
        return self.dir / INBOX / "rejected"

    @property
    def iterations(self) -> Path:
        return self.dir / "iterations"

    @property
    def commands(self) -> Path:
        return self.dir / "commands.jsonl"

    @property
    def tickets(self) -> Path:
        return self.dir / "tickets"

    @property
    def tickets_lock(self) -> Path:
        """Of the project, not of the loop."""
        return self.dir.parent / ".tickets.lock"

    @property
    def old_worktrees(self) -> Path:
        """Where versions before 0.2 made the worktrees of tickets; what is left there is still taken up."""
        return self.dir / "worktrees"

    def worktrees(self, base: str | None = None) -> Path:
        """The folder of the worktrees of tickets: below `base` (--worktrees-dir), by default in the user's data folder.

        Outside of the project, so that nothing that looks for its settings or packages further up finds the project's.
        """
        return (Path(base) if base else worktrees_base()) / project_key(self.project) / self.name

    @property
    def runner_lock(self) -> Path:
        return self.dir / "runner.lock"

    @property
    def tree_lock(self) -> Path:
        return self.dir / "tree.lock"

    @property
    def sessions(self) -> Path:
        return self.dir / "sessions"

    @property
    def worktree(self) -> Path:
        return self.dir / "worktree"

    @property
    def kill_order(self) -> Path:
        """There while `kill` ends the loop: its signal comes from a person."""
        return self.dir / ".kill"

    @property
    def far(self) -> Path:
        return self.dir / "far"

    @property
    def reserve(self) -> Path:
        return self.dir / ".reserve"

    @property
    def log(self) -> Path:
        return self.dir / "runner.log"


def data_dir() -> Path:
    """The user's data folder, outside of every project: consents, remembered loops, worktrees, an installed pi."""
    import platformdirs  # here: everyday commands need nothing from there

    return platformdirs.user_data_path("ralph-rpc")


def project_key(project: Path) -> str:
    """The name of a project's folder among those of others: the same for every path that leads to it."""
    import hashlib  # here: most commands need none

    return hashlib.sha256(os.fsencode(os.path.realpath(project))).hexdigest()[:16]


def worktrees_base() -> Path:
    """Where the worktrees of tickets are by default."""
    return data_dir() / "worktrees"


def registry_dir() -> Path:
    """$RALPH_HOME/registry, by default ~/.ralph/registry."""
    return Path(ralph_home()) / "registry"
