"""What happened, from the events of a loop: a pure fold of events.jsonl into items that a person can read.

`logs` and `status` use it now; every later viewer can. It reads no file and prints nothing. Each event costs
time linear in its own size; of the past it keeps the open message and the running tools only. Unknown kinds
and members of a wrong type are passed over, so that a log of any pi can be read. Texts in items are raw:
whoever shows them makes them inert first.

Text comes exactly once. It streams as deltas; where the log was joined in the middle of a message, its deltas
are held until `message_end` gives the whole, or until the reader is at the end of the log (`caught_up`).
"""

import json
from collections.abc import Callable

import orjson

from ralph_rpc.items import (
    CommandStep,
    Compaction,
    Dialog,
    Event,
    Item,
    IterationBegan,
    IterationEnded,
    LoopBegan,
    LoopEnded,
    MessageDone,
    Notice,
    PiExited,
    PiStarted,
    Retry,
    StatusChanged,
    TextDelta,
    ToolBegan,
    ToolEnded,
    UserText,
    Verified,
)

_NONE: Event = {}
_OUTCOME = 500
"""Characters kept of a tool's outcome."""


def parse_line(line: bytes) -> Event | None:
    """One line of events.jsonl as a mapping; None for what is no JSON object."""
    event: object
    try:
        event = orjson.loads(line)
    except orjson.JSONDecodeError:
        # pi may write half of a surrogate pair, which orjson refuses and json lets pass.
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            return None
    return event if isinstance(event, dict) else None


