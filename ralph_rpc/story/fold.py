"""What happened, from the events of a loop: a pure fold of events.jsonl into items that a person can read.

`logs`, `status`, `attach` and the report use it. It reads no file and prints nothing. Each event costs time linear in
its own size; of the past it keeps only the open message and the running tools. Unknown kinds and members of a wrong
type are skipped, so that a log of any pi can be read. Texts in items are raw: they are made inert before they are shown.

Tickets that run at the same time share one log; each has a lane of its own (`ralph_rpc.story.lane`), so that their
messages do not mix. `ticket_of` an event says whose items they are.

Text comes exactly once: of a message that was joined midway it is held back until the whole of it is there, or until
the reader is at the end of the log (`caught_up`).
"""

import json
from collections.abc import Callable

from ralph_rpc.model import members, pi
from ralph_rpc.story.items import (
    BatchChanged,
    CommandReceipt,
    Compaction,
    DialogAsked,
    Event,
    Item,
    IterationBegan,
    IterationEnded,
    LogNotice,
    LoopBegan,
    LoopEnded,
    MessageDone,
    PiEnded,
    PiStarted,
    RetryBegan,
    StatusChanged,
    TextDelta,
    TicketChanged,
    ToolBegan,
    ToolEnded,
    ToolOutput,
    UserText,
    VerifyEnded,
)
from ralph_rpc.story.lane import Lane
from ralph_rpc.story.lines import ticket_of, time_of

_OUTCOME = 500
"""Characters kept of a tool's outcome."""
_REMEMBERED = 100
"""Messages of operators that are remembered, so that they are recognised when the agent gets them."""


