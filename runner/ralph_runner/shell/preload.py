"""Loads what the runner will import later, while it can: an upgrade or a moved venv takes the files away.

Called once, in a thread, when the first prompt is out. A test finds every import in a function that is missing here.
"""

import importlib

LATER = (
    "hashlib",
    "json",
    "platformdirs",
    "shutil",
    "subprocess",
    "ralph_rpc.files.records",
    "ralph_rpc.git",
    "ralph_rpc.machine.carried",
    "ralph_runner.shell.elsewhere",
    "ralph_runner.shell.engine",
    "watchdog.observers",
    "wcwidth",
    "yaml",
    "yaml.events",
    "ralph_rpc.machine.processes",
    "psutil",
)


def load_rest() -> list[str]:
    """Load all that is imported where it is used; returns what could not be, because it is gone already."""
    gone: list[str] = []
    for name in LATER:
        try:
            importlib.import_module(name)
        except Exception:  # noqa: BLE001 - half a package raises anything
            gone.append(name)
    return gone
