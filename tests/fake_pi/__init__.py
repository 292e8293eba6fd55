"""How to start the fake pi (fake_pi.py)."""

import sys
from pathlib import Path


def fake_command(*options: str) -> list[str]:
    """What to run, `--mode rpc` not included."""
    return [sys.executable, "-S", str(Path(__file__).with_name("fake_pi.py")), *options]
