"""What the extension relies on: its shapes name only what the schemas promise, and its package is of this version."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

import ralph_rpc
from ralph_rpc.pi.extension import FOLDER, PACKAGE

SCHEMAS = Path(__file__).parents[2] / "schemas"
SHAPES = (FOLDER / "shapes.ts").read_text()
INTERFACE = re.compile(r"/\*\* (\S+\.json)(?:#(\w+))? \*/\nexport interface (\w+) \{\n(.*?)\n\}", re.DOTALL)
MEMBER = re.compile(r"^\t(\w+)(\??): (.*);$", re.MULTILINE)
FOUND = INTERFACE.findall(SHAPES)


def schema_of(file: str, definition: str) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads((SCHEMAS / file).read_bytes())
    found: dict[str, Any] = schema["$defs"][definition] if definition else schema
    if "$ref" in found:
        found = schema["$defs"][found["$ref"].rpartition("/")[2]]
    return found


def test_every_shape_names_its_schema() -> None:
    assert len(FOUND) == SHAPES.count("export interface") > 10


@pytest.mark.parametrize(("file", "definition", "name", "body"), FOUND, ids=[one[2] for one in FOUND])
def test_a_shape_holds_what_its_schema_promises(file: str, definition: str, name: str, body: str) -> None:
    schema = schema_of(file, definition)
    required = set(schema.get("required", ()))
    for member, optional, kind in MEMBER.findall(body):
        assert member in schema["properties"], f"{name}.{member} is promised nowhere"
        if not optional:
            assert member in required, f"{name}.{member} may be missing"
        nullable = "null" in json.dumps(schema["properties"][member])
        assert ("null" in kind) or not nullable or optional, f"{name}.{member} may be null"


def test_the_package_is_of_this_version() -> None:
    package = json.loads((FOLDER / "package.json").read_bytes())
    assert package["name"] == PACKAGE
    assert package["version"] == ralph_rpc.__version__
    assert "dependencies" not in package
    assert [(FOLDER / file).is_file() for file in package["pi"]["extensions"]] == [True]


def test_pi_is_imported_in_one_module_and_under_the_names_that_every_pi_knows() -> None:
    for file in FOLDER.glob("*.ts"):
        foreign = re.findall(r'from "([^.][^"]*)"', file.read_text())
        allowed = ("@mariozechner/", "typebox", "node:") if file.name == "host.ts" else ("node:",)
        assert [name for name in foreign if not name.startswith(allowed)] == [], file.name


def test_the_skill_is_one_that_pi_finds() -> None:
    text = (FOLDER / "skills/ralph-rpc/SKILL.md").read_text()
    head = dict(line.split(": ", 1) for line in text.split("---\n")[1].splitlines())
    assert head["name"] == "ralph-rpc"
    assert len(head["description"]) <= 1024
