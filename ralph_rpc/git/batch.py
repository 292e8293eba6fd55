"""Branches of tickets merged on top of the target and of one another, where nobody sees it.

Called by the runner before it verifies the result and lands it (`merge.land`). A build makes commits, and moves nothing:
those that no ref ever reaches are garbage, which git collects. It can be done again at any time, and finds what has
landed meanwhile.

The cost of a branch does not depend on how many come before it: git looks for a merge base by walking the history, so
what is on top of the target so far is shown to it as one commit on top of the place where the branch left the target.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ralph_rpc.git import checkout
from ralph_rpc.git.alone import left_locked
from ralph_rpc.git.calls import CHECKOUT_TIMEOUT_S, GitError, run
from ralph_rpc.git.fork import fork_point, is_rewritten, note_target, noted_targets
from ralph_rpc.git.merge import cannot_move, landed_by
from ralph_rpc.git.repository import TICKET_PATIENCE_S, common_dir, list_worktrees, repository_lock
from ralph_rpc.git.status import REPOSITORY_MODE
from ralph_rpc.git.trees import Conflict, merge_trees
from ralph_rpc.git.update import unfit


@dataclass(frozen=True)
class Part:
    """A branch that is to be merged, the message of its merge commit, and its worktree, which knows where it began."""

    branch: str
    message: str
    worktree: Path | None = None


@dataclass(frozen=True)
class Link:
    """A branch's merge commit, on top of the link before it."""

    branch: str
    commit: str
    tree: str


@dataclass
class Built:
    """What stands on top of the target, and what became of each branch that is not among it."""

    target: str
    tree: str
    links: list[Link] = field(default_factory=list)
    landed: dict[str, str] = field(default_factory=dict)
    """In the target already, by this commit."""
    conflicts: dict[str, Conflict] = field(default_factory=dict)
    """With the target itself."""
    behind: set[str] = field(default_factory=set)
    """In conflict with one of the links: it is to be built again when that has landed, or has not."""
    waits: dict[str, str] = field(default_factory=dict)
    """It would touch what is changed in a checkout of the target, or nothing can be merged there now."""
    outdated: set[str] = field(default_factory=set)
    """The target was rewritten under it: its own commits have to be carried over first (`update_from_target`)."""
    faults: dict[str, str] = field(default_factory=dict)
    """The branch is gone, or git cannot merge it."""


def build_batch(project: Path, into: str, parts: Sequence[Part], by_line: str = "") -> Built:
    """Merge these branches in this order, as far as they can be merged. Changes no ref, no index and no file of anybody's.

    `by_line` is the folder of the tickets, whose files are merged line by line.
    """
    everything = list_worktrees(project)
    trees = [tree for tree in everything if tree.branch == into]
    left = left_locked(everything)
    if left or any(checkout.interrupted_in(tree.path) is not None for tree in trees):  # it decides what has landed
        with repository_lock(project, TICKET_PATIENCE_S) as repo:
            for lock in left_locked(everything):
                lock.unlink(missing_ok=True)
            for one in trees:
                checkout.finish_interrupted(repo, one.path)
    target, tree, heads = _heads(project, into, [part.branch for part in parts])
    built = Built(target, tree)
    history = _History.of(project, target, heads.values())
    todo: list[tuple[Part, str]] = []
    for part in parts:
        head = heads.get(part.branch)
        if head is None:
            gone = f"branch {part.branch!r} is gone (restore it: git reflog, git branch; then resume the loop)"
            built.faults[part.branch] = gone
        elif history.is_in_target(head):
            built.landed[part.branch] = landed_by(project, head, target)
        elif part.worktree is not None and _is_outdated(project, part.worktree, target, head, history):
            built.outdated.add(part.branch)
        else:
            todo.append((part, head))
            if part.worktree is not None and history.fork(head) == target:  # also where the agent brought it in
                note_target(part.worktree, target)
    _chain(project, built, todo, history, by_line)
    _leave_out_nested(project, built, todo, history, by_line)
    while built.links and (waits := _in_the_way(project, into, built, by_line)):
        built.waits |= waits
        _chain(project, built, [one for one in todo if one[0].branch not in built.waits], history, by_line)
    return built


def _is_outdated(project: Path, worktree: Path, target: str, head: str, history: "_History") -> bool:
    """Whether the branch left the target at a commit that the target no longer has."""
    own = history.own(head)
    if not any(commit in own for commit in noted_targets(worktree)):  # the usual case, without asking git
        return False
    return is_rewritten(project, fork_point(project, worktree, target, head), target)


def _heads(project: Path, into: str, branches: Sequence[str]) -> tuple[str, str, dict[str, str]]:
    """The target's commit and tree, and the commit of each branch that is there."""
    asked = [
        f"refs/heads/{into}^{{commit}}",
        f"refs/heads/{into}^{{tree}}",
        *(f"refs/heads/{b}^{{commit}}" for b in branches),
    ]
    lines = run(
        ["cat-file", "--batch-check=%(objectname)"], project, CHECKOUT_TIMEOUT_S, stdin="\n".join(asked).encode()
    )
    found = [None if line.endswith(b" missing") else line.decode() for line in lines.out.splitlines()]
    if found[0] is None or found[1] is None:
        hint = "restore it (git reflog, git branch), then resume the loop"
        raise GitError("cat-file", None, f"branch {into!r} is gone", hint)  # of all tickets, not of these
    heads = {branch: head for branch, head in zip(branches, found[2:], strict=True) if head is not None}
    return found[0], found[1], heads


