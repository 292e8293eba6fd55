"""What a command file may be named and may hold."""

import json

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ralph_rpc.files.commandfile import InvalidCommand, parse_command, verb_of
from ralph_rpc.model.commands import VERBS, Verb


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_alone_or_with_anything_behind_a_dash_is_a_name(verb: Verb) -> None:
    for name in (f"{verb}.json", f"{verb}-1.json", f"{verb}-.json", f"{verb}-a.b-c.json", f"{verb}-\u00fc.json"):
        assert verb_of(name) == verb


@pytest.mark.parametrize(
    "name", ["steer", "Steer.json", "steer.JSON", "steers.json", "steer.json~", "kill.json", ".json", "-steer.json", ""]
)
def test_any_other_name_is_none(name: str) -> None:
    assert verb_of(name) is None


def test_defaults_are_filled_in() -> None:
    assert parse_command("steer", b'{"message":"m"}') == (None, {"message": "m"})
    assert parse_command("followup", b'{"message":"m"}') == (None, {"message": "m", "when": "now"})
    assert parse_command("stop", b"{}") == (None, {"when": "iteration"})
    assert parse_command("abort", b" {} \n") == (None, {"then": "continue"})
    assert parse_command("pause", b"{}") == (None, {})
    assert parse_command("resume", b"{}") == (None, {})


def test_everything_given_is_kept_and_what_no_command_has_is_ignored() -> None:
    data = b'{"type":"followup","id":"a b","message":"\\u2028\\ud83d\\ude00","when":"next","more":{"x":[1]}}'
    assert parse_command("followup", data) == ("a b", {"message": "\u2028\U0001f600", "when": "next"})
    assert parse_command("abort", b'{"then":"stop"}') == (None, {"then": "stop"})
    assert parse_command("stop", b'{"when":"now","message":5}') == (None, {"when": "now"})


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b" \r\n\t", "empty"),
        (b"{", "not valid JSON"),
        (b'{"message":"m"', "not valid JSON"),
        (b'{"message":"m"} x', "not valid JSON"),
        (b"null", "no JSON object"),
        (b"[]", "no JSON object"),
        (b'"text"', "no JSON object"),
        (b"[" * 100_000, "not valid JSON"),
        (b'{"a":' * 100_000, "not valid JSON"),
        (b'{"message":"m","n":NaN}', "not valid JSON"),
        (b'{"message":"m","n":Infinity}', "not valid JSON"),
        (b'{"message":"m","n":1e999}', "not valid JSON"),
        (b'{"message":"\\ud800"}', "not valid JSON"),
        (b"{'message':'m'}", "not valid JSON"),
        (b'{"message":"\xed\xa0\x80"}', "not UTF-8 (byte 13)"),
        (b'{"message":"caf\xe9"}', "not UTF-8"),
        (b'\xef\xbb\xbf{"message":"m"}', "byte order mark"),
        ('{"message":"m"}'.encode("utf-16"), "UTF-16"),
        (b"\0" * 50, "not valid JSON"),
        (b"{}", "message must be"),
        (b'{"message":""}', "message must be"),
        (b'{"message":" \\n"}', "message must be"),
        (b'{"message":5}', "message must be"),
        (b'{"message":["m"]}', "message must be"),
        (b'{"message":null}', "message must be"),
        (b'{"message":"m","type":"stop"}', "type must be followup"),
        (b'{"message":"m","type":null}', "type must be followup"),
        (b'{"message":"m","when":"later"}', "when must be one of: now, next"),
        (b'{"message":"m","when":"iteration"}', "when must be"),
        (b'{"message":"m","when":null}', "when must be"),
        (b'{"message":"m","when":[]}', "when must be"),
        (b'{"message":"m","id":""}', "id must be"),
        (b'{"message":"m","id":7}', "id must be"),
        (b'{"message":"m","id":null}', "id must be"),
        (b'{"message":"m","id":"../x"}', "id must be"),
        (b'{"message":"m","id":"a\\nb"}', "id must be"),
        (b'{"message":"m","id":"' + b"x" * 201 + b'"}', "id must be"),
    ],
)
def test_anything_else_is_refused_with_what_to_change(data: bytes, reason: str) -> None:
    with pytest.raises(InvalidCommand) as problem:
        parse_command("followup", data)
    assert reason in problem.value.reason
    assert "\n" not in problem.value.reason


def test_a_number_too_large_for_any_machine_is_harmless() -> None:
    assert parse_command("stop", b'{"n":' + b"9" * 300 + b"}") == (None, {"when": "iteration"})


def test_a_refused_command_still_tells_its_id() -> None:
    with pytest.raises(InvalidCommand) as problem:
        parse_command("steer", b'{"id":"mine"}')
    assert problem.value.id == "mine"


JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
MEMBERS = st.dictionaries(
    st.sampled_from(["type", "id", "message", "when", "then", "x"]), JSON | st.sampled_from(VERBS)
)


def check(verb: Verb, data: bytes) -> None:
    try:
        id, body = parse_command(verb, data)
    except InvalidCommand as problem:
        assert problem.reason
    else:
        assert id is None or id.isprintable()
        assert set(body) <= {"message", "when", "then"}
        orjson.dumps(body)


@given(verb=st.sampled_from(VERBS), data=st.binary())
@example("steer", b'{"message":"\\u0000x"}')
def test_no_bytes_end_in_anything_but_a_command_or_a_reason(verb: Verb, data: bytes) -> None:
    check(verb, data)


@pytest.mark.slow
@given(verb=st.sampled_from(VERBS), value=MEMBERS)
def test_no_object_ends_in_anything_but_a_command_or_a_reason(verb: Verb, value: dict[str, object]) -> None:
    check(verb, json.dumps(value).encode())


@pytest.mark.parametrize("verb", ["steer", "followup"])
def test_a_message_may_name_its_ticket(verb: Verb) -> None:
    _, body = parse_command(verb, b'{"message": "m", "ticket": "ab-1"}')
    assert body.get("ticket") == "ab-1"
    for wrong in (b"7", b'""', b'"a/b"', b"null"):
        with pytest.raises(InvalidCommand, match="ticket must be the id of a ticket"):
            parse_command(verb, b'{"message": "m", "ticket": %s}' % wrong)
