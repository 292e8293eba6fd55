"""What an agent's claim that its ticket is done is held against, before verify: is there any work, and will it be merged?

Used by `ticket_effects`; blocking, called in worker threads. What there was before the agent began is noted on disk: beside the
worktree's index, or in the loop's folder where the agent works in the project itself. What the agent has been told is
noted as well, so that it is told once. If the machine dies before a note, the same is noted, or told, again.

Without a repository nothing is known, and every claim passes.
"""

import json
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

from ralph_rpc import git
from ralph_rpc.files.atomic import write_atomic
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.git.elsewhere import Before, Place, found_since, look, stashes_since
from ralph_rpc.git.ignored_files import Made, left_behind, made_since
from ralph_rpc.git.repository import git_dir
from ralph_rpc.git.set_up import left_by_setup
from ralph_rpc.git.status import status_of
from ralph_rpc.model.config import Config
from ralph_rpc.terminal.inert import inert
from ralph_runner.shell.ticket_files import TicketFiles

BEFORE, TOLD = "ralph-before", "ralph-told"
SHOWN = 10
LARGEST = 4 << 20
"""Bytes of a file that is searched for the worktree's name."""
NOTHING = Made((), ())


class Outcome(NamedTuple):
    """How a ticket that is done leaves the repository."""

    unchanged: bool
    """Its branch holds nothing beyond the ticket's own file."""
    left: tuple[str, ...]
    """Stash entries that it made."""


class Claims:
    """Of one loop."""

    def __init__(self, paths: LoopPaths, config: Config, files: TicketFiles) -> None:
        self._paths, self._config, self._files = paths, config, files
        self._worktrees = bool(config.get("worktrees"))
        self._top = git.toplevel(paths.project)

    def begin(self, ticket: str) -> None:
        """Notes what there is before the agent begins, once."""
        where, note = self._where(ticket), self._note(ticket, BEFORE)
        if where is None or note is None or self._top is None or self._read(ticket, BEFORE):
            return
        before = look(where, self._top, left_behind(where)).to_json()
        write_atomic(note, json.dumps({"ticket": ticket, **before}).encode(), durable=False)

    def refusal(self, ticket: str, said: str) -> str | None:
        """What the agent has to look at before its claim counts; None if there is nothing, or it has been told.

        `said` is what it says beside the claim.
        """
        where, before = self._where(ticket), self._before(ticket)
        if where is None or before is None:
            return None
        made, told = self.made(ticket), self._read(ticket, TOLD)
        changed = self._changed(ticket, where, before)
        if not changed:
            if "unchanged" in told and said:
                return None
            self._tell(ticket, "unchanged", *(["ignored"] if made.ignored else []))
            return self._nothing_here(ticket, before, made, again="unchanged" in told)
        if "moved" not in told and (moved := self._is_elsewhere(where, before)):
            self._tell(ticket, "moved")
            return moved
        # What looks like a build's is worth a word only where no verification would miss it.
        found = {
            "ignored": _ignored(list(made.own if self._config["verify"] is not None else made.ignored)),
            "unseen": _unseen(list(made.unseen)),
            "place": _named_in(self._names_of(where, changed)),
        }
        new = {name: text for name, text in found.items() if text and name not in told}
        if not new:
            return None
        self._tell(ticket, *new)
        return "\n\n".join(new.values())

    def made(self, ticket: str) -> Made:
        """The ignored files that the ticket made, and what else no commit takes along."""
        where, before = self._where(ticket), self._before(ticket)
        return NOTHING if where is None or before is None else made_since(where, frozenset(before.ignored))

    def outcome(self, ticket: str) -> Outcome:
        """What the record says of it once it is done."""
        where, before = self._where(ticket), self._before(ticket)
        if where is None or before is None:
            return Outcome(False, ())
        return Outcome(not self._changed(ticket, where, before), tuple(self.stashes(ticket)))

    def stashes(self, ticket: str) -> list[str]:
        """The stash entries that the ticket made and that are still there."""
        before = self._before(ticket)
        found = [] if before is None else stashes_since(before, self._place(ticket), everybodys=not self._worktrees)
        return [inert(line, keep_newlines=False) for line in found]

    def _where(self, ticket: str) -> Path | None:
        """The root of the checkout in which the agent works."""
        where = self._files.worktree(ticket) if self._worktrees else self._top
        return where if where is not None and git_dir(where) is not None else None

    def _place(self, ticket: str) -> Place:
        where, main = self._where(ticket), self._top
        assert where is not None and main is not None
        branch = self._files.branch(ticket) if self._worktrees else status_of(where, "no").branch or ""
        into = self._config.get("into") or branch
        return Place(where, main, branch, into, tickets=Path(self._files.tickets_folder))

    def _changed(self, ticket: str, where: Path, before: Before) -> set[str]:
        """The paths that the ticket has changed, beyond its own file."""
        own = self._files.own_file(ticket)
        since = self._files.left_target(ticket) if self._worktrees else before.head
        changed = {entry.path for entry in status_of(where).entries} - left_by_setup(where)
        if not self._worktrees:
            changed -= {line.split(" ", 2)[2] for line in before.changed}
        if git.head(where) is not None:
            # Without a commit to begin with, all that is committed by now is new.
            asked = ["diff", "--name-only", "--no-renames", since, "HEAD"] if _is_commit(since) else ["ls-files"]
            changed |= set(git.run([*asked[:1], "-z", *asked[1:]], where).fields)
        folder = git_dir(where)
        assert folder is not None
        noise = {entry.path for entry in status_of(where).entries if not entry.is_work(folder)}
        return {path for path in changed - noise if path != own and not path.startswith(".tf/ralph/")}

    def _names_of(self, where: Path, changed: set[str]) -> list[str]:
        """The changed files that hold the name of the worktree, which is removed once they are merged."""
        if not self._worktrees:
            return []
        names = [os.fsencode(place) for place in {where, where.resolve()}]
        return sorted(path for path in changed if any(name in _content(where / path) for name in names))

    def _is_elsewhere(self, where: Path, before: Before) -> str | None:
        """Where the agent works in the project itself, it must leave the branch checked out on which it began."""
        if self._worktrees or before.branch is None:
            return None
        now = status_of(where, "no").branch
        if now == before.branch:
            return None
        at = f"branch {inert(now, keep_newlines=False)}" if now else "no branch"
        return f"The project is on {at} now, and was on {before.branch}. Bring the work there, and check it out again."

    def _nothing_here(self, ticket: str, before: Before, made: Made, again: bool) -> str:
        place = self._place(ticket)
        found = [inert(line, keep_newlines=False) for line in found_since(before, place)]
        found += [f"file {_shown(path)}, which git ignores" for path in made.ignored[:SHOWN]]
        found += [f"file {_shown(line)}" for line in made.unseen[:SHOWN]]
        lines = ["There is no change beyond the ticket's own file, so nothing would be merged."]
        if found:
            lines += ["", "Since you began, this has come up elsewhere:", *(f"- {line}" for line in found), ""]
            lines.append(f"If that is the work, bring it onto {place.branch}, in this directory, and claim again.")
        lines.append(
            "If the ticket needs no change, say why in your last message, and claim again: it is then closed as "
            "without changes."
        )
        if again:
            lines.append("Your last message gave no reason.")
        return "\n".join(lines)

    def _note(self, ticket: str, name: str) -> Path | None:
        where = self._where(ticket)
        folder = git_dir(where) if self._worktrees and where is not None else self._paths.dir
        return None if folder is None else folder / (name if self._worktrees else f".{name}.json")

    def _read(self, ticket: str, name: str) -> dict[str, Any]:
        """A note, if it is about this ticket: in the loop's folder, the last one's may still lie."""
        note = self._note(ticket, name)
        with suppress(OSError, ValueError):
            found = json.loads(note.read_bytes()) if note is not None else {}
            if isinstance(found, dict) and found.get("ticket") == ticket:
                return found
        return {}

    def _before(self, ticket: str) -> Before | None:
        with suppress(KeyError, TypeError, ValueError):
            return Before.from_json(self._read(ticket, BEFORE))
        return None

    def _tell(self, ticket: str, *what: str) -> None:
        note = self._note(ticket, TOLD)
        if note is not None:
            told = {"ticket": ticket, **self._read(ticket, TOLD), **dict.fromkeys(what, True)}
            write_atomic(note, json.dumps(told).encode(), durable=False)


