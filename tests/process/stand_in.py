"""A small runner: starts programs under guard and does what it reads, one order a line, one JSON answer a line.

spawn SHELL-CODE    -> {"pid", "guard", "number"}, once the program has said something on stdout
helper              -> a process of the runner's own, as git would be: {"pid"}
kill-guard NUMBER, terminate NUMBER, kill NUMBER -> {}
wait NUMBER         -> {"code", "method", "zombies"}
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from ralph_rpc.machine import locks
from ralph_runner.guarded import guard
from ralph_runner.guarded.process import Guarded


def zombies() -> int:
    return sum(p.zombie and p.parent == os.getpid() for p in guard.processes().values())


def helper(seconds: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(["sleep", seconds])


async def main() -> None:
    guard.become_subreaper()
    lock = locks.acquire(Path(sys.argv[1])) if sys.argv[1] else None
    running: list[Guarded] = []
    helpers: list[subprocess.Popen[bytes]] = []
    while line := await asyncio.to_thread(sys.stdin.readline):
        verb, _, rest = line.strip().partition(" ")
        answer: dict[str, object] = {}
        match verb:
            case "spawn":
                program = await Guarded.spawn(
                    ["sh", "-c", rest], cwd=Path("/"), env=os.environ, tree_lock=lock.fd if lock else None
                )
                await asyncio.to_thread(os.read, program.stdout_fd, 100)
                answer = {"pid": program.pid, "guard": program.guard_pid, "number": len(running)}
                running.append(program)
            case "helper":
                helpers.append(helper(rest))
                answer = {"pid": helpers[-1].pid}
            case "kill-guard":
                os.kill(running[int(rest)].guard_pid, signal.SIGKILL)
            case "terminate":
                running[int(rest)].terminate()
            case "kill":
                running[int(rest)].kill()
            case "wait":
                ended = await running[int(rest)].wait()
                answer = {"code": ended.code, "method": ended.method, "zombies": zombies()}
            case _:
                raise ValueError(verb)
        print(json.dumps(answer), flush=True)


asyncio.run(main())
