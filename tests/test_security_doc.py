"""docs/security.md promises nothing without a test: each that it names exists."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOC = (ROOT / "docs" / "security.md").read_text()
NAMED = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", DOC)


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_each_test_that_the_threat_model_names_exists(file: str, name: str) -> None:
    tree = ast.parse((ROOT / file).read_text())
    functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    assert name in functions if name else any(one.startswith("test_") for one in functions)


def test_each_claim_names_its_test() -> None:
    rows = [line for line in DOC.splitlines() if line.startswith("| ") and line != "| claim | test |"]
    assert len(rows) >= 20 and len(rows) == len(NAMED)
    assert all("`tests/" in row for row in rows)
