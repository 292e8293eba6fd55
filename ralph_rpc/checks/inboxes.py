"""What lies in the inbox of a dead loop halfway: commands that its runner took without a receipt, and half-written files.

A claimed file that the journal knows needs nothing: it was carried out or is taken up from there.
"""

import stat
from functools import partial
from pathlib import Path

from ralph_rpc import leftovers
from ralph_rpc.checks.finding import Finding, Findings, Place
from ralph_rpc.files.atomic import fsync_dir, make_private_dir, write_atomic
from ralph_rpc.files.inbox import free_name
from ralph_rpc.files.journal import CommandJournal
from ralph_rpc.files.paths import LoopPaths

REASON = "it was never finished: its writer was ended; send the command again"


def claims(place: Place) -> Findings:
    for loop in place.dead_loops():
        for claim in _without_receipt(loop):
            text = f"{claim.name} in {loop.inbox} was taken by a runner that died before its receipt"
            hint = "the next resume takes it; doctor --fix makes it a waiting command again"
            yield Finding("inbox", "warn", text, hint, partial(_give_back, loop, claim))


def _without_receipt(loop: LoopPaths) -> list[Path]:
    try:
        files = [path for path in sorted(loop.inbox.iterdir()) if free_name(path.name) is not None]
        known = CommandJournal.read(loop.commands) if files else None
        return [path for path in files if _is_plain(path) and known and not known.knows_file(path.name)]
    except OSError:
        return []


def _is_plain(path: Path) -> bool:
    return stat.S_ISREG(path.lstat().st_mode)


def _give_back(loop: LoopPaths, claim: Path) -> str:
    name = free_name(claim.name)
    assert name is not None
    with leftovers.kept_still(loop):
        if claim in _without_receipt(loop):  # else somebody was faster
            claim.rename(loop.inbox / name)
            fsync_dir(loop.inbox)
    return f"{claim.name} in {loop.inbox} waits again, as {name}"


def half_written(place: Place) -> Findings:
    for loop in place.dead_loops():
        for path in leftovers.half_written([loop.inbox]):
            text = f"{path} was never finished: its writer is dead"
            yield Finding("inbox", "warn", text, "doctor --fix sets it aside", partial(_set_aside, loop, path))


def _set_aside(loop: LoopPaths, path: Path) -> str:
    with leftovers.kept_still(loop):
        make_private_dir(loop.rejected)
        target = loop.rejected / path.name.removeprefix(".")
        if path.exists():
            path.rename(target)
        write_atomic(loop.rejected / f"{target.name}.reason", f"{REASON}\n".encode())
    return f"{path} was never finished: set aside as {target}"