@dataclass(frozen=True)
class _History:
    """The commits of the branches that the target does not have, with their parents."""

    target: str
    parents: Mapping[str, list[str]]

    @classmethod
    def of(cls, project: Path, target: str, heads: Iterable[str]) -> "_History":
        asked = "\n".join([*dict.fromkeys(heads), f"^{target}", ""]).encode()
        listed = run(["rev-list", "--parents", "--stdin"], project, CHECKOUT_TIMEOUT_S, stdin=asked).out.decode()
        return cls(target, {first: others for first, *others in (line.split(" ") for line in listed.splitlines())})

    def is_in_target(self, head: str) -> bool:
        return head not in self.parents

    def own(self, head: str) -> set[str]:
        """The branch's commits that the target does not have."""
        found: set[str] = set()
        left = [head]
        while left:
            commit = left.pop()
            if commit in self.parents and commit not in found:
                found.add(commit)
                left += self.parents[commit]
        return found

    def fork(self, head: str) -> str | None:
        """The one commit of the target on which the branch stands; None if there are several, or none."""
        own = self.own(head)
        below = {parent for commit in own for parent in self.parents[commit]} - own
        return below.pop() if len(below) == 1 else None

    def has_merges(self, head: str) -> bool:
        return any(len(self.parents[commit]) > 1 for commit in self.own(head))


def _chain(project: Path, built: Built, todo: list[tuple[Part, str]], history: _History, by_line: str) -> None:
    """Build the links anew, from these branches."""
    built.links.clear()
    built.behind.clear()
    tip, tree = built.target, built.tree
    for part, head in todo:
        if part.branch in built.conflicts or part.branch in built.faults:
            continue
        try:
            merged = _merged(project, built, part, head, tip, tree, history, by_line)
        except GitError as error:
            if error.is_passing:
                raise
            built.faults[part.branch] = error.message
            continue
        if merged is None:
            built.behind.add(part.branch)
        elif isinstance(merged, Conflict):
            built.conflicts[part.branch] = merged
        else:
            args = ["commit-tree", merged, "-p", tip, "-p", head, "-F", "-"]
            tip, tree = run(args, project, stdin=part.message.encode()).line, merged
            built.links.append(Link(part.branch, tip, tree))


def _merged(
    project: Path, built: Built, part: Part, head: str, tip: str, tree: str, history: _History, by_line: str
) -> str | Conflict | None:
    """The tree of tip and branch together; a conflict with the target; None for one with what is on top of it."""
    if history.has_merges(head) and (bad := unfit(project, built.target, head, part.worktree)) is not None:
        return bad
    fork = history.fork(head)
    ours = tip
    if tip != built.target and fork is not None:
        ours = run(["commit-tree", tree, "-p", fork, "-m", "what comes before"], project).line
    merged = merge_trees(project, ours, head, by_line)
    if not isinstance(merged, Conflict) or tip == built.target:
        return merged
    alone = merge_trees(project, built.target, head, by_line)
    return alone if isinstance(alone, Conflict) else None


def _leave_out_nested(
    project: Path, built: Built, todo: list[tuple[Part, str]], history: _History, by_line: str
) -> None:
    """Branches that would bring another repository's commit, which git would not merge."""
    if not built.links:
        return
    args = ["diff", "--raw", "-z", "--no-renames", "--ignore-submodules=none", built.target, built.links[-1].commit]
    entries = run(args, project, CHECKOUT_TIMEOUT_S).fields[::2]
    if not any(entry.split(" ")[1] == REPOSITORY_MODE for entry in entries):
        return
    for part, head in todo:
        if (bad := unfit(project, built.target, head, part.worktree)) is not None:
            built.conflicts[part.branch] = bad
    _chain(project, built, todo, history, by_line)


def _in_the_way(project: Path, into: str, built: Built, by_line: str) -> dict[str, str]:
    """The branches that could not be landed now, as they would touch what somebody has in a checkout of the target."""
    trees = [tree for tree in list_worktrees(project) if tree.branch == into]
    last = built.links[-1]
    place = next((tree.path for tree in trees if tree.path.exists()), None)
    found: list[str] | str | None = cannot_move(common_dir(project), into, trees)
    if found is None and place is not None:
        wanted = checkout.Move(into, built.target, last.commit, last.branch, by_line)
        found = checkout.in_the_way(place, wanted)
    if not found or place is None:
        return {link.branch: str(found) for link in built.links} if found else {}
    if isinstance(found, str):
        return {link.branch: found for link in built.links}
    waits: dict[str, str] = {}
    before = built.target
    for link in built.links:
        args = ["diff-tree", "-r", "-z", "--name-only", "--no-renames", before, link.commit]
        names = run(args, project, CHECKOUT_TIMEOUT_S).fields
        if met := [path for path in found if any(_meet(path, name) for name in names)]:
            waits[link.branch] = checkout.told(place, met)
        before = link.commit
    return waits or {link.branch: checkout.told(place, found) for link in built.links}


def _meet(one: str, other: str) -> bool:
    return one == other or one.startswith(f"{other}/") or other.startswith(f"{one}/")
