"""A loop in a pid namespace of its own, where its agent may end processes by name: the name can mean nobody else there."""

import os
import shlex
import shutil
import subprocess
import sys

import pytest

from tests.rig import Rig

INSIDE = '[ -n "$OUTSIDE" ] && [ "$(readlink /proc/self/ns/pid)" != "$OUTSIDE" ]'
"""A shell condition: true only in such a namespace. Every command that ends processes by name must stand behind it."""


def run_in_namespace(rig: Rig, *args: str) -> None:
    """Starts the loop in a pid namespace and returns when it has ended there; skips where there is none to be had."""
    unshare = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if os.geteuid() != 0:
        unshare[1:1] = ["--user", "--map-root-user"]
    probe = [*unshare, "sh", "-c", INSIDE]
    rig.env["OUTSIDE"] = os.readlink("/proc/self/ns/pid")  # noqa: PTH115
    if shutil.which("unshare") is None or subprocess.run(probe, env=rig.env, check=False).returncode != 0:
        pytest.skip("no pid namespace to be had")
    start = shlex.join([sys.executable, "-P", "-m", "ralph_rpc", "start", "x", "--pi", rig.pi, "-m", "Work.", *args])
    ended = 'grep -qE \'"status": "(completed|stopped|error)"\' .ralph/x/state.json'
    # A shell waits: the agent may end the program, `start` included, by its name.
    script = f"{start}; for i in $(seq 600); do {ended} && exit 0; sleep 0.1; done; exit 8"
    done = subprocess.run(
        [*unshare, "sh", "-c", script],
        cwd=rig.project,
        env=rig.env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, f"{done.returncode}: {done.stderr}\n{rig.log()}"
