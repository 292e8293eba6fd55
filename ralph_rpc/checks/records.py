"""The loops' JSON files that cannot be read: damaged ones, and those that a newer version of this program wrote.

Nothing is repaired here. The runner sets a damaged state.json aside and rebuilds it; all else is the user's decision.
"""

from ralph_rpc.checks.finding import Finding, Findings, Place
from ralph_rpc.files.atomic import Newer, Unreadable
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.files.records import unreadable_files


def unreadable(place: Place) -> Findings:
    for loop in place.loops:
        for problem in unreadable_files(loop):
            yield Finding("files", "warn", f"{problem.path}: {problem.reason}", _hint(loop, problem))


def _hint(loop: LoopPaths, problem: Unreadable) -> str:
    if isinstance(problem, Newer):
        return problem.hint
    if problem.path == loop.config:
        return "without it the loop cannot be resumed: repair it, or start the loop again"
    if problem.path == loop.state:
        return "the next resume keeps it under another name and rebuilds it from the iteration records"
    return "reports and totals leave it out: repair it, or move it away"
