"""The published Python SDK (pi-agent-python-sdk), with a listener that appends each event to a file.

    sdk_client.py LOG READY COMMAND...

Runs in an environment of its own, where the SDK is installed. COMMAND is what it takes for pi. Nothing of the SDK is
changed but its bound on the length of a line.
"""

import asyncio
import importlib
import json
import sys
from pathlib import Path
from typing import Any, TextIO

LIMIT = 1 << 30


async def main(log: TextIO, ready: Path, command: list[str]) -> None:
    sdk: Any = importlib.import_module("pi_agent")
    client = sdk.AsyncPiClient(executable=command, limits=sdk.Limits(max_record_bytes=LIMIT))
    client.on_event(lambda event: log.write(json.dumps(event.raw) + "\n"))
    await client.start()
    ready.touch()
    while client.running:
        await asyncio.sleep(0.005)


with Path(sys.argv[1]).open("w") as file:
    asyncio.run(main(file, Path(sys.argv[2]), sys.argv[3:]))