class View:
    """Feed it the events in order; it answers each with the items that follow from it."""

    def __init__(self) -> None:
        self.tools: dict[str, ToolBegan] = {}
        """Tools that run now, by call id, oldest first."""
        self._ended: set[str] = set()
        self._shown: dict[int, list[str]] = {}
        self._held: list[TextDelta] = []
        self._began = False
        self._cut = False
        self._prompt_due = False
        self._told: list[str] = []

    def feed(self, event: Event) -> list[Item]:
        """The items that this event adds, in order; often none."""
        handler = _HANDLERS.get(_text(event, "type"))
        return handler(self, event) if handler else []

    def caught_up(self) -> list[Item]:
        """To be called when the log has no more to read: gives what is held of a message joined midway."""
        held: list[Item] = []
        for delta in self._held:
            held.append(delta if held else TextDelta("…" + delta.text, delta.thinking, delta.block))
            self._shown.setdefault(delta.block, []).append(delta.text)
        if held:
            self._held = []
            self._began = self._cut = True
        return held

    # pi: messages

    def _message_start(self, event: Event) -> list[Item]:
        if _text(_map(event, "message"), "role") == "assistant":
            self._forget_message()
            self._began = True
        return []

    def _message_update(self, event: Event) -> list[Item]:
        change = _map(event, "assistantMessageEvent")
        kind = _text(change, "type")
        if kind not in ("text_delta", "thinking_delta"):
            return []
        delta = TextDelta(_text(change, "delta"), kind == "thinking_delta", _int(change, "contentIndex"))
        if not delta.text:
            return []
        if not self._began:
            self._held.append(delta)
            return []
        self._shown.setdefault(delta.block, []).append(delta.text)
        return [delta]

    def _message_end(self, event: Event) -> list[Item]:
        message = _map(event, "message")
        role = _text(message, "role")
        if role == "user":
            return self._user(_content_text(message))
        if role != "assistant":
            return []
        items: list[Item] = list(self._unseen(message))
        self._forget_message()
        reason = _text(message, "stopReason")
        failed = reason in ("error", "aborted")
        items.append(MessageDone(reason, (_text(message, "errorMessage") or reason) if failed else None))
        return items

    def _unseen(self, message: Event) -> list[TextDelta]:
        """The text of an ended message that its deltas did not give."""
        content = message.get("content")
        blocks = [content] if isinstance(content, str) else content if isinstance(content, list) else []
        oldest = min(self._shown, default=0) if self._cut else 0
        unseen: list[TextDelta] = []
        for index, block in enumerate(blocks):
            thinking = isinstance(block, dict) and block.get("type") == "thinking"
            whole = _block_text(block, "thinking" if thinking else "text")
            shown = "".join(self._shown.get(index, ()))
            if index < oldest or (self._cut and index == oldest):
                continue
            if len(whole) > len(shown) and whole.startswith(shown):
                unseen.append(TextDelta(whole[len(shown) :], thinking, index))
        return unseen

    def _user(self, text: str) -> list[Item]:
        operator = not self._prompt_due
        self._prompt_due = False
        if text in self._told:
            self._told.remove(text)
            operator = True
        return [UserText(text, operator)] if text else []

    def _forget_message(self) -> None:
        self._shown = {}
        self._held = []
        self._began = self._cut = False

    def _agent_start(self, _: Event) -> list[Item]:
        self._prompt_due = True
        return []

    def _turn_end(self, _: Event) -> list[Item]:
        # After a turn, only a steer or a follow-up can be the next user message.
        self._prompt_due = False
        return []

    # pi: tools

    def _tool_start(self, event: Event) -> list[Item]:
        tool = _tool(event, _at(event))
        self.tools[tool.id] = tool
        return [tool]

    def _tool_update(self, event: Event) -> list[Item]:
        call = _text(event, "toolCallId")
        if call in self.tools or call in self._ended:
            return []
        tool = _tool(event, None)
        self.tools[call] = tool
        return [tool]

    def _tool_end(self, event: Event) -> list[Item]:
        call = _text(event, "toolCallId")
        began = self.tools.pop(call, None) or _tool(event, None)
        self._ended.add(call)
        ok = event.get("isError") is not True
        at = _at(event)
        taken = event.get("durationMs")
        if not isinstance(taken, int):
            taken = max(at - began.at, 0) if at is not None and began.at is not None else None
        outcome = _outcome(_content_text(_map(event, "result")), ok)
        return [ToolEnded(call, began.name, began.args, ok, taken, outcome)]

    # pi: the rest

    def _retry_start(self, event: Event) -> list[Item]:
        return [Retry(_int(event, "attempt"), _int(event, "delayMs"), _text(event, "errorMessage"))]

    def _retry_end(self, event: Event) -> list[Item]:
        if event.get("success") is True:
            return []
        return [Notice("error", f"gave up after {_int(event, 'attempt')} retries: {_text(event, 'finalError')}")]

    def _compaction_start(self, event: Event) -> list[Item]:
        return [Compaction(_text(event, "reason"), None, True)]

    def _compaction_end(self, event: Event) -> list[Item]:
        reason = _text(event, "reason")
        result = _map(event, "result")
        if result:
            before = _int(result, "tokensBefore")
            after = result.get("estimatedTokensAfter")
            sizes = f"{before} tokens" + (f" to {after}" if isinstance(after, int) else "")
            return [Compaction(reason, sizes, True)]
        aborted = "aborted" if event.get("aborted") is True else "failed"
        return [Compaction(reason, _text(event, "errorMessage") or aborted, False)]

    def _ui_request(self, event: Event) -> list[Item]:
        method = _text(event, "method")
        if method == "notify":
            return [Notice(_text(event, "notifyType") or "info", _text(event, "message"))]
        if method in ("confirm", "select", "input", "editor"):
            return [Dialog(method, _text(event, "title"))]
        return []

    def _response(self, event: Event) -> list[Item]:
        if event.get("success") is not False:
            return []
        return [Notice("error", f"pi refused {_text(event, 'command')}: {_text(event, 'error')}")]

    # the runner's own

    def _iteration_start(self, event: Event) -> list[Item]:
        items = self._interrupted()
        self._ended = set()
        self._told = []
        return [*items, IterationBegan(_int(event, "iteration"), _text(event, "kind"), _at(event))]

    def _iteration_end(self, event: Event) -> list[Item]:
        return [*self._interrupted(), IterationEnded(event)]

    def _pi_start(self, event: Event) -> list[Item]:
        return [PiStarted(_int(event, "pid"), _text(event, "version") or None)]

    def _pi_exit(self, event: Event) -> list[Item]:
        code = event.get("exitCode")
        exited = PiExited(code if isinstance(code, int) else None, _text(event, "terminationMethod"))
        return [*self._interrupted(), exited]

    def _interrupted(self) -> list[Item]:
        """Whatever was open is over: pi or its run ended."""
        items = self.caught_up()
        self._forget_message()
        self.tools = {}
        return items

    def _status(self, event: Event) -> list[Item]:
        reason = _text(event, "reason") or None
        return [StatusChanged(_text(event, "from"), _text(event, "to"), reason, _at(event))]

    def _command(self, event: Event) -> list[Item]:
        message = _text(event, "message") or None
        if message:
            self._told.append(message)
        return [
            CommandStep(
                _text(event, "id"),
                _text(event, "command"),
                _text(event, "state"),
                message,
                _text(event, "reason") or None,
                event.get("redelivered") is True,
            )
        ]

    def _verify(self, event: Event) -> list[Item]:
        taken = _int(event, "durationMs")
        return [Verified(_text(event, "command"), _int(event, "exitCode"), taken, _text(event, "tail"))]

    def _notice(self, event: Event) -> list[Item]:
        return [Notice(_text(event, "level") or "info", _text(event, "message"))]

    def _unparsed(self, event: Event) -> list[Item]:
        return [Notice("warning", "pi wrote a line that is no event: " + _text(event, "raw")[:_OUTCOME])]

    def _loop_start(self, event: Event) -> list[Item]:
        resumed = event.get("resumed") is True
        return [*self._interrupted(), LoopBegan(_text(event, "name"), _int(event, "pid"), resumed, _at(event))]

    def _loop_end(self, event: Event) -> list[Item]:
        ended = LoopEnded(_text(event, "status"), _text(event, "stopReason") or None, _text(event, "error") or None)
        return [*self._interrupted(), ended]