class View:
    """Feed it the events in order; it answers each with the items that follow from it, usually none."""

    def __init__(self) -> None:
        self.lanes: dict[str | None, Lane] = {}
        """By ticket; None in a task loop."""
        self._said: list[str] = []

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
        handler = _HANDLERS.get(members.text(event, "type"))
        return handler(self, self._lane(event), event) if handler else []

    def caught_up(self) -> list[Item]:
        """What is held back of a message joined midway; to be called when the log has no more to read."""
        return [item for lane in self.lanes.values() for item in lane.release()]

    def _lane(self, event: Event) -> Lane:
        ticket = ticket_of(event)
        lane = self.lanes.get(ticket)
        if lane is None:
            lane = self.lanes[ticket] = Lane()
        return lane

    # pi: messages

    def _message_start(self, lane: Lane, event: Event) -> list[Item]:
        if pi.role(pi.message(event)) == "assistant":
            lane.forget_message()
            lane.began = True
        return []

    def _message_update(self, lane: Lane, event: Event) -> list[Item]:
        change = pi.change(event)
        kind = change.get("type")
        if kind == pi.TOOLCALL_START:
            lane.composing = pi.tool_name(change)
        if kind not in (pi.TEXT_DELTA, pi.THINKING_DELTA):
            return []
        delta = TextDelta(pi.delta(change), kind == pi.THINKING_DELTA, pi.delta_block(change))
        return lane.delta(delta) if delta.text else []

    def _message_end(self, lane: Lane, event: Event) -> list[Item]:
        message = pi.message(event)
        role = pi.role(message)
        if role == "user":
            return self._user(lane, pi.content_text(message))
        if role != "assistant":
            return []
        items: list[Item] = list(lane.unseen(message))
        lane.forget_message()
        reason = pi.stop_reason(message) or ""
        failed = reason in ("error", "aborted")
        items.append(MessageDone(reason, (pi.error_message(message) or reason) if failed else None))
        lane.context = pi.context_after(message) or lane.context
        return items

    def _user(self, lane: Lane, text: str) -> list[Item]:
        operator = not lane.prompt_due
        lane.prompt_due = False
        if text in self._said:
            self._said.remove(text)
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
        tool = _tool(event, time_of(event))
        lane.tools[tool.id] = tool
        return [tool]

    def _tool_update(self, lane: Lane, event: Event) -> list[Item]:
        call = pi.call_id(event)
        if call in lane.ended:
            return []
        items: list[Item] = []
        if call not in lane.tools:
            tool = lane.tools[call] = _tool(event, None)
            items.append(tool)
        output = pi.content_text(pi.partial_result(event))
        return [*items, ToolOutput(call, output)] if output else items

    def _tool_end(self, lane: Lane, event: Event) -> list[Item]:
        call = pi.call_id(event)
        began = lane.tools.pop(call, None) or _tool(event, None)
        lane.ended.add(call)
        ok = not pi.is_error(event)
        at = time_of(event)
        taken = event.get("durationMs")
        if not isinstance(taken, int):
            taken = max(at - began.at, 0) if at is not None and began.at is not None else None
        result = pi.result(event)
        output = pi.content_text(result)
        outcome = _outcome(output, ok)
        return [ToolEnded(call, began.name, began.args, ok, taken, outcome, output, pi.details(result))]

    # pi: the rest

    def _retry_start(self, lane: Lane, event: Event) -> list[Item]:
        return [RetryBegan(pi.attempt(event), pi.delay_ms(event), pi.error_message(event) or "")]

    def _retry_end(self, lane: Lane, event: Event) -> list[Item]:
        if pi.succeeded(event) is True:
            return []
        return [LogNotice("error", f"gave up after {pi.attempt(event)} retries: {pi.final_error(event)}")]

    def _compaction_start(self, lane: Lane, event: Event) -> list[Item]:
        return [Compaction(pi.compaction_reason(event), None, True)]

    def _compaction_end(self, lane: Lane, event: Event) -> list[Item]:
        reason = pi.compaction_reason(event)
        if (sizes := pi.compaction_sizes(event)) is not None:
            before, after = sizes
            return [Compaction(reason, f"{before} tokens" + ("" if after is None else f" to {after}"), True)]
        return [Compaction(reason, pi.compaction_error(event) or "failed", False)]

    def _ui_request(self, lane: Lane, event: Event) -> list[Item]:
        method = pi.method(event)
        if method == "notify":
            level, message = pi.notification(event)
            return [LogNotice(level or "info", message)]
        if method in pi.DIALOGS:
            return [DialogAsked(method, pi.title(event))]
        return []

    def _response(self, lane: Lane, event: Event) -> list[Item]:
        if pi.succeeded(event) is not False:
            used, window = pi.context(pi.data(event))
            lane.context = used or lane.context
            lane.window = window or lane.window
            return []
        return [LogNotice("error", f"pi refused {pi.command(event)}: {pi.refusal(event)}")]

    # the runner's own

    def _iteration_start(self, lane: Lane, event: Event) -> list[Item]:
        items = lane.interrupt()
        lane.ended = set()
        kind, ticket = members.text(event, "kind"), ticket_of(event)
        return [*items, IterationBegan(members.whole(event, "iteration"), kind, time_of(event), ticket)]

    def _iteration_end(self, lane: Lane, event: Event) -> list[Item]:
        items = lane.interrupt()
        if ticket_of(event):
            self.lanes.pop(ticket_of(event), None)
        return [*items, IterationEnded(event)]

    def _pi_start(self, lane: Lane, event: Event) -> list[Item]:
        host = members.text(event, "host") or None
        return [PiStarted(members.whole(event, "pid"), members.text(event, "version") or None, host)]

    def _pi_exit(self, lane: Lane, event: Event) -> list[Item]:
        code = event.get("exitCode")
        exited = PiEnded(code if isinstance(code, int) else None, members.text(event, "terminationMethod"))
        return [*lane.interrupt(), exited]

    def _status(self, lane: Lane, event: Event) -> list[Item]:
        reason = members.text(event, "reason") or None
        return [StatusChanged(members.text(event, "from"), members.text(event, "to"), reason, time_of(event))]

    def _command(self, lane: Lane, event: Event) -> list[Item]:
        message = members.text(event, "message") or None
        if message:
            self._said = [*self._said[1 - _REMEMBERED :], message]
        return [
            CommandReceipt(
                members.text(event, "id"),
                members.text(event, "command"),
                members.text(event, "state"),
                message,
                members.text(event, "reason") or None,
                event.get("redelivered") is True,
            )
        ]

    def _verify(self, lane: Lane, event: Event) -> list[Item]:
        taken = members.whole(event, "durationMs")
        return [
            VerifyEnded(
                members.text(event, "command"), members.whole(event, "exitCode"), taken, members.text(event, "tail")
            )
        ]

    def _ticket(self, lane: Lane, event: Event) -> list[Item]:
        reason = members.text(event, "reason") or None
        return [
            TicketChanged(members.text(event, "ticket"), members.text(event, "from"), members.text(event, "to"), reason)
        ]

    def _batch(self, lane: Lane, event: Event) -> list[Item]:
        listed = event.get("tickets")
        tickets = tuple(id for id in listed if isinstance(id, str)) if isinstance(listed, list) else ()
        taken, fluke = members.whole(event, "durationMs"), event.get("fluke") is True
        return [BatchChanged(tickets, members.text(event, "state"), taken, fluke)]

    def _notice(self, lane: Lane, event: Event) -> list[Item]:
        return [LogNotice(members.text(event, "level") or "info", members.text(event, "message"))]

    def _unparsed(self, lane: Lane, event: Event) -> list[Item]:
        return [LogNotice("warning", "pi wrote a line that is not an event: " + members.text(event, "raw")[:_OUTCOME])]

    def _loop_start(self, lane: Lane, event: Event) -> list[Item]:
        resumed = event.get("resumed") is True
        return [
            *self._all_over(),
            LoopBegan(members.text(event, "name"), members.whole(event, "pid"), resumed, time_of(event)),
        ]

    def _loop_end(self, lane: Lane, event: Event) -> list[Item]:
        reason, error = members.text(event, "stopReason") or None, members.text(event, "error") or None
        return [*self._all_over(), LoopEnded(members.text(event, "status"), reason, error)]

    def _all_over(self) -> list[Item]:
        return [item for lane in self.lanes.values() for item in lane.interrupt()]


