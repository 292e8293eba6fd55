"""Every loop that a test of the Python interface leaves alive is ended."""

from collections.abc import Iterator

import pytest

from ralph_rpc import api
from tests.rig import Rig


@pytest.fixture
def ending(no_leftovers: None) -> Iterator[list[Rig]]:
    """Rigs whose projects may have living loops when the test ends."""
    rigs: list[Rig] = []
    yield rigs
    for rig in rigs:
        for loop in api.loops(rig.project):
            if loop.status().runner != "dead":
                loop.kill()
