"""The tree's order: who may import whom, read from the source, so that a violation is found without running it.

Every package has a row here. An import counts wherever it stands: at the top, in a function, or for the type checker alone.
"""

import ast
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]

LAYERS: tuple[dict[str, set[str]], ...] = (
    # From the ground up. A package may import itself, all layers below its own, and of its own layer what its row names.
    {
        "ralph_rpc": set(),
        "ralph_rpc.errors": set(),
        "ralph_rpc.clock": set(),
        "ralph_rpc.model": set(),
        "ralph_rpc.machine": set(),
    },
    {"ralph_rpc.files": set()},
    {"ralph_rpc.git": set(), "ralph_rpc.launchers": set(), "ralph_rpc.pi": set(), "ralph_rpc.terminal": set()},
    {
        "ralph_rpc.prompts": set(),
        "ralph_rpc.options": {"ralph_rpc.prompts"},
        "ralph_rpc.tickets": {"ralph_rpc.prompts"},
        "ralph_rpc.tickets.sources": {"ralph_rpc.tickets"},
        "ralph_rpc.tickets.notes": {"ralph_rpc.tickets", "ralph_rpc.prompts"},
    },
    {"ralph_rpc.story": set()},
    {"ralph_rpc.loops": set()},
    {"ralph_rpc.loops.remains": set()},
    # The faces: no package imports one of them, but the program imports the others.
    {
        "ralph_rpc.api": set(),
        "ralph_rpc.attach": set(),
        "ralph_rpc.checks": set(),
        "ralph_rpc.demo": set(),
        "ralph_rpc.report": set(),
    },
    {"ralph_rpc.cli": set()},
    {"ralph_rpc.__main__": set()},
)

RUNNER: dict[str, set[str]] = {
    # All of ours that each package of the runner may import, besides itself.
    "ralph_runner": set(),
    "ralph_runner.guarded": {"ralph_rpc.errors", "ralph_rpc.machine"},
    "ralph_runner.core": {"ralph_rpc.clock", "ralph_rpc.model", "ralph_rpc.prompts", "ralph_rpc.tickets"},
    "ralph_runner.core.tickets": {
        "ralph_rpc.clock",
        "ralph_rpc.model",
        "ralph_rpc.prompts",
        "ralph_rpc.tickets",
        "ralph_runner.core",
    },
    "ralph_runner.pi": {
        "ralph_rpc.errors",
        "ralph_rpc.files",
        "ralph_rpc.machine",
        "ralph_rpc.model",
        "ralph_runner.core",
        "ralph_runner.guarded",
    },
    "ralph_runner.shell": {
        "ralph_rpc",
        "ralph_rpc.clock",
        "ralph_rpc.errors",
        "ralph_rpc.files",
        "ralph_rpc.git",
        "ralph_rpc.launchers",
        "ralph_rpc.machine",
        "ralph_rpc.model",
        "ralph_rpc.pi",
        "ralph_rpc.prompts",
        "ralph_rpc.story",
        "ralph_rpc.terminal",
        "ralph_rpc.tickets",
        "ralph_rpc.tickets.notes",
        "ralph_rpc.tickets.sources",
        "ralph_runner.core",
        "ralph_runner.core.tickets",
        "ralph_runner.guarded",
        "ralph_runner.pi",
    },
    "ralph_runner.__main__": {
        "ralph_rpc",
        "ralph_rpc.errors",
        "ralph_rpc.files",
        "ralph_rpc.machine",
        "ralph_runner.guarded",
        "ralph_runner.shell",
    },
}

MODULES: dict[str, set[str]] = {
    # Modules that may import less than their package: all of ours that they may import.
    "ralph_rpc.story.fold": {"ralph_rpc.model", "ralph_rpc.story"},
    "ralph_runner.pi": {
        "ralph_rpc.errors",
        "ralph_rpc.files",
        "ralph_rpc.machine",
        "ralph_rpc.model",
        "ralph_runner.core.inputs",
        "ralph_runner.guarded",
        "ralph_runner.pi",
    },
}

PURE_LIBRARY = {
    "collections",
    "dataclasses",
    "enum",
    "functools",
    "hashlib",
    "itertools",
    "json",
    "math",
    "operator",
    "re",
    "string",
    "typing",
    "unicodedata",
    "wcwidth",
}
"""All that the core, and what it imports, may import from elsewhere: none of it reads a clock, a file or a process."""

