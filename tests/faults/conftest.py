"""The figures that the tests of this folder reach, printed as a table after a run with `--figures`."""

from collections.abc import Callable

import pytest

Note = Callable[[str], None]


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Note:
    """`figure("1000 kills, 0 lost")` notes what this test measured."""

    def note(text: str) -> None:
        record_property("figure", text)

    return note
