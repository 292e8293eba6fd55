"""trust.json and loops.json in the user's data folder: what the user agreed to, and which loops were made here."""

from typing import NotRequired, TypedDict

from ralph_rpc.model.version import SchemaVersion


class Consent(TypedDict):
    """The user's word for one file, as it was then."""

    sha256: str
    """Of what the file said. Another content needs another word."""
    at: str


class Trust(TypedDict):
    """By the absolute path of each file; no project can write here."""

    schemaVersion: NotRequired[SchemaVersion]
    trusted: dict[str, Consent]


class MadeLoop(TypedDict):
    """A loop that this user's program has started at that place."""

    configs: list[str]
    """SHA-256 of the options of its last starts, the newest last; a start that fails gives an earlier one its place back."""
    at: str


class MadeLoops(TypedDict):
    """By the absolute path of each loop's folder; a folder that is not here was made elsewhere, or by somebody else."""

    schemaVersion: NotRequired[SchemaVersion]
    loops: dict[str, MadeLoop]
