"""Runs the command by which what a launcher has left elsewhere is ended: a queued job, a container, a pod.

Called by the runner before and after each job, and by `doctor --fix`. What is run is made of the kind of the launcher and the
job's name alone, never of words that a file names. Doing it twice does no harm.
"""

import subprocess

from ralph_rpc.launchers import presets
from ralph_rpc.model.far import FarJob

PATIENCE_S = 30.0


def run_clean_up(job: FarJob) -> bool:
    """True if nothing of the job is left, for certain."""
    try:
        launcher = presets.parse(job["launcher"])
    except ValueError:
        return False
    command = presets.clean_up(launcher, job["job"])
    if command is None:
        return launcher.kind in presets.CERTAIN
    try:
        done = subprocess.run(
            command, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE_S
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    gone = done.returncode == 0 or "no such container" in done.stderr.lower()
    return gone and launcher.kind in presets.CERTAIN
