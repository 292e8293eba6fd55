"""Where a program of the user's is: on PATH, but never by an entry of PATH that is relative or empty.

Such an entry means another folder in each project, so that a project could put its own git, node or pi there. Only
looks. Called by all that runs a program before the user has agreed to what the project names.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager


def on_path(name: str) -> str | None:
    """The absolute path of the program that this name means."""
    for folder in _absolute():
        path = os.path.join(folder, name)  # noqa: PTH118 - called before every git
        if os.path.isfile(path) and os.access(path, os.X_OK):  # noqa: PTH113
            return path
    return None


@contextmanager
def found_there() -> Iterator[None]:
    """While code that is not ours looks on PATH: relative entries are out of its sight."""
    before = os.environ.get("PATH")
    os.environ["PATH"] = os.pathsep.join(_absolute())
    try:
        yield
    finally:
        if before is None:
            del os.environ["PATH"]
        else:
            os.environ["PATH"] = before


def _absolute() -> list[str]:
    return [folder for folder in os.get_exec_path() if os.path.isabs(folder)]  # noqa: PTH117
