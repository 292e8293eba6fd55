"""Every process of the machine, one by one. Used by what looks for processes by their marks; needs psutil.

psutil's own `process_iter` fails as a whole where a process ends at the moment it is looked at.
"""

from collections.abc import Iterator

import psutil


def processes() -> Iterator[psutil.Process]:
    """Those that can be looked at now; each may be gone by the time that it is asked something."""
    for pid in psutil.pids():
        try:
            yield psutil.Process(pid)
        except (psutil.Error, OSError):
            continue
