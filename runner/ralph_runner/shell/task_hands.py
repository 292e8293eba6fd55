"""The hands of a task loop: one pi in the project, or in the loop's worktree, and the task's files."""

from typing import Any

from ralph_rpc.files.atomic import read_plain
from ralph_rpc.files.paths import LoopPaths
from ralph_runner.core.reports import TaskRead
from ralph_runner.pi.process import Guarded
from ralph_runner.shell.pilot import Keep, Pids, Pilot
from ralph_runner.shell.takeover import Takeover

LARGEST_TASK = 1 << 20


class TaskHands:
    """All effects are for the one pi."""

    def __init__(self, pilot: Pilot, hand: Takeover) -> None:
        self._pilot, self._hand = pilot, hand

    def perform(self, effect: Any) -> Keep | None:
        return self._pilot.perform(effect)

    def pids(self) -> Pids:
        return self._pilot.pids

    def ended(self, how: str) -> None:
        """A task loop keeps no other memory than its records."""

    async def close(self) -> None:
        if self._hand.pi is not None:  # the loop had ended before it began
            booting = Guarded(self._hand.pi)
            booting.kill()
            await booting.wait()
        await self._pilot.close()


def read_task(paths: LoopPaths) -> TaskRead:
    """task.md and reflect.md as they are now."""
    texts: list[str | None] = []
    for path in (paths.task, paths.reflect):
        try:
            data = read_plain(path, LARGEST_TASK)
            if len(data) > LARGEST_TASK:
                return TaskRead(None, error=f"{path} is larger than 1 MiB; shorten it and resume")
            texts.append(data.decode("utf-8"))
        except FileNotFoundError:
            texts.append(None)
        except UnicodeDecodeError:
            return TaskRead(None, error=f"{path} is not UTF-8; mend it and resume")
        except OSError as error:
            return TaskRead(None, error=f"{path} cannot be read ({error.strerror}); mend it and resume")
    task, reflection = texts
    if task is None or not task.strip():
        return TaskRead(None, error=f"{paths.task} is missing or empty; write the task into it and resume")
    return TaskRead(task, reflection)
