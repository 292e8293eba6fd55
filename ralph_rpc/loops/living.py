"""The loops that have a runner, of one project or of all that the registry knows. Only reads; imports nothing heavy."""

from pathlib import Path

from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.loops.find import exists, find_project, loops_of, registered
from ralph_rpc.loops.status import loop_status


def living_loops(project: Path | None) -> list[LoopPaths]:
    """Those of `project`; None: those of the project around the working folder, and of all others."""
    if project is not None:
        known = loops_of(project.expanduser().resolve())
    else:
        here = find_project(Path.cwd())
        known = list({*(loops_of(here) if here is not None else ()), *filter(exists, registered())})
    return [paths for paths in known if loop_status(paths).runner != "dead"]
