"""A batch of the merge queue: which of its trees is verified next, what may land, and who is at fault. Pure.

The branches of a batch are merged one on top of the other, a *link* each, in the order of their arrival; the last
link's tree is verified. Green: all of it lands. Red: a beginning of the chain is verified, half as long as the shortest
one known to be red, and so on; a green beginning lands at once, and the last link of the shortest red one is at fault.
So each tree that lands was verified itself, and one fault among N links costs at most ceil(log2 N) + 1 more runs, the
last one for those that came behind it, which are queued again.

Nobody is blamed for one red run that a green one contradicts: where all but the last link are green, the last is
verified once more, and if that is green, the first red was a fluke. And nobody is blamed for a red target: if nothing
of the batch was green, and no green run has ever seen the target's own tree, that tree is verified first.
"""

from collections.abc import Container
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from ralph_rpc.model.iteration import Verify


@dataclass(frozen=True, slots=True)
class Link:
    """One ticket's merge commit, on top of the link before it."""

    ticket: str
    commit: str
    tree: str


@dataclass(frozen=True, slots=True)
class Batch:
    """What is being merged together. `count` below is always a number of links from the start of the chain."""

    links: tuple[Link, ...] = ()
    target: str = ""
    """The commit on which the first link stands: the target branch's, as of now."""
    tree: str = ""
    """The target's own."""
    doing: Literal["building", "preparing", "verifying", "restarting", "landing"] = "building"
    """restarting: its verify was told to end, as more tickets have come."""
    count: int = 0
    """How many links are being verified, or landed. 0 verifies the target itself."""
    size: int = 0
    """Links that were there when it was first verified."""
    red: int = 0
    """The shortest beginning that was red; 0: none was."""
    reds: int = 0
    """Runs that were red; each of them had the link that is at fault."""
    output: Verify | None = None
    """The run of the shortest red beginning."""
    since: int = 0
    """When it began what it does, in epoch milliseconds."""
    formed: int = 0
    """When it was brought together, in monotonic milliseconds."""
    first: int = 0
    """When the batch was that it has grown out of; as `formed` where it has not grown."""

    @property
    def tickets(self) -> tuple[str, ...]:
        return tuple(link.ticket for link in self.links)


@dataclass(frozen=True, slots=True)
class Check:
    """The tree of this beginning is to be verified; 0 is the target's own."""

    count: int


@dataclass(frozen=True, slots=True)
class Land:
    """The target is to be moved to the end of this beginning, whose very tree is verified."""

    count: int


@dataclass(frozen=True, slots=True)
class Blame:
    """The first link is at fault. Whatever is behind it is to be queued again."""


@dataclass(frozen=True, slots=True)
class Over:
    """Everything has landed."""


Move: TypeAlias = Check | Land | Blame | Over


def next_move(batch: Batch, verified: Container[str] | None) -> Move:
    """What to do now. `verified` holds the trees that a verification has seen green; None: nothing is verified at all."""
    if not batch.links:
        return Over()
    if verified is None:
        return Land(len(batch.links))
    if not batch.red:
        return _check(batch, len(batch.links), verified)
    if batch.red > 1:
        return _check(batch, batch.red // 2, verified)
    if batch.links[0].tree in verified:
        return Land(1)
    if batch.reds == 1 and batch.size > 1:
        return Check(1)
    return Blame() if batch.tree in verified else Check(0)


def is_whole(batch: Batch) -> bool:
    """All of it is being tried, and nothing is known of it yet: it may still be built anew, with more tickets."""
    return batch.count == len(batch.links) and not batch.red


def should_grow(batch: Batch, newcomers: int, verify_ms: int, now: int) -> bool:
    """Whether its verify, which is under way, is to be started over with those that have come meanwhile.

    They would land sooner by what is left of the run, and the others later by what has passed; so it depends on how many
    there are of each. And however many come, one after the other: the last run begins before the first one would have
    ended. `verify_ms` is how long a run takes; 0: that is not known, and nothing is started over.
    """
    passed = now - batch.formed
    return batch.count > 0 and now - batch.first < verify_ms and newcomers * (verify_ms - passed) > batch.count * passed


def _check(batch: Batch, count: int, verified: Container[str]) -> Move:
    return Land(count) if batch.links[count - 1].tree in verified else Check(count)


def was_red(batch: Batch, run: Verify) -> Batch:
    """After a red run of `batch.count` links, at least one."""
    return replace(batch, red=batch.count, reds=batch.reds + 1, output=run)


def has_landed(batch: Batch, commit: str) -> Batch:
    """After `batch.count` links have landed, by this commit."""
    last, left = batch.links[batch.count - 1], batch.links[batch.count :]
    return replace(batch, links=left, target=commit, tree=last.tree, red=max(0, batch.red - batch.count))


def was_fluke(batch: Batch) -> bool:
    """Whether the beginning that is about to land had been red before, though nothing in it has changed."""
    return 0 < batch.red <= batch.count
