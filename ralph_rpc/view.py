"""What happened, from the events of a loop: a pure fold of events.jsonl into items that a person can read.

`logs`, `status`, `attach` and the report use it. It reads no file and prints nothing. Each event costs time
linear in its own size; of the past it keeps the open message and the running tools only. Unknown kinds and
members of a wrong type are passed over, so that a log of any pi can be read. Texts in items are raw:
whoever shows them makes them inert first.

Tickets that run at the same time share one log; each has a lane of its own, so that their messages do not
mix. `ticket_of` an event tells whose items they are.

Text comes exactly once. It streams as deltas; where the log was joined in the middle of a message, its
deltas are held until `message_end` gives the whole, or until the reader is at the end of the log
(`caught_up`).
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
    TicketChanged,
    ToolBegan,
    ToolEnded,
    ToolOutput,
    UserText,
    Verified,
)

_NONE: Event = {}
_OUTCOME = 500
"""Characters kept of a tool's outcome."""


_UNREAD = (b'{"type":"agent_end"', b'{"type":"turn_end"')
"""Events that repeat whole messages, of which the fold needs nothing but that they came."""
_LONG = 1 << 14
_TOLD = 100
"""Messages of operators that are remembered, to be known again when the agent is given them."""


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


def skim_line(line: bytes) -> Event | None:
    """As `parse_line`, but of long lines that only repeat what was said, no more than the fold needs.

    The end of a run repeats all of its messages, images included: hundreds of megabytes that need no parsing.
    """
    if len(line) < _LONG or not line.startswith(_UNREAD):
        return parse_line(line)
    stamp = line.rfind(b',"ralph":{')
    tail = b"{" + line[stamp + 1 :] if stamp > 0 else b"{}"
    return {"type": line[9 : line.index(b'"', 9)].decode(), **(parse_line(tail) or {})}


def ticket_of(event: Event) -> str | None:
    """The ticket that an event belongs to; None in a task loop, and for what concerns the whole loop."""
    return _text(event, "ticket") or _text(_map(event, "ralph"), "ticket") or None


class Lane:
    """What one pi is at: its open message and its running tools."""

    def __init__(self) -> None:
        self.tools: dict[str, ToolBegan] = {}
        self.composing: str | None = None
        """The tool whose call the assistant is writing; empty where older pi does not name it."""
        self.context: int | None = None
        """Tokens in the agent's context when its last message ended."""
        self.window: int | None = None
        """How many fit."""
        self.ended: set[str] = set()
        self.shown: dict[int, list[str]] = {}
        self.held: list[TextDelta] = []
        self.began = False
        self.cut = False
        self.prompt_due = False

    @property
    def resting(self) -> bool:
        return not (self.tools or self.held or self.began)

    def delta(self, delta: TextDelta) -> list[Item]:
        if not self.began:
            self.held.append(delta)
            return []
        self.shown.setdefault(delta.block, []).append(delta.text)
        return [delta]

    def release(self) -> list[Item]:
        """What is held of a message joined midway."""
        held: list[Item] = []
        for delta in self.held:
            held.append(delta if held else TextDelta("…" + delta.text, delta.thinking, delta.block))
            self.shown.setdefault(delta.block, []).append(delta.text)
        if held:
            self.held = []
            self.began = self.cut = True
        return held

    def unseen(self, message: Event) -> list[TextDelta]:
        """The text of an ended message that its deltas did not give."""
        content = message.get("content")
        blocks = [content] if isinstance(content, str) else content if isinstance(content, list) else []
        oldest = min(self.shown, default=0) if self.cut else 0
        unseen: list[TextDelta] = []
        for index, block in enumerate(blocks):
            thinking = isinstance(block, dict) and block.get("type") == "thinking"
            whole = _block_text(block, "thinking" if thinking else "text")
            shown = "".join(self.shown.get(index, ()))
            if index < oldest or (self.cut and index == oldest):
                continue
            if len(whole) > len(shown) and whole.startswith(shown):
                unseen.append(TextDelta(whole[len(shown) :], thinking, index))
        return unseen

    def forget_message(self) -> None:
        self.composing = None
        self.shown = {}
        self.held = []
        self.began = self.cut = False

    def interrupt(self) -> list[Item]:
        """Whatever was open is over: pi or its run ended."""
        items = self.release()
        self.forget_message()
        self.tools = {}
        return items