PURE_PARTS = {
    # modules that the core imports -> what they hold of the impure, each for a reason
    "ralph_rpc.clock": {"time", "datetime"},  # the core may have only the names below
    "ralph_runner.core.resets": {"datetime", "zoneinfo"},  # what a time of day means, and no look at the clock
    "ralph_rpc.tickets.ticket": {"pathlib"},  # says where a ticket's file is, and opens none
}
PURE_CLOCK = {"iso", "local_time", "parse_iso"}
"""Of ralph_rpc.clock, what reads no clock."""

IMPURE_CALLS = {"__import__", "breakpoint", "eval", "exec", "input", "open", "print"}


def _sources() -> dict[str, str]:
    """The source text of each module of both packages."""
    found = {}
    for top in (ROOT / "ralph_rpc", ROOT / "runner" / "ralph_runner"):
        for path in top.rglob("*.py"):
            parts = path.relative_to(top.parent).with_suffix("").parts
            found[".".join(parts)] = path.read_text()
    return found


SOURCES = _sources()


@cache
def _parsed(text: str) -> ast.Module:
    return ast.parse(text)


@cache
def _imported(package: str, text: str) -> frozenset[str]:
    """Full names of all that a module of that package imports, wherever in it."""
    found = []
    for node in ast.walk(_parsed(text)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            found += [f"{base}.{alias.name}" for alias in node.names]
    return frozenset(found)


class Tree:
    """Modules by name (`a.b.__init__` is `a.b`) and what each of them imports."""

    def __init__(self, sources: Mapping[str, str]) -> None:
        self.packages = {name.removesuffix(".__init__") for name in sources if name.endswith(".__init__")}
        self.code = {name.removesuffix(".__init__"): _parsed(text) for name, text in sources.items()}
        self.imports = {
            name.removesuffix(".__init__"): _imported(name.rpartition(".")[0], text) for name, text in sources.items()
        }
        """Module -> full names that it imports: of ours and of others."""

    def module(self, name: str) -> str:
        """The module of ours that holds a full name, "" for a name that is not ours."""
        while name and name not in self.code:
            name = name.rpartition(".")[0]
        return name

    def package(self, module: str) -> str:
        """The row that a module belongs in: its package; a module beside the packages is one of its own."""
        if module in self.packages:
            return module
        above = module.rpartition(".")[0]
        return module if above in ("ralph_rpc", "ralph_runner") else above

    def edges(self) -> Iterator[tuple[str, str]]:
        """Importing and imported module, of ours."""
        for importer, names in self.imports.items():
            for imported in {self.module(name) for name in names} - {"", importer}:
                yield importer, imported


def _allowed() -> dict[str, set[str]]:
    """Package -> packages that it may import."""
    allowed: dict[str, set[str]] = {}
    below: set[str] = set()
    for layer in LAYERS:
        for package, beside in layer.items():
            allowed[package] = below | beside | {package}
        below = below | set(layer)
    return allowed | {package: {package, *others} for package, others in RUNNER.items()}


def missing_rows(tree: Tree) -> set[str]:
    return {tree.package(module) for module in tree.code} ^ set(_allowed())


def upward(tree: Tree) -> list[str]:
    """Imports that no row allows."""
    allowed = _allowed()
    bad = [
        f"{importer}: {imported}"
        for importer, imported in tree.edges()
        if tree.package(imported) not in allowed.get(tree.package(importer), ())
    ]
    for importer, imported in tree.edges():
        for narrow, parts in MODULES.items():
            if _within(importer, {narrow}) and not _within(imported, parts):
                bad.append(f"{importer}: {imported}")
    return sorted(set(bad))


def _within(module: str, parts: Iterable[str]) -> bool:
    return any(module == part or module.startswith(f"{part}.") for part in parts)


def impure(tree: Tree) -> list[str]:
    """What the core, or a module that it imports at however many removes, touches of clock, files and processes."""
    following: dict[str, set[str]] = {}
    for importer, imported in tree.edges():
        following.setdefault(importer, set()).add(imported)
    reached, ahead = set[str](), [module for module in tree.code if _within(module, {"ralph_runner.core"})]
    while ahead:
        module = ahead.pop()
        if module not in reached:
            reached.add(module)
            ahead += following.get(module, ())
    bad = []
    for module in sorted(reached):
        for name in tree.imports[module]:
            holder = tree.module(name)
            reads_clock = holder == "ralph_rpc.clock" and name.rpartition(".")[2] not in PURE_CLOCK
            foreign = not holder and name.split(".")[0] not in PURE_LIBRARY | PURE_PARTS.get(module, set())
            if reads_clock or foreign:
                bad.append(f"{module}: {name}")
        for node in ast.walk(tree.code[module]):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in IMPURE_CALLS:
                bad.append(f"{module}: {node.func.id}()")
    return bad


def circles(edges: Iterable[tuple[str, str]]) -> list[list[str]]:
    """Groups of nodes that reach each other."""
    following: dict[str, set[str]] = {}
    for start, end in edges:
        if start != end:
            following.setdefault(start, set()).add(end)

    def reach(node: str) -> set[str]:
        found, ahead = set[str](), [node]
        while ahead:
            for each in following.get(ahead.pop(), set()) - found:
                found.add(each)
                ahead.append(each)
        return found

    reached = {node: reach(node) for node in following}
    groups = {
        frozenset(other for other in reached if other in reached[node] and node in reached[other])
        for node in reached
        if node in reached[node]
    }
    return sorted(sorted(group) for group in groups)


def with_line(module: str, line: str) -> Tree:
    """The tree as it is, with one more line at the end of one of its modules."""
    return Tree({**SOURCES, module: f"{SOURCES[module]}\n{line}\n"})


TREE = Tree(SOURCES)


def test_every_package_has_a_row_and_every_row_a_package() -> None:
    assert missing_rows(TREE) == set()


def test_a_new_package_without_a_row_is_seen() -> None:
    assert missing_rows(Tree({**SOURCES, "ralph_rpc.web.__init__": "", "ralph_rpc.web.page": ""})) == {"ralph_rpc.web"}


def test_only_lower_layers_are_imported() -> None:
    assert upward(TREE) == []


def test_the_core_and_all_that_it_imports_touch_neither_clock_nor_files_nor_processes() -> None:
    assert impure(TREE) == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circles(TREE.edges()) == []


def test_no_packages_import_each_other_in_a_circle() -> None:
    assert circles((TREE.package(importer), TREE.package(imported)) for importer, imported in TREE.edges()) == []


def test_the_core_that_reads_the_clock_is_caught() -> None:
    for line in ("from ralph_rpc.clock import now_ms", "from ralph_rpc import clock", "import ralph_rpc.clock"):
        assert any("ralph_runner.core.verdict" in bad for bad in impure(with_line("ralph_runner.core.verdict", line)))
    [bad] = impure(with_line("ralph_runner.core.verdict", "from ralph_rpc.clock import up_ms"))
    assert bad == "ralph_runner.core.verdict: ralph_rpc.clock.up_ms"


def test_the_core_that_touches_files_is_caught_also_through_what_it_imports() -> None:
    assert impure(with_line("ralph_runner.core.verdict", "open('x')")) == ["ralph_runner.core.verdict: open()"]
    assert "ralph_rpc.prompts.task: os.path" in impure(with_line("ralph_rpc.prompts.task", "import os.path"))


def test_git_that_imports_the_terminal_is_caught_also_within_a_function() -> None:
    line = "def late() -> None:\n    from ralph_rpc.attach.app import Attach"
    for added in (line.split("\n")[1].strip(), line, "from ..attach.app import Attach"):
        assert upward(with_line("ralph_rpc.git.repository", added)) == [
            "ralph_rpc.git.repository: ralph_rpc.attach.app"
        ]


def test_the_program_that_imports_the_runner_is_caught() -> None:
    [bad] = upward(with_line("ralph_rpc.cli.main", "import ralph_runner.guarded"))
    assert bad == "ralph_rpc.cli.main: ralph_runner.guarded"


def test_a_circle_is_caught_also_where_only_the_type_checker_sees_it() -> None:
    line = "if TYPE_CHECKING:\n    from ralph_rpc.files.inbox import Inbox"
    [circle] = circles(with_line("ralph_rpc.files.atomic", line).edges())
    assert {"ralph_rpc.files.atomic", "ralph_rpc.files.inbox"} <= set(circle)


def test_operations_on_loops_neither_ask_nor_print() -> None:
    for module, code in TREE.code.items():
        if _within(module, {"ralph_rpc.loops"}):
            called = {
                node.func.id
                for node in ast.walk(code)
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
            }
            assert not {"print", "input"} & called, module
            assert not {"click", "rich", "textual"} & {name.partition(".")[0] for name in TREE.imports[module]}, module
