"""How often a fault is tried: some times in every run, as often as the promise is stated for in `pytest -m full`."""

import pytest


def times(*, quick: int, full: int) -> pytest.MarkDecorator:
    """Gives the test a `count`: `quick` in every run, `full` in the full tier."""
    return pytest.mark.parametrize(
        "count", [pytest.param(quick, id="quick"), pytest.param(full, id="full", marks=pytest.mark.full)]
    )