class View:
    """Feed it the events in order; it answers each with the items that follow from it."""

    def __init__(self) -> None:
        self.lanes: dict[str | None, Lane] = {}
        """By ticket; None in a task loop."""
        self._told: list[str] = []

    @property
    def tools(self) -> dict[str, ToolBegan]:
        """Tools that run now, by call id, oldest first; where two tickets use one id, one of them."""
        return {call: tool for lane in self.lanes.values() for call, tool in lane.tools.items()}

    @property
    def resting(self) -> bool:
        """No message is open and no tool runs: a fold may begin here and lacks nothing."""
        return all(lane.resting for lane in self.lanes.values())

    def feed(self, event: Event) -> list[Item]:
        """The items that this event adds, in order; often none."""
        handler = _HANDLERS.get(_text(event, "type"))
        return handler(self, self._lane(event), event) if handler else []

    def caught_up(self) -> list[Item]:
        """To be called when the log has no more to read: gives what is held of a message joined midway."""
        return [item for lane in self.lanes.values() for item in lane.release()]

    def _lane(self, event: Event) -> Lane:
        ticket = ticket_of(event)
        lane = self.lanes.get(ticket)
        if lane is None:
            lane = self.lanes[ticket] = Lane()
        return lane

    # pi: messages

    def _message_start(self, lane: Lane, event: Event) -> list[Item]:
        if _text(_map(event, "message"), "role") == "assistant":
            lane.forget_message()
            lane.began = True
        return []

    def _message_update(self, lane: Lane, event: Event) -> list[Item]:
        change = _map(event, "assistantMessageEvent")
        kind = _text(change, "type")
        if kind == "toolcall_start":
            lane.composing = _text(change, "toolName")
        if kind not in ("text_delta", "thinking_delta"):
            return []
        delta = TextDelta(_text(change, "delta"), kind == "thinking_delta", _int(change, "contentIndex"))
        return lane.delta(delta) if delta.text else []

    def _message_end(self, lane: Lane, event: Event) -> list[Item]:
        message = _map(event, "message")
        role = _text(message, "role")
        if role == "user":
            return self._user(lane, _content_text(message))
        if role != "assistant":
            return []
        items: list[Item] = list(lane.unseen(message))
        lane.forget_message()
        reason = _text(message, "stopReason")
        failed = reason in ("error", "aborted")
        items.append(MessageDone(reason, (_text(message, "errorMessage") or reason) if failed else None))
        lane.context = _int(_map(message, "usage"), "totalTokens") or lane.context
        return items

    def _user(self, lane: Lane, text: str) -> list[Item]:
        operator = not lane.prompt_due
        lane.prompt_due = False
        if text in self._told:
            self._told.remove(text)
            operator = True
        return [UserText(text, operator)] if text else []

    def _agent_start(self, lane: Lane, _: Event) -> list[Item]:
        lane.prompt_due = True
        return []

    def _turn_end(self, lane: Lane, _: Event) -> list[Item]:
        # After a turn, only a steer or a follow-up can be the next user message.
        lane.prompt_due = False
        return []

    # pi: tools

    def _tool_start(self, lane: Lane, event: Event) -> list[Item]:
        tool = _tool(event, _at(event))
        lane.tools[tool.id] = tool
        return [tool]

    def _tool_update(self, lane: Lane, event: Event) -> list[Item]:
        call = _text(event, "toolCallId")
        if call in lane.ended:
            return []
        items: list[Item] = []
        if call not in lane.tools:
            tool = lane.tools[call] = _tool(event, None)
            items.append(tool)
        output = _content_text(_map(event, "partialResult"))
        return [*items, ToolOutput(call, output)] if output else items

    def _tool_end(self, lane: Lane, event: Event) -> list[Item]:
        call = _text(event, "toolCallId")
        began = lane.tools.pop(call, None) or _tool(event, None)
        lane.ended.add(call)
        ok = event.get("isError") is not True
        at = _at(event)
        taken = event.get("durationMs")
        if not isinstance(taken, int):
            taken = max(at - began.at, 0) if at is not None and began.at is not None else None
        result = _map(event, "result")
        output = _content_text(result)
        outcome = _outcome(output, ok)
        return [ToolEnded(call, began.name, began.args, ok, taken, outcome, output, _map(result, "details"))]

    # pi: the rest

    def _retry_start(self, lane: Lane, event: Event) -> list[Item]:
        return [Retry(_int(event, "attempt"), _int(event, "delayMs"), _text(event, "errorMessage"))]

    def _retry_end(self, lane: Lane, event: Event) -> list[Item]:
        if event.get("success") is True:
            return []
        tries = _int(event, "attempt")
        return [Notice("error", f"gave up after {tries} retries: {_text(event, 'finalError')}")]

    def _compaction_start(self, lane: Lane, event: Event) -> list[Item]:
        return [Compaction(_text(event, "reason"), None, True)]

    def _compaction_end(self, lane: Lane, event: Event) -> list[Item]:
        reason = _text(event, "reason")
        result = _map(event, "result")
        if result:
            before = _int(result, "tokensBefore")
            after = result.get("estimatedTokensAfter")
            sizes = f"{before} tokens" + (f" to {after}" if isinstance(after, int) else "")
            return [Compaction(reason, sizes, True)]
        aborted = "aborted" if event.get("aborted") is True else "failed"
        return [Compaction(reason, _text(event, "errorMessage") or aborted, False)]

    def _ui_request(self, lane: Lane, event: Event) -> list[Item]:
        method = _text(event, "method")
        if method == "notify":
            return [Notice(_text(event, "notifyType") or "info", _text(event, "message"))]
        if method in ("confirm", "select", "input", "editor"):
            return [Dialog(method, _text(event, "title"))]
        return []

    def _response(self, lane: Lane, event: Event) -> list[Item]:
        if event.get("success") is not False:
            use = _map(_map(event, "data"), "contextUsage")
            model = _map(_map(event, "data"), "model")
            lane.context = _int(use, "tokens") or lane.context
            lane.window = _int(use, "contextWindow") or _int(model, "contextWindow") or lane.window
            return []
        return [Notice("error", f"pi refused {_text(event, 'command')}: {_text(event, 'error')}")]

    # the runner's own

    def _iteration_start(self, lane: Lane, event: Event) -> list[Item]:
        items = lane.interrupt()
        lane.ended = set()
        kind, ticket = _text(event, "kind"), ticket_of(event)
        return [*items, IterationBegan(_int(event, "iteration"), kind, _at(event), ticket)]

    def _iteration_end(self, lane: Lane, event: Event) -> list[Item]:
        items = lane.interrupt()
        if ticket_of(event):
            self.lanes.pop(ticket_of(event), None)
        return [*items, IterationEnded(event)]

    def _pi_start(self, lane: Lane, event: Event) -> list[Item]:
        return [PiStarted(_int(event, "pid"), _text(event, "version") or None)]

    def _pi_exit(self, lane: Lane, event: Event) -> list[Item]:
        code = event.get("exitCode")
        exited = PiExited(code if isinstance(code, int) else None, _text(event, "terminationMethod"))
        return [*lane.interrupt(), exited]

    def _status(self, lane: Lane, event: Event) -> list[Item]:
        reason = _text(event, "reason") or None
        return [StatusChanged(_text(event, "from"), _text(event, "to"), reason, _at(event))]

    def _command(self, lane: Lane, event: Event) -> list[Item]:
        message = _text(event, "message") or None
        if message:
            self._told = [*self._told[1 - _TOLD :], message]
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

    def _verify(self, lane: Lane, event: Event) -> list[Item]:
        taken = _int(event, "durationMs")
        return [Verified(_text(event, "command"), _int(event, "exitCode"), taken, _text(event, "tail"))]

    def _ticket(self, lane: Lane, event: Event) -> list[Item]:
        reason = _text(event, "reason") or None
        return [TicketChanged(_text(event, "ticket"), _text(event, "from"), _text(event, "to"), reason)]

    def _notice(self, lane: Lane, event: Event) -> list[Item]:
        return [Notice(_text(event, "level") or "info", _text(event, "message"))]

    def _unparsed(self, lane: Lane, event: Event) -> list[Item]:
        return [Notice("warning", "pi wrote a line that is no event: " + _text(event, "raw")[:_OUTCOME])]

    def _loop_start(self, lane: Lane, event: Event) -> list[Item]:
        resumed = event.get("resumed") is True
        return [*self._all_over(), LoopBegan(_text(event, "name"), _int(event, "pid"), resumed, _at(event))]

    def _loop_end(self, lane: Lane, event: Event) -> list[Item]:
        reason, error = _text(event, "stopReason") or None, _text(event, "error") or None
        return [*self._all_over(), LoopEnded(_text(event, "status"), reason, error)]

    def _all_over(self) -> list[Item]:
        return [item for lane in self.lanes.values() for item in lane.interrupt()]


_HANDLERS: dict[str, Callable[[View, Lane, Event], list[Item]]] = {
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
    "ralph_ticket": View._ticket,
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
    details = _map(event, "args")
    return ToolBegan(_text(event, "toolCallId"), _text(event, "toolName"), args_line(details), at, details)


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
