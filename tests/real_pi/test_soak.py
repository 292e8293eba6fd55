"""A loop whose provider and processes fail all the time says nothing untrue of itself or of money."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.benchmarks import faulty_provider, soak_faults
from tests.faults.tiers import times

SEED = 14


@pytest.mark.pi
@times(quick=40, full=1_500)
def test_whatever_fails_a_loop_does_its_work_and_counts_what_is_charged(
    tmp_path: Path, count: int, record_property: Callable[[str, object], None]
) -> None:
    seen = soak_faults.soak(tmp_path, count, SEED)
    record_property("figure", soak_faults.figures(seen).replace("\n", "; "))
    assert not seen.wrong, "\n".join([*seen.wrong, soak_faults.figures(seen), seen.rig.log()])


def test_the_plan_is_the_same_for_the_same_seed_and_has_every_mishap_that_needs_no_long_wait() -> None:
    assert faulty_provider.plan(3, 40) == faulty_provider.plan(3, 40) != faulty_provider.plan(4, 40)
    planned = {mishap.kind for mishap in faulty_provider.plan(3, 40).values()}
    assert planned == set(faulty_provider.OFTEN) - {"bill-wait"}
    assert {mishap.kind for mishap in faulty_provider.plan(3, 1_500).values()} == set(faulty_provider.OFTEN)


def test_an_answer_that_nobody_heard_may_lack_and_nothing_else() -> None:
    assert soak_faults.untold([0.25, 0.5, 1.0], 1.75, 0) == []
    assert soak_faults.untold([0.25, 0.5, 1.0], 1.25, 0) is None
    assert soak_faults.untold([0.25, 0.5, 1.0], 1.25, 1) == [0.5]
    assert soak_faults.untold([0.25, 0.5, 1.0], 1.3, 3) is None