_HANDLERS: dict[str, Callable[[View, Event], list[Item]]] = {
    "message_start": View._message_start,
    "message_update": View._message_update,
    "message_end": View._message_end,
    "agent_start": View._agent_start,
    "turn_end": View._turn_end,
    "tool_execution_start": View._tool_start,
    "tool_execution_update": View._tool_update,
    "tool_execution_end": View._tool_end,
    "auto_retry_start": View._retry_start,
    "auto_retry_end": View._retry_end,
    "compaction_start": View._compaction_start,
    "compaction_end": View._compaction_end,
    "extension_ui_request": View._ui_request,
    "response": View._response,
    "ralph_iteration_start": View._iteration_start,
    "ralph_iteration_end": View._iteration_end,
    "ralph_pi_start": View._pi_start,
    "ralph_pi_exit": View._pi_exit,
    "ralph_status": View._status,
    "ralph_command": View._command,
    "ralph_verify": View._verify,
    "ralph_notice": View._notice,
    "ralph_unparsed": View._unparsed,
    "ralph_loop_start": View._loop_start,
    "ralph_loop_end": View._loop_end,
}


def args_line(args: Event) -> str:
    """What a tool was called with, in a few words: the command, path or pattern, else all as JSON."""
    for key in ("command", "path", "file_path", "pattern", "url", "query"):
        value = args.get(key)
        if isinstance(value, str) and value.strip():
            return value
    return json.dumps(args, ensure_ascii=False) if args else ""


def _tool(event: Event, at: int | None) -> ToolBegan:
    args = args_line(_map(event, "args"))
    return ToolBegan(_text(event, "toolCallId"), _text(event, "toolName"), args, at)


def _outcome(text: str, ok: bool) -> str:
    lines = (text if ok else text.rstrip()[-_OUTCOME:]).lstrip().split("\n")
    return (lines[0] if ok else lines[-1]).strip()[:_OUTCOME]


def _content_text(holder: Event) -> str:
    """The text of a `content` member, which is a string or a list of blocks."""
    content = holder.get("content")
    if isinstance(content, str):
        return content
    return "".join(_block_text(block, "text") for block in content) if isinstance(content, list) else ""


def _block_text(block: object, key: str) -> str:
    if isinstance(block, str):
        return block
    return _text(block, key) if isinstance(block, dict) else ""


def _text(holder: Event, key: str) -> str:
    value = holder.get(key)
    return value if isinstance(value, str) else ""


def _int(holder: Event, key: str) -> int:
    value = holder.get(key)
    return int(value) if isinstance(value, (int, float)) and abs(value) < 1e18 else 0


def _map(holder: Event, key: str) -> Event:
    value = holder.get(key)
    return value if isinstance(value, dict) else _NONE


def _at(event: Event) -> int | None:
    """When it happened, in epoch milliseconds: the runner's stamp."""
    at = event.get("at", _map(event, "ralph").get("at"))
    return at if isinstance(at, int) else None
