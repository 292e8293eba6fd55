"""What the prompts of a ticket loop have in them of its options, of the ticket and of what came before."""

from typing import Any

from ralph_runner.core.tickets.state import SHARED
from tests.core.talk import MARKER
from tests.core.ticket_talk import World, ticket


def prompts(**options: Any) -> list[str]:
    """Of two attempts at a ticket; the first is refused by verify."""
    world = World(ticket("a", "x"), verify="make check", **options)
    world.verifies["a"] = [2]
    world.begin()
    world.attempt("a")
    return world.prompts("a")


def test_a_prompt_names_the_ticket_the_attempt_the_marker_and_the_check() -> None:
    first, second = prompts(attempts=3)
    assert "Ticket a, Do a (attempt 1 of 3), from .tickets/a.md." in first
    assert "# Do a" in first and MARKER in first and "make check" in first
    assert "(attempt 2 of 3)" in second
    refusal = "`make check` ended with exit code 2. The end of its output:\n\nexit 2"
    assert f"The last attempt at this ticket does not count:\n\n{refusal}" in second and refusal not in first


def test_in_a_worktree_the_agent_is_told_where_its_branch_goes() -> None:
    text = prompts(into="trunk")[0]
    assert "a git worktree with a branch of its own" in text and "merges the branch into trunk" in text


def test_without_a_worktree_the_agent_is_told_of_none() -> None:
    world = World(ticket("a"), worktrees=False, parallel=1, into="trunk")
    world.begin()
    (text,) = world.prompts(SHARED)
    assert "worktree" not in text and "the runner commits the rest." in text


def test_outside_of_git_nothing_is_said_of_commits() -> None:
    world = World(ticket("a"), worktrees=False, parallel=1, into=None)
    world.begin()
    assert "commit" not in world.prompts(SHARED)[0]


def test_a_conflict_is_told_as_one_and_not_as_a_refusal() -> None:
    world = World(ticket("a", "x"), into="trunk")
    world.conflicts["a"] = ["both changed f.py"]
    world.begin()
    world.attempt("a")
    text = world.prompts("a")[-1]
    assert "could not be merged into trunk:\n\nboth changed f.py" in text
    assert "does not count" not in text


def test_a_template_of_ones_own_is_filled_in() -> None:
    text = prompts(promptTemplate="Please do {id} ({title}) on {branch}, attempt {attempt}, see {path}")[0]
    assert "Please do a (Do a) on ralph/x/a, attempt 1, see .tickets/a.md" in text


def test_a_prompt_fences_the_tickets_text_with_a_word_by_chance() -> None:
    world = World(ticket("a", "x"))
    world.begin()
    text = world.prompts("a")[0]
    fence = f"ticket-{int(0.5 * (1 << 52)):013x}"
    assert f"<{fence}>\n# Do a\n</{fence}>" in text


def test_a_conflicts_merge_is_verified_and_its_output_told() -> None:
    world = World(ticket("a", "x"), verify="make check", into="trunk")
    world.merge_verifies = [2]
    world.begin()
    world.target = ("other",)
    world.attempt("a")
    assert (
        "`trunk` was merged into your branch, because others had changed it; then `make check` ended with exit code 2."
        in world.prompts("a")[-1]
    )
    assert "exit 2" in world.prompts("a")[-1].partition("exit code 2.")[2]


def test_a_target_that_cannot_be_merged_into_the_branch_is_a_conflict() -> None:
    world = World(ticket("a", "x"), verify="make check")
    world.updates["a"] = ["both changed g.py"]
    world.merge_verifies = [2]
    world.begin()
    world.target = ("other",)
    world.attempt("a")
    assert "exit code 2" in world.prompts("a")[-1]
    assert "both changed g.py" in world.prompts("a")[-1] and world.statuses == {"a": "running"}
    world.attempt("a")
    assert world.merged == ["a"]