_HANDLERS: dict[str, Callable[[View, Lane, Event], list[Item]]] = {
    pi.MESSAGE_START: View._message_start,
    pi.MESSAGE_UPDATE: View._message_update,
    pi.MESSAGE_END: View._message_end,
    pi.AGENT_START: View._agent_start,
    pi.TURN_END: View._turn_end,
    pi.TOOL_START: View._tool_start,
    pi.TOOL_UPDATE: View._tool_update,
    pi.TOOL_END: View._tool_end,
    pi.RETRY_START: View._retry_start,
    pi.RETRY_END: View._retry_end,
    pi.COMPACTION_START: View._compaction_start,
    pi.COMPACTION_END: View._compaction_end,
    pi.UI_REQUEST: View._ui_request,
    pi.RESPONSE: View._response,
    "ralph_iteration_start": View._iteration_start,
    "ralph_iteration_end": View._iteration_end,
    "ralph_pi_start": View._pi_start,
    "ralph_pi_exit": View._pi_exit,
    "ralph_status": View._status,
    "ralph_command": View._command,
    "ralph_verify": View._verify,
    "ralph_ticket": View._ticket,
    "ralph_batch": View._batch,
    "ralph_notice": View._notice,
    "ralph_unparsed": View._unparsed,
    "ralph_loop_start": View._loop_start,
    "ralph_loop_end": View._loop_end,
}


def args_line(args: Event) -> str:
    """What a tool was called with, in a few words: the command, path or pattern, else all as JSON."""
    for key in pi.TELLING_ARGS:
        value = args.get(key)
        if isinstance(value, str) and value.strip():
            return value
    return json.dumps(args, ensure_ascii=False) if args else ""


def _tool(event: Event, at: int | None) -> ToolBegan:
    details = pi.arguments(event)
    return ToolBegan(pi.call_id(event), pi.tool_name(event), args_line(details), at, details)


def _outcome(text: str, ok: bool) -> str:
    lines = (text if ok else text.rstrip()[-_OUTCOME:]).lstrip().split("\n")
    return (lines[0] if ok else lines[-1]).strip()[:_OUTCOME]
