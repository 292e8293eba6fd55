"""Real repositories in tmp_path, and a way to change them as a person would."""

import os
import subprocess
from pathlib import Path

import pytest


class Repo:
    """A git repository at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def git(self, *args: str, at: Path | None = None) -> str:
        """Output of `git ARGS`, run at `at` (default: the repository's root)."""
        done = subprocess.run(["git", *args], cwd=at or self.path, check=True, capture_output=True)
        return os.fsdecode(done.stdout).strip()

    def write(self, name: str, text: str, at: Path | None = None) -> Path:
        path = (at or self.path) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def commit(self, name: str, text: str, at: Path | None = None) -> str:
        """Commit a file with this text; return the commit."""
        self.write(name, text, at)
        self.git("add", "--", name, at=at)
        self.git("commit", "-qm", f"{name}: {text[:20]}", at=at)
        return self.git("rev-parse", "HEAD", at=at)

    def branches(self) -> set[str]:
        return set(self.git("for-each-ref", "--format=%(refname:lstrip=2)", "refs/heads").split())


def new_repo(path: Path) -> Repo:
    """A repository without a commit."""
    path.mkdir(parents=True)
    repo = Repo(path)
    repo.git("init", "-q")
    return repo


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    """A repository with one commit, a .gitignore, and a .ralph folder such as `start` makes."""
    repo = new_repo(tmp_path / "my project")
    repo.write(".gitignore", "*.log\nbuild/\n")
    repo.git("add", ".gitignore")
    repo.commit("a.txt", "one\n")
    repo.write(".ralph/.gitignore", "*\n")
    (repo.path / ".ralph/x").mkdir()
    return repo


@pytest.fixture
def tree(repo: Repo) -> Path:
    """Where the loop `x` has its worktree."""
    return repo.path / ".ralph/x/worktree"
