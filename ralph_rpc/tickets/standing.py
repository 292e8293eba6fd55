"""Where a ticket stands with its loop, read from its dispatch record: the only place that knows. Pure.

The runner asks with the records that it has in memory, which are on disk before each step that they announce;
`ralph-rpc tickets` asks with the records on disk. So both make the same plan of the same backlog.
"""

from collections.abc import Mapping
from typing import Literal

Standing = Literal["running", "merging", "merge-waits", "failed", "needs-merge", "closed", "left"]
"""What a loop does with a ticket, or how it ended; a ticket that it has nothing to do with has none.

`running` from claim to verification; `merging` until its work is in the target branch and the ticket is closed;
`merge-waits` is a merge that waits for a person (their checkout is in the way); `closed` is merged and closed; `left`
may be claimed again, and whoever finds it in progress finds the loop's own work.
"""

_BY_STATUS: dict[str, Standing] = {
    "claimed": "running",
    "running": "running",
    "verifying": "running",
    "merging": "merging",
    "merged": "merging",
    "closed": "closed",
    "failed": "failed",
    "needs-merge": "needs-merge",
    "orphaned": "left",
}
"""By the status in the record; one that is not known here means that the loop has nothing to do with the ticket."""


def standing(record: Mapping[str, object], *, has_runner: bool) -> Standing | None:
    """Where the ticket of this record stands; None, and `left`, if it may be claimed.

    Without a runner nobody works on it any more, but its finished work may be half merged: the next runner takes that
    up before anything else.
    """
    found = _BY_STATUS.get(str(record.get("status")))
    if not has_runner:
        return "left" if found == "running" else found
    return "merge-waits" if record.get("status") == "merging" and record.get("error") else found


def standings(records: Mapping[str, Mapping[str, object]], *, has_runner: bool) -> dict[str, Standing]:
    """The standing of each ticket that has one, by id."""
    found: dict[str, Standing] = {}
    for id, record in records.items():
        if (stands := standing(record, has_runner=has_runner)) is not None:
            found[id] = stands
    return found


def is_busy(stands: Standing | None) -> bool:
    """Whether its components are in use: its work is under way, or on its way into the target branch."""
    return stands in ("running", "merging", "merge-waits")


def takes_place(stands: Standing | None) -> bool:
    """Whether it counts against `--parallel`: somebody works on it. A finished one gives its place to the next."""
    return stands == "running"


def piles_up(stands: Standing | None) -> bool:
    """Whether it is finished work that has yet to be merged. But a merge that waits for a person may wait all night."""
    return stands == "merging"
