"""Where work may lie that is not on a ticket's branch: other branches, stash entries, the main checkout, no branch at all.

The runner notes what was there before an agent begins, and asks what has come since when the agent says that it is done.
Others work in the repository as well, so what is found is named, and nobody is blamed. It only looks; texts are as git
has them.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ralph_rpc.git.calls import STATUS_TIMEOUT_S, run
from ralph_rpc.git.status import is_ours, status_of

SHOWN = 5
_STASHED_ON = re.compile(r"(?:WIP on|On) (.+?): ")
NO_BRANCH = "(no branch)"


@dataclass(frozen=True)
class Before:
    """What there was: branches with their commits, stash entries, the work place's commit and branch, and what differs
    from the commit in the main checkout."""

    branches: Mapping[str, str] = field(default_factory=dict)
    stashes: tuple[str, ...] = ()
    head: str = ""
    branch: str | None = None
    changed: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    """Of the place where the agent works; see `ignored_files`."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Before":
        lists = {key: tuple(value[key]) for key in ("stashes", "changed", "ignored")}
        return cls(dict(value["branches"]), head=value["head"], branch=value["branch"], **lists)


def look(workdir: Path, main: Path, ignored: list[str]) -> Before:
    """What there is now."""
    at = status_of(workdir, "no")
    return Before(
        _branches(workdir),
        tuple(commit for commit, _ in _stashes(workdir)),
        at.commit,
        at.branch,
        tuple(_changed(main)),
        tuple(ignored),
    )


@dataclass(frozen=True)
class Place:
    """Where a ticket's work belongs, and who else's branches there are."""

    workdir: Path
    main: Path
    branch: str
    into: str
    loops: str = "ralph/"
    """How the branches of tickets begin."""
    tickets: Path | None = None
    """The folder of the tickets in the main checkout, into which everybody writes."""


def found_since(before: Before, place: Place) -> list[str]:
    """What has come since then and is not on the ticket's branch, a line each."""
    new = _new_branches(before, place)
    found = [f"branch {name} ({_commits(count)})" for name, count in new.items()]
    found += stashes_since(before, place, everybodys=True)
    found += _on_no_branch(place)
    if place.main != place.workdir:
        found += _in_main(before, place)
    return found


def stashes_since(before: Before, place: Place, everybodys: bool = False) -> list[str]:
    """The stash entries that the ticket has made; with `everybodys`, all that are new."""
    new = [one for one in _stashes(place.workdir) if one[0] not in before.stashes]
    if not new:
        return []
    own = {place.branch, *_visited(place.workdir)}
    return [f"stash entry {commit[:12]} ({said})" for commit, said in new if everybodys or _stashed_on(said) in own]


def _stashed_on(said: str) -> str:
    found = _STASHED_ON.match(said)
    return found[1] if found is not None else ""


def _branches(place: Path) -> dict[str, str]:
    told = run(["for-each-ref", "--format=%(refname:lstrip=2)%00%(objectname)", "refs/heads"], place).out
    pairs = (line.split("\0") for line in told.decode(errors="surrogateescape").split("\n") if line)
    return {name: commit for name, commit in pairs}


def _stashes(place: Path) -> list[tuple[str, str]]:
    told = run(["log", "-g", "--format=%H%x00%gs", "refs/stash", "--"], place, check=False)
    lines = told.out.decode(errors="replace").splitlines() if told.code == 0 else []
    return [(commit, said) for commit, _, said in (line.partition("\0") for line in lines)]


def _changed(main: Path) -> list[str]:
    return [f"{entry.x}{entry.y} {entry.indexed} {entry.path}" for entry in status_of(main).entries]


def _new_branches(before: Before, place: Place) -> dict[str, int]:
    """Branches that are new, or that the agent had checked out, with commits that the target does not have."""
    now, visited = _branches(place.workdir), _visited(place.workdir)
    found: dict[str, int] = {}
    for name, commit in now.items():
        known = before.branches.get(name)
        if commit == known or name in (place.branch, place.into) or name.startswith(place.loops):
            continue
        if known is None or name in visited:
            since = ["--not", place.branch, place.into, *([known] if known else [])]
            told = run(["rev-list", "--count", commit, *since], place.workdir, check=False)
            found[name] = int(told.line) if told.code == 0 else 0
    return found


def _visited(workdir: Path) -> set[str]:
    """The branches that were checked out there, by its reflog; NO_BRANCH if it was on none for a while."""
    told = run(["log", "-g", "--format=%gs", "HEAD", "--"], workdir, check=False).out.decode(errors="replace")
    moves = re.findall(r"^checkout: moving from (\S+) to (\S+)$", told, re.MULTILINE)
    names = {name for move in moves for name in move}
    hashes = {name for name in names if re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", name)}
    return (names - hashes) | ({NO_BRANCH} if hashes or "HEAD" in names else set())


def _on_no_branch(place: Place) -> list[str]:
    """Commits that were made there and that no branch has any more, or only one that was pushed."""
    told = run(["log", "-g", "--format=%H %gs", "HEAD", "--"], place.workdir, check=False).out.decode(errors="replace")
    made = dict.fromkeys(
        line.split(" ")[0] for line in told.splitlines() if re.match(r"\w+ (?:commit|cherry-pick|rebase)", line)
    )
    if not made:
        return []
    asked = ["rev-list", "--no-walk=unsorted", "--format=%h %s", *made, "--not", "--branches"]
    lost = run(asked, place.workdir, STATUS_TIMEOUT_S, check=False)
    lines = [line for line in lost.out.decode(errors="replace").splitlines() if not line.startswith("commit ")]
    return [f"commit {line}, which is on no branch here" for line in lines[:SHOWN]] if lost.code == 0 else []


def _in_main(before: Before, place: Place) -> Iterator[str]:
    """What has come into the main checkout, and to the target, other than by merges of tickets."""
    known = before.branches.get(place.into)
    if known is not None:
        asked = ["log", "--first-parent", "--format=%h %s%x00%(trailers:key=Ticket,valueonly)%x00%x01"]
        told = run([*asked, f"{known}..refs/heads/{place.into}", "--"], place.main, STATUS_TIMEOUT_S, check=False)
        for entry in told.out.decode(errors="replace").split("\x01"):
            said, _, trailer = entry.strip("\n\0").partition("\0")
            if said and not trailer.strip("\n\0"):
                yield f"commit {said} on {place.into}, in {place.main}"
    new = [line for line in _changed(place.main) if line not in before.changed]
    paths = [line.split(" ", 2)[2] for line in new]
    for path in [path for path in paths if not is_ours(path) and not _is_ticket(place, path)][:SHOWN]:
        yield f"file {path}, not committed, in {place.main}"


def _is_ticket(place: Place, path: str) -> bool:
    return place.tickets is not None and (place.main / path).is_relative_to(place.tickets)


def _commits(count: int) -> str:
    return f"{count} commit{'s'[: count != 1]}"
