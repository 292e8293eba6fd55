"""How often a fault is tried: some times in every run, as often as the promise is stated for in `pytest -m full`."""

import pytest

QUICK_S, FULL_S = 600, 1_800
"""When a test is given up; where other tests take the cores, too."""


def times(*, quick: int, full: int) -> pytest.MarkDecorator:
    """Gives the test a `count`: `quick` in every run, `full` in the full tier."""
    often = (pytest.mark.full, pytest.mark.timeout(FULL_S))
    return pytest.mark.parametrize(
        "count",
        [
            pytest.param(quick, id="quick", marks=pytest.mark.timeout(QUICK_S)),
            pytest.param(full, id="full", marks=often),
        ],
    )
