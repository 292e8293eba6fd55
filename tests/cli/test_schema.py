"""The schemas: those that are shipped, what they say, and that what we write agrees with them."""

from pathlib import Path
from typing import Any, get_args

import orjson
import pydantic
import pytest

from ralph_rpc.model import events
from ralph_rpc.model.schemas import SHAPES, TITLES, json_schema, validator, write
from tests.cli import forged
from tests.cli.stage import Stage

SHIPPED = forged.ROOT / "schemas"


def test_the_shipped_schemas_are_those_of_the_shapes(tmp_path: Path) -> None:
    write(tmp_path)
    made = {path.name: path.read_text() for path in tmp_path.iterdir()}
    shipped = {path.name: path.read_text() for path in SHIPPED.iterdir()}
    assert made == shipped, "run: python -m ralph_rpc.model.schemas schemas/"


def test_writing_removes_the_schema_of_a_shape_that_is_no_more(tmp_path: Path) -> None:
    (tmp_path / "gone.json").write_text("{}")
    (tmp_path / "README.md").write_text("stays")
    write(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {f"{name}.json" for name in SHAPES} | {"README.md"}


def test_every_schema_says_what_it_is() -> None:
    assert set(TITLES) == set(SHAPES)
    for name in SHAPES:
        schema = json_schema(name)
        assert schema["$id"] == f"urn:ralph-rpc:schema:{name}" and schema["title"] == TITLES[name]
        assert schema["$schema"].endswith("2020-12/schema")


def test_the_docstring_of_a_field_is_its_description() -> None:
    state = json_schema("state")
    assert state["properties"]["elapsedMs"]["description"].startswith("Time under a runner")
    assert state["$defs"]["Stats"]["properties"]["cost"]["description"].startswith("US dollars")
    ended = json_schema("event")["$defs"]["IterationEnd"]["properties"]
    assert ended["summary"]["description"].startswith("The last assistant text"), "inherited fields, too"


def test_optional_keys_are_not_required_and_unknown_ones_are_welcome() -> None:
    steer = json_schema("steer")
    assert steer["required"] == ["message"] and "additionalProperties" not in steer
    value = {"message": "x", "new": 1}
    assert validator("steer").validate_python(value) == {"message": "x"}


def test_state_and_registry_entry_as_written_are_valid(tmp_path: Path) -> None:
    paths = forged.loop(tmp_path)
    validator("state").validate_json(paths.state.read_bytes(), strict=True)
    validator("config").validate_json(paths.config.read_bytes(), strict=True)
    validator("registry").validate_python(forged.entry(tmp_path), strict=True)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steer", {}),
        ("steer", {"message": 1}),
        ("stop", {"when": "soon"}),
        ("abort", {"then": "x"}),
        ("pause", []),
        ("event", {"type": "ralph_unknown"}),
        ("event", {"type": "ralph_notice", "at": "now", "level": "info", "message": ""}),
        ("stamp", {"at": 1}),
    ],
)
def test_what_is_wrong_is_refused(name: str, value: Any) -> None:
    with pytest.raises(pydantic.ValidationError):
        validator(name).validate_python(value, strict=True)


def test_an_event_is_judged_by_its_type() -> None:
    schema = json_schema("event")
    assert set(schema["discriminator"]["mapping"]) == {
        get_args(shape.__annotations__["type"])[0] for shape in get_args(events.RunnerEvent)
    }
    notice = {"type": "ralph_notice", "at": 1, "level": "info", "message": "x"}
    assert validator("event").validate_python(notice, strict=True) == notice


def test_the_command_lists_and_prints(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    assert [line.split()[0] for line in stage.run("schema").stdout.splitlines()] == list(SHAPES)
    assert orjson.loads(stage.run("schema", "--json").stdout) == TITLES
    assert stage.run("schema", "state").stdout == (SHIPPED / "state.json").read_text()
    assert "Did you mean 'state'?" in stage.run("schema", "stat", code=2).stderr
