"""How much processor time a piece of work takes, whatever the machine does beside it."""

import gc
import time
from collections.abc import Callable


def seconds_of(work: Callable[[], object], tries: int = 3) -> float:
    """The least of some tries, in seconds of this thread. A collection of a whole test run's garbage is not its fault."""
    found = []
    for _ in range(tries):
        gc.collect(0)
        gc.disable()
        try:
            began = time.thread_time()
            work()
            found.append(time.thread_time() - began)
        finally:
            gc.enable()
    return min(found)
