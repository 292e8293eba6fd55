"""Every file and folder by name. Pure: it looks at the environment and builds paths, it touches nothing."""

import os
from pathlib import Path
from typing import NamedTuple

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
    def worktrees(self) -> Path:
        return self.dir / "worktrees"

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
    def reserve(self) -> Path:
        return self.dir / ".reserve"

    @property
    def log(self) -> Path:
        return self.dir / "runner.log"


def registry_dir() -> Path:
    """$RALPH_HOME/registry, by default ~/.ralph/registry."""
    home = os.environ.get("RALPH_HOME")
    return (Path(home) if home else Path.home() / ".ralph") / "registry"
