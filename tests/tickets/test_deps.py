"""Cycles: every ticket that depends on itself, however long the way, and no other."""

from collections.abc import Mapping, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from ralph_rpc.tickets.deps import cycles
from tests.effort import examples

IDS = st.sampled_from("abcdefgh")
GRAPHS = st.dictionaries(IDS, st.lists(IDS, max_size=3, unique=True), max_size=8)


def reachable(deps: Mapping[str, Sequence[str]], start: str) -> set[str]:
    """Everything that an id depends on."""
    found: set[str] = set()
    todo = list(deps[start])
    while todo:
        id = todo.pop()
        if id in deps and id not in found:
            found.add(id)
            todo += deps[id]
    return found


@settings(max_examples=examples(1_000))
@given(GRAPHS)
def test_exactly_the_tickets_that_depend_on_themselves_are_named_once(deps: dict[str, list[str]]) -> None:
    named = [id for cycle in cycles(deps) for id in cycle.members]
    assert sorted(named) == sorted(id for id in deps if id in reachable(deps, id))
    for cycle in cycles(deps):
        following = (*cycle.ring[1:], cycle.ring[0])
        assert all(dep in deps[id] for id, dep in zip(cycle.ring, following, strict=True))


def test_a_cycle_is_told_with_all_its_members() -> None:
    told = [cycle.told() for cycle in cycles({"a": ["b"], "b": ["c"], "c": ["a", "d"], "d": ["c"], "e": ["e"]})]
    assert told == ["dependency cycle a -> b -> c -> a, and d", "dependency cycle e -> e"]


def test_a_chain_of_a_hundred_thousand_is_no_trouble() -> None:
    chain = {str(n): [str(n + 1)] for n in range(100_000)}
    assert cycles(chain) == []
    chain["99999"] = ["0"]
    (cycle,) = cycles(chain)
    assert len(cycle.ring) == 100_000
    assert len(cycle.told(8)) < 200
