"""What a ticket's worktree costs beside git's own `worktree add` and `worktree remove`."""

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ralph_rpc.git.ticket_trees import add_ticket_worktree, remove_ticket_worktree
from tests.benchmarks.bench_commands import home
from tests.benchmarks.measure import Context, Cost, in_turn
from tests.benchmarks.table import Row

FILES = 2_000
SIZE = 4_000
ROUNDS = 9


def repository(folder: Path) -> Path:
    """A project with one commit, and a loop's folder."""
    for number in range(FILES):
        file = folder / f"src/part{number % 40}/module{number}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"# {number}\n" * (SIZE // (len(str(number)) + 3)))
    for args in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-qm", "first"]):
        git(folder, *args)
    (folder / ".ralph").mkdir()
    (folder / ".ralph/.gitignore").write_text("*\n")
    return folder


def git(folder: Path, *args: str) -> None:
    subprocess.run(["git", *args], cwd=folder, check=True, stdin=subprocess.DEVNULL)


def timed(work: Callable[[], None]) -> Callable[[], Cost]:
    """The wall time is what counts: nearly all of it is git's."""

    def side() -> Cost:
        began = time.perf_counter()
        work()
        return Cost(time.perf_counter() - began, 0, 0)

    return side


def worktrees(context: Context) -> Iterator[Row]:
    """A new branch each time; ours also locks it, looks for work in it, and deletes the branch."""
    with home(context, "worktrees") as folder:
        project = repository(folder / "web")
        path = project / ".ralph/x/worktrees/ab-1"
        numbers = iter(range(1_000))

        def ours() -> None:
            branch = f"ralph/x/{next(numbers)}"
            add_ticket_worktree(project, path, branch, "main")
            why = remove_ticket_worktree(project, path, branch, "main")
            assert why is None, why

        def plain() -> None:
            git(project, "worktree", "add", "--quiet", "-b", f"plain/{next(numbers)}", str(path), "main")
            git(project, "worktree", "remove", str(path))

        took = in_turn(ROUNDS, ours=timed(ours), plain=timed(plain))
    what = f"a ticket's worktree of {FILES:,} files, added and removed"
    yield Row(14, what, took["ours"].wall * 1000, took["plain"].wall * 1000, "ms", "git worktree add, remove", 1.10)


BENCHMARKS = {"worktrees": worktrees}
