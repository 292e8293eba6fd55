"""docs/reliability.md has a row for each of the 50 faults, and each row has a test, or the reason why it has none.

The tests are found by their names, test_row_NN_…; nothing of them is run or imported. The tables after that have no numbers:
each of their rows names its tests.
"""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs" / "reliability.md"
ROWS = range(1, 51)
NONE = "–"
"""In the column of the tests."""
NAMED = re.compile(r"(tests/[\w/]+\.py)::(test_\w+)")


@cache
def functions(module: Path) -> list[str]:
    """The tests of a module."""
    return [
        node.name
        for node in ast.walk(ast.parse(module.read_bytes()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    ]


def carrying(row: int) -> list[tuple[str, str]]:
    """The tests that carry the row's number, with the module that each is in."""
    return [
        (str(module.relative_to(ROOT)), name)
        for module in sorted(Path(__file__).parent.glob("test_*.py"))
        for name in functions(module)
        if name.startswith(f"test_row_{row:02}_")
    ]


def table() -> dict[int, list[str]]:
    """The cells of each row of the table, by the row's number."""
    found: dict[int, list[str]] = {}
    for line in DOCS.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("|") and cells[0].isdecimal():
            assert int(cells[0]) not in found, f"row {cells[0]} is there twice"
            assert len(cells) == 5 and all(cells[1:3]), line
            found[int(cells[0])] = cells
    return found


def test_the_table_has_every_row_and_no_other() -> None:
    assert list(table()) == list(ROWS)


@pytest.mark.parametrize("row", ROWS)
def test_a_row_has_a_test_or_a_reason(row: int) -> None:
    tests, figure = table()[row][3:]
    assert figure
    if tests == NONE:
        assert carrying(row) == [], "the table says that there is none"
    else:
        told = NAMED.findall(tests)
        assert told and set(told) <= set(carrying(row)), f"the tests of row {row} are {carrying(row)}"


def test_no_test_carries_a_number_that_is_no_row() -> None:
    here = [name for module in Path(__file__).parent.glob("test_*.py") for name in functions(module)]
    numbers = {int(found[1]) for name in here if (found := re.match(r"test_row_(\d+)_", name))}
    assert numbers <= set(ROWS)


def test_every_row_without_a_number_has_a_test() -> None:
    rows = [line for line in DOCS.read_text().splitlines() if line.startswith("|") and line.count(" | ") == 2]
    rows = [row for row in rows if row != "| what | what happens | tests |"]
    assert rows
    assert [row for row in rows if not NAMED.search(row.rpartition(" | ")[2])] == []


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_every_test_that_the_documentation_names_exists(page: Path) -> None:
    for module, name in NAMED.findall(page.read_text()):
        assert name in functions(ROOT / module), f"{module} has no {name}"
