"""A runner that works for days holds no more files, processes or memory than after a minute."""

from pathlib import Path

import pytest

from tests.benchmarks import soak
from tests.faults.conftest import Note
from tests.faults.tiers import times

pytestmark = pytest.mark.usefixtures("no_leftovers")


@times(quick=120, full=8_000)
def test_row_39_nothing_grows_with_the_iterations(tmp_path: Path, count: int, figure: Note) -> None:
    looks = soak.soak(tmp_path, count, minutes=10)
    assert not soak.failures(looks), soak.table(looks)
    assert looks[-1].iterations >= count
    figure(soak.summary(looks))