def _is_commit(name: str | None) -> TypeGuard[str]:
    return name is not None and re.fullmatch(r"[0-9a-f]{40,64}", name) is not None


def _content(path: Path) -> bytes:
    """What a file holds, or where a link leads; nothing of one that is large."""
    try:
        if path.is_symlink():
            return os.fsencode(path.readlink())
        return path.read_bytes() if path.is_file() and path.stat().st_size <= LARGEST else b""
    except OSError:
        return b""


def _listed(paths: list[str]) -> str:
    more = [f"- and {len(paths) - SHOWN} more"] if len(paths) > SHOWN else []
    return "\n".join([f"- {_shown(path)}" for path in paths[:SHOWN]] + more)


def _told(what: str, paths: list[str], then: str) -> str:
    return f"{what}:\n\n{_listed(paths)}\n\n{then}, and claim again." if paths else ""


def _ignored(paths: list[str]) -> str:
    return _told(
        "git ignores files that you made, so they would not be merged, and go when this directory does",
        paths,
        "If the work needs them, add them with `git add -f`, or change .gitignore. If it does not, leave them",
    )


def _unseen(paths: list[str]) -> str:
    return _told(
        "git does not see what you changed in these files, so it would not be merged",
        paths,
        "If the work needs that, make git see it. If it does not, leave it",
    )


def _named_in(paths: list[str]) -> str:
    return _told(
        "These files hold the name of this directory, which is removed when your work has been merged",
        paths,
        "Use a path that is relative to the project instead. If it is only mentioned there, leave it",
    )


def _shown(path: str) -> str:
    return inert(path, keep_newlines=False)
