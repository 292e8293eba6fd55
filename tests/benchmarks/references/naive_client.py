"""The client that one writes in ten minutes: asyncio's `readline`, `json` on every line, the line to a file.

    naive_client.py LOG READY < pi's stdout

Its one refinement is a limit that does not break on long lines (asyncio's own is 64 KiB).
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import BinaryIO

LIMIT = 1 << 30


async def main(log: BinaryIO, ready: Path) -> None:
    reader = asyncio.StreamReader(limit=LIMIT)
    protocol = asyncio.StreamReaderProtocol(reader)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    ready.touch()
    ends = 0
    while line := await reader.readline():
        event = json.loads(line)
        ends += event["type"] == "agent_end"
        log.write(line)


with Path(sys.argv[1]).open("wb") as file:
    asyncio.run(main(file, Path(sys.argv[2])))
