"""task.md and reflect.md of a task loop: as they are now, read before each prompt and at its end; and put back if deleted.

If the machine dies here, a file is there whole or not at all.
"""

from contextlib import suppress

from ralph_rpc.files.atomic import read_plain, write_atomic
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.machine import nofollow
from ralph_runner.core.results import TaskRead

LARGEST_TASK = 1 << 20


def read_task(paths: LoopPaths) -> TaskRead:
    """Never fails: a file that cannot be read gives a TaskRead without a task, which says why in one line."""
    texts: list[str | None] = []
    for path in (paths.task, paths.reflect):
        try:
            data = read_plain(path, LARGEST_TASK, follow=False)
            if len(data) > LARGEST_TASK:
                return TaskRead(None, error=f"{path} is larger than 1 MiB; shorten it, then resume")
            texts.append(data.decode("utf-8"))
        except FileNotFoundError:
            texts.append(None)
        except UnicodeDecodeError:
            return TaskRead(None, error=f"{path} is not UTF-8; fix it, then resume")
        except OSError as error:
            return TaskRead(None, error=f"{path} cannot be read ({error.strerror}); fix it, then resume")
    task, reflection = texts
    if task is None or not task.strip():
        return TaskRead(None, error=f"{paths.task} is missing or empty; write the task into it, then resume")
    return TaskRead(task, reflection)


def write_again(paths: LoopPaths, known: TaskRead) -> None:
    """Put back what was deleted, as it was read last; what is there is left alone, whatever it is."""
    for path, text in ((paths.task, known.task), (paths.reflect, known.reflection)):
        if text is not None and not nofollow.exists(path):
            with suppress(OSError):  # the loop knows the text
                write_atomic(path, text.encode())
