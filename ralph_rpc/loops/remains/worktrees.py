"""Where a loop's git worktrees are. Called by `clean` and `doctor`; changes nothing."""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from ralph_rpc import git
from ralph_rpc.errors import RalphError
from ralph_rpc.files import records
from ralph_rpc.files.atomic import Unreadable
from ralph_rpc.files.paths import LoopPaths, worktrees_base
from ralph_rpc.loops.consent import made_here
from ralph_rpc.machine import nofollow


def worktrees_of(loop: LoopPaths) -> list[Path]:
    """Where a loop's worktrees are or can be: the one of --worktree, and those of tickets."""
    tickets = [path for folder in _folders(loop) for path in _inside(folder)]
    return list(dict.fromkeys([loop.worktree, *tickets, *_recorded(loop)]))


def _folders(loop: LoopPaths) -> list[Path]:
    given: str | None = None
    with suppress(Unreadable):
        config = records.read_config(loop)
        given = config.get("worktreesDir") if config is not None and made_here(loop) else None
    return [loop.old_worktrees, loop.worktrees(given), loop.worktrees()]


def _inside(folder: Path) -> list[Path]:
    return [] if folder.is_symlink() else nofollow.entries(folder)


def _recorded(loop: LoopPaths) -> list[Path]:
    """Those that the tickets' records name elsewhere, as after a move of the project, if git knows them as well.

    What came along with a repository may name anybody's folder, in the records and in git's list: of a loop that was
    not started here, only what lies among this program's own worktrees is meant, and not another project's.
    """
    named = {Path(path) for record in records.read_tickets(loop).values() if (path := record["worktreePath"])}
    if not named:
        return []
    with suppress(RalphError):
        known = sorted(named.intersection(git.worktree_paths(loop.project)))
        return known if made_here(loop) else [path for path in known if _may_be_of(loop, path)]
    return []


def _may_be_of(loop: LoopPaths, path: Path) -> bool:
    link = _link(path)
    ours = path.parent.parent.parent == worktrees_base() and path.parent.name == loop.name
    return ours and link is not None and (link.is_relative_to(git.common_dir(loop.project)) or not link.exists())


def of_gone_projects() -> list[Path]:
    """Worktrees in the user's data folder whose repository is not where they say it is."""
    places = _grandchildren(worktrees_base())
    return [path for path in places if (link := _link(path)) is not None and not link.exists()]


def _grandchildren(base: Path) -> Iterable[Path]:
    return [path for project in _inside(base) for loop in _inside(project) for path in _inside(loop)]


def _link(worktree: Path) -> Path | None:
    try:
        text = (worktree / ".git").read_text()
    except (OSError, UnicodeDecodeError):
        return None
    return Path(text.removeprefix("gitdir:").strip()) if text.startswith("gitdir:") else None
