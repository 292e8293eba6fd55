"""The tree's order: who may import whom, read from the source, so that a violation is found without running it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PURE = {
    "ralph_rpc.model", "ralph_rpc.prompt", "ralph_rpc.clock", "ralph_rpc.tickets.prompt", "ralph_rpc.tickets.schedule",
    "ralph_rpc.tickets.ticket",
}  # fmt: skip
RULES: dict[str, set[str]] = {
    # what -> all of ours that it may import
    "ralph_rpc/model": {"ralph_rpc.model"},
    "ralph_rpc/files": {"ralph_rpc.model", "ralph_rpc.errors", "ralph_rpc.files", "ralph_rpc.clock"},
    "ralph_rpc": {"ralph_rpc"},
    "ralph_rpc/view.py": {"ralph_rpc.model", "ralph_rpc.items"},
    "runner/ralph_runner/core": {*PURE, "ralph_runner.core"},
    "runner/ralph_runner/pi": {
        "ralph_rpc.model", "ralph_rpc.errors", "ralph_rpc.files", "ralph_runner.core.inputs", "ralph_runner.pi",
        "ralph_runner.guard",
    },
    "runner/ralph_runner/guard.py": set(),
}  # fmt: skip
IMPURE = {"time", "os", "subprocess", "pathlib", "asyncio", "threading", "random", "socket", "shutil"}


def imports(path: Path) -> Iterator[str]:
    """Full names of all modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def sources(what: str) -> list[Path]:
    path = ROOT / what
    found = [path] if path.suffix == ".py" else sorted(path.rglob("*.py"))
    assert found, f"nothing there: {what}"
    return found


@pytest.mark.parametrize("what", RULES)
def test_only_allowed_parts_are_imported(what: str) -> None:
    def allowed(name: str) -> bool:
        return any(name == part or name.startswith(f"{part}.") for part in RULES[what])

    bad = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in sources(what)
        for name in imports(path)
        if name.split(".")[0] in ("ralph_rpc", "ralph_runner", "tests", "runner") and not allowed(name)
    ]
    assert bad == []


def test_the_core_touches_nothing() -> None:
    bad = [
        f"{path.name}: {name}"
        for path in sources("runner/ralph_runner/core")
        for name in imports(path)
        if name.split(".")[0] in IMPURE
    ]
    assert bad == []
