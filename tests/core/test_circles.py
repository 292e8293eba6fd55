"""Who imports whom in the core, read from the source: each part can be read, and changed, without those above it."""

import ast
from pathlib import Path

RUNNER = Path(__file__).parents[2] / "runner"
MODULES = {
    ".".join(path.relative_to(RUNNER).with_suffix("").parts).removesuffix(".__init__"): path
    for path in (RUNNER / "ralph_runner" / "core").rglob("*.py")
}


def imported(path: Path) -> set[str]:
    """The core's modules that a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return found & MODULES.keys()


def test_no_module_of_the_core_imports_itself_by_way_of_others() -> None:
    left = {name: imported(path) for name, path in MODULES.items()}
    assert len(left) > 20
    while free := {name for name, needs in left.items() if not needs & left.keys()}:
        left = {name: needs for name, needs in left.items() if name not in free}
    assert not left, f"in a circle, or above one: {sorted(left)}"


def test_the_task_core_knows_nothing_of_tickets() -> None:
    tickets = "ralph_runner.core.tickets"
    below = {name: path for name, path in MODULES.items() if not name.startswith(tickets)}
    assert not [name for name, path in below.items() if any(one.startswith(tickets) for one in imported(path))]
