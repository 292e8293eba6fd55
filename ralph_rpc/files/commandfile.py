"""Which names and contents a command file may have, checked by hand, with errors written for the file's writer.

Called by `inbox.drop` before a command is written and by the runner's `Inbox` for files of any origin. Pure.
Not pydantic: importing it takes longer than all of `ralph-rpc stop` may take.
"""

from typing import Any

import orjson

from ralph_rpc.model.commands import CHOICES, MESSAGES, VERBS, Body, Verb

MAX_BYTES = 1 << 20
UNKNOWN_NAME = f"unknown command name; name it <verb>.json or <verb>-<anything>.json with one of: {', '.join(VERBS)}"

_MEMBERS = (b"type", b"id", b"message", b"when", b"then", b"ticket")


class InvalidCommand(Exception):
    """Content that is not a command. `reason` says what to change; `id` is the file's own, if readable."""

    def __init__(self, reason: str, id: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.id = id


def verb_of(name: str) -> Verb | None:
    """Return the verb of a file named `<verb>.json` or `<verb>-<anything>.json`, None for any other name."""
    if not name.endswith(".json"):
        return None
    stem = name.removesuffix(".json")
    return next((verb for verb in VERBS if stem == verb or stem.startswith(verb + "-")), None)


def parse_command(verb: Verb, data: bytes) -> tuple[str | None, Body]:
    """Return the id (None where the file has none) and the body with its defaults; raises InvalidCommand.

    Unknown members are ignored. Blank content is invalid here: the file may be half written.
    """
    if not data.strip():
        raise InvalidCommand(f"the file is empty; {_expected(verb)}")
    value = _json_object(verb, data)
    id = value.get("id")
    if "id" in value and not (isinstance(id, str) and _is_id(id)):
        raise InvalidCommand("id must be a text of 1 to 200 printable characters without /")
    try:
        return id, _body(verb, value)
    except InvalidCommand as problem:
        raise InvalidCommand(problem.reason, id) from None


def _json_object(verb: Verb, data: bytes) -> dict[str, Any]:
    if data.startswith(b"\xef\xbb\xbf"):
        raise InvalidCommand("the file begins with a byte order mark; save it as UTF-8 without one")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InvalidCommand("the file is UTF-16; save it as UTF-8")
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidCommand(f"the file is not UTF-8 (byte {error.start + 1}); save it as UTF-8") from None
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        where = f"{error.msg}, line {error.lineno} column {error.colno}"
        raise InvalidCommand(f"the file is not valid JSON ({where}); {_expected(verb)}") from None
    if not isinstance(value, dict):
        raise InvalidCommand(f"the file holds no JSON object; {_expected(verb)}")
    if twice := _repeated(data):
        raise InvalidCommand(f"{twice} is there more than once; keep only one")
    return value


def _repeated(data: bytes) -> str | None:
    """A member of a command that the JSON object has twice; parsers silently keep the last one."""
    if b"\\u" not in data and all(data.count(b'"%s"' % name) < 2 for name in _MEMBERS):
        return None  # almost always, and checked without a second, slower parser
    import json

    try:
        pairs = json.loads(data, object_pairs_hook=list, parse_int=float)
    except RecursionError:
        raise InvalidCommand("the file is nested too deeply; no command needs that") from None
    names = [name.encode() for name, _ in pairs]
    return next((name.decode() for name in _MEMBERS if names.count(name) > 1), None)


def _body(verb: Verb, value: dict[str, Any]) -> Body:
    if value.get("type", verb) != verb:
        raise InvalidCommand(f"type must be {verb}, as the file's name says, or be left out")
    body: Any = {}
    if verb in MESSAGES:
        message = value.get("message")
        if not isinstance(message, str) or not message.strip():
            raise InvalidCommand(f"message must be a text that is not empty; {_expected(verb)}")
        body["message"] = message
        if "ticket" in value:
            ticket = value["ticket"]
            if not (isinstance(ticket, str) and _is_id(ticket)):
                raise InvalidCommand("ticket must be the id of a ticket, or be left out")
            body["ticket"] = ticket
    if verb in CHOICES:
        member, choices = CHOICES[verb]
        choice = value.get(member, choices[0])
        if choice not in choices:
            raise InvalidCommand(f"{member} must be one of: {', '.join(choices)}")
        body[member] = choice
    checked: Body = body
    return checked


def _is_id(id: str) -> bool:
    return 1 <= len(id) <= 200 and id.isprintable() and "/" not in id


def _expected(verb: Verb) -> str:
    return 'write an object such as {"message": "…"}' if verb in MESSAGES else "{} is enough"
