"""Unfinished files in the inbox of a dead loop: commands claimed without a receipt, and half-written files.

A claimed file that the journal knows needs nothing: it was carried out, or the next runner takes it from the journal.
"""

from functools import partial
from pathlib import Path

from ralph_rpc.checks.finding import Finding, Findings, Place
from ralph_rpc.files.atomic import fsync_dir, make_private_dir, write_atomic
from ralph_rpc.files.inbox import free_name
from ralph_rpc.files.journal import CommandJournal
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.loops.hold import kept_still
from ralph_rpc.loops.remains import files
from ralph_rpc.machine import nofollow

REASON = "it was never finished: its writer was killed; send the command again"


def claims(place: Place) -> Findings:
    for loop in place.dead_loops():
        for claim in _without_receipt(loop):
            text = f"{claim.name} in {loop.inbox} was claimed by a runner that died before it wrote a receipt"
            hint = "the next resume takes it; doctor --fix puts it back as a waiting command"
            yield Finding("inbox", "warn", text, hint, partial(_give_back, loop, claim))


def _without_receipt(loop: LoopPaths) -> list[Path]:
    try:
        files = [path for path in nofollow.entries(loop.inbox) if free_name(path.name) is not None]
        known = CommandJournal.read(loop.commands) if files else None
        return [path for path in files if _is_plain(path) and known and not known.knows_file(path.name)]
    except OSError:
        return []


def _is_plain(path: Path) -> bool:
    return nofollow.is_file(path)


def _give_back(loop: LoopPaths, claim: Path) -> str:
    name = free_name(claim.name)
    assert name is not None
    with kept_still(loop):
        if claim in _without_receipt(loop):  # else another process was faster
            nofollow.rename(claim, loop.inbox / name)
            fsync_dir(loop.inbox)
    return f"{claim.name} in {loop.inbox} is a waiting command again, as {name}"


def half_written(place: Place) -> Findings:
    for loop in place.dead_loops():
        for path in files.half_written([loop.inbox]):
            text = f"{path} was never finished: its writer is dead"
            yield Finding("inbox", "warn", text, "doctor --fix sets it aside", partial(_set_aside, loop, path))


def _set_aside(loop: LoopPaths, path: Path) -> str:
    with kept_still(loop):
        make_private_dir(loop.rejected)
        target = loop.rejected / path.name.removeprefix(".")
        if nofollow.exists(path):
            nofollow.rename(path, target)
        write_atomic(loop.rejected / f"{target.name}.reason", f"{REASON}\n".encode())
    return f"{path} was never finished: set aside as {target}"
