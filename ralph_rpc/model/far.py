"""far/<job>.json: what a launcher has started elsewhere."""

from typing import NotRequired, TypedDict

from ralph_rpc.model.version import SchemaVersion


class FarPlace(TypedDict):
    """Where a pi runs that a launcher has started."""

    host: str
    pid: int
    """Of the far guard, as that machine counts."""
    bootId: str
    pidSpace: NotRequired[str]
    """Of its pids: with the same one here, its processes can be seen from here."""


class FarJob(TypedDict):
    """There while it may run. The file's time of change is that of the last line that was written to it."""

    schemaVersion: NotRequired[SchemaVersion]
    job: str
    """Its name there: of the Slurm job, the container or the pod."""
    launcher: str
    """As `--launcher` gave it."""
    leaseMs: int
    """It ends by itself when it has heard nothing for so long."""
    ticket: NotRequired[str]
    place: NotRequired[FarPlace]
    """Missing: it has not spoken yet."""
