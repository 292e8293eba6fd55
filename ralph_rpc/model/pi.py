"""pi's own lines: the names of its events and the members that we read, each spelled here and nowhere else.

The runner decides with them (ralph_runner/pi: protocol, stamp) and the viewers show them (story, report, attach). One
vocabulary for every generation of pi since 0.73.1. Reading is tolerant: a member that a generation lacks, or that has
another type, gives None or an empty value, never an error. Texts are as pi wrote them, lone surrogates included. Pure,
and light to import, because everyday commands load it.
"""

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from ralph_rpc.model.members import flag, mapping, number, text, text_or_none, texts, whole

Event: TypeAlias = Mapping[str, Any]
"""One line of pi's stdout, parsed; or any object inside it."""

# The types of events.
AGENT_START: Final = "agent_start"
AGENT_END: Final = "agent_end"
AGENT_SETTLED: Final = "agent_settled"
"""pi >= 0.80.4."""
TURN_START: Final = "turn_start"
TURN_END: Final = "turn_end"
MESSAGE_START: Final = "message_start"
MESSAGE_UPDATE: Final = "message_update"
MESSAGE_END: Final = "message_end"
TOOL_START: Final = "tool_execution_start"
TOOL_UPDATE: Final = "tool_execution_update"
TOOL_END: Final = "tool_execution_end"
QUEUE_UPDATE: Final = "queue_update"
RETRY_START: Final = "auto_retry_start"
RETRY_END: Final = "auto_retry_end"
COMPACTION_START: Final = "compaction_start"
COMPACTION_END: Final = "compaction_end"
ENTRY_APPENDED: Final = "entry_appended"
UI_REQUEST: Final = "extension_ui_request"
RESPONSE: Final = "response"

VIRTUAL_API: Final = "pi-virtual"
"""The `api` of a model that stands for others (pi >= 1.5)."""

DIALOGS = frozenset({"confirm", "select", "input", "editor"})
"""Methods of a `UI_REQUEST` that wait for an answer."""


def head(kind: str) -> bytes:
    """How a line of this type begins. pi writes the type first, and so does the runner in its own events."""
    return b'{"type":"%s"' % kind.encode()


# -- messages (MESSAGE_START, MESSAGE_END)


def message(event: Event) -> Event:
    """The message that has begun or ended."""
    return mapping(event, "message")


def role(message: Event) -> str:
    """user, assistant, toolResult …"""
    return text(message, "role")


def blocks(holder: Event) -> list[tuple[str, bool]]:
    """The content of a message or of a tool's result: each part's text, and whether it is thinking.

    A part that is neither text nor thinking (a tool call, an image) has no text. Old pi has a plain text in the place
    of the list for some users' messages.
    """
    content = holder.get("content")
    if isinstance(content, str):
        return [(content, False)]
    return [_block(part) for part in content] if isinstance(content, list) else []


def content_text(holder: Event) -> str:
    """The text blocks of it, joined without a separator; no thinking, no tool calls."""
    return "".join([part for part, is_thinking in blocks(holder) if not is_thinking])


def tool_calls(message: Event) -> int:
    """How many tools the answer calls."""
    content = message.get("content")
    parts = content if isinstance(content, list) else []
    return sum(isinstance(part, dict) and part.get("type") == "toolCall" for part in parts)


def stop_reason(message: Event) -> str | None:
    """Of an assistant's message: stop, length, toolUse, error, aborted."""
    return text_or_none(message, "stopReason")


def error_message(holder: Event) -> str | None:
    """What went wrong: with an answer, before a retry, in a compaction."""
    return text_or_none(holder, "errorMessage")


def model(message: Event) -> str | None:
    """Which model answered."""
    return text_or_none(message, "model")


def provider(message: Event) -> str | None:
    """Whose model answered."""
    return text_or_none(message, "provider")


def usage(message: Event) -> tuple[int, int, int, int, float]:
    """What an answer used: tokens in, out, read from the cache, written to it, and US dollars."""
    used = mapping(message, "usage")
    return (
        whole(used, "input"),
        whole(used, "output"),
        whole(used, "cacheRead"),
        whole(used, "cacheWrite"),
        number(mapping(used, "cost"), "total"),
    )


def has_usage(holder: Event) -> bool:
    """True if pi tells at all what it used; an answer that was cut off has a usage of zeros."""
    return bool(mapping(holder, "usage"))


def context_after(message: Event) -> int:
    """Tokens in the agent's context once an answer has ended; 0 where pi does not say."""
    return whole(mapping(message, "usage"), "totalTokens")


def _block(part: object) -> tuple[str, bool]:
    if isinstance(part, dict):
        is_thinking = part.get("type") == "thinking"
        return text(part, "thinking" if is_thinking else "text"), is_thinking
    return (part if isinstance(part, str) else ""), False


# -- MESSAGE_UPDATE


TEXT_DELTA: Final = "text_delta"
THINKING_DELTA: Final = "thinking_delta"
TOOLCALL_START: Final = "toolcall_start"
"""The assistant begins to write a tool's call: `tool_name` is empty where older pi does not name it."""


def change(event: Event) -> Event:
    """What is new in an update; its `type` is one of the three above, or does not matter to us."""
    return mapping(event, "assistantMessageEvent")


def delta(change: Event) -> str:
    """Of TEXT_DELTA and THINKING_DELTA: the piece of text."""
    return text(change, "delta")


def delta_block(change: Event) -> int:
    """Of TEXT_DELTA and THINKING_DELTA: which part of the message's content it continues."""
    return whole(change, "contentIndex")


# -- tools (TOOL_START, TOOL_UPDATE, TOOL_END)


def call_id(event: Event) -> str:
    """Which call it is."""
    return text(event, "toolCallId")


def tool_name(event: Event) -> str:
    """Which tool it calls."""
    return text(event, "toolName")


def arguments(event: Event) -> dict[str, Any]:
    """Of TOOL_START: what the tool is called with."""
    return mapping(event, "args")


TELLING_ARGS = ("command", "path", "file_path", "pattern", "url", "query")
"""The arguments that tell a person what a call does, the most telling first."""


def partial_result(event: Event) -> dict[str, Any]:
    """Of TOOL_UPDATE: the result so far, for `content_text`."""
    return mapping(event, "partialResult")


def result(event: Event) -> dict[str, Any]:
    """Of TOOL_END: for `content_text` and `details`."""
    return mapping(event, "result")


def details(result: Event) -> dict[str, Any]:
    """What a tool tells beyond the text that the model gets."""
    return mapping(result, "details")


def is_error(event: Event) -> bool:
    """Of TOOL_END: the call failed."""
    return event.get("isError") is True


# -- runs: AGENT_END, AGENT_SETTLED, QUEUE_UPDATE


def will_retry(event: Event) -> bool | None:
    """Of AGENT_END and COMPACTION_END: pi continues by itself. None: this pi does not say."""
    return flag(event, "willRetry")


def aborted(event: Event) -> bool | None:
    """Of AGENT_SETTLED and COMPACTION_END. None: this pi does not say."""
    return flag(event, "aborted")


def queues(event: Event) -> tuple[list[str], list[str]]:
    """The texts in pi's steering queue and in its follow-up queue."""
    return texts(event, "steering"), texts(event, "followUp")


# -- pi's own retries (RETRY_START, RETRY_END)


def attempt(event: Event) -> int:
    """Which retry it is, from 1."""
    return whole(event, "attempt")


def delay_ms(event: Event) -> int:
    """Of RETRY_START: how long pi waits."""
    return whole(event, "delayMs")


def succeeded(event: Event) -> bool | None:
    """Of RETRY_END and RESPONSE. None: this pi does not say."""
    return flag(event, "success")


def final_error(event: Event) -> str:
    """Of RETRY_END: why pi gave up."""
    return text(event, "finalError")


# -- compaction (COMPACTION_START, COMPACTION_END)


def compaction_reason(event: Event) -> str:
    """threshold, overflow or manual."""
    return text(event, "reason")


def compaction_error(event: Event) -> str:
    """Of COMPACTION_END: why there is no summary; empty where there is one, or where pi does not say."""
    return error_message(event) or ("aborted" if aborted(event) else "")


def compaction_sizes(event: Event) -> tuple[int, int | None] | None:
    """Of COMPACTION_END: tokens before and after (None: unknown). None where there is no summary."""
    summary = result(event)
    after = summary.get("estimatedTokensAfter")
    return (whole(summary, "tokensBefore"), after if isinstance(after, int) else None) if summary else None


# -- ENTRY_APPENDED


CHARGED_ENTRIES = frozenset({"usage", "compaction", "branch_summary"})
"""Kinds of entries whose `usage` no other event tells: a warm-up of the prompt cache, a summary that an extension made.
A message's usage is in its MESSAGE_END, that of pi's own summary in COMPACTION_END."""


def charged_entry(event: Event) -> Event:
    """The session's new entry if it is one of CHARGED_ENTRIES; else empty."""
    entry = mapping(event, "entry")
    return entry if entry.get("type") in CHARGED_ENTRIES else {}


# -- UI_REQUEST


def method(event: Event) -> str:
    """One of DIALOGS, notify, or another that waits for nothing."""
    return text(event, "method")


def title(event: Event) -> str:
    """What a dialog asks."""
    return text(event, "title")


def options(event: Event) -> list[str]:
    """What a `select` offers."""
    return texts(event, "options")


def has_timeout(event: Event) -> bool:
    """The dialog ends by itself."""
    return event.get("timeout") is not None


def notification(event: Event) -> tuple[str, str]:
    """Of the method notify: level (empty: info) and message."""
    return text(event, "notifyType"), text(event, "message")


# -- RESPONSE


def request_id(event: Event) -> str:
    """The id of the request that is answered, or of the dialog that is asked. Empty: old pi and an unknown command."""
    return text(event, "id")


def command(event: Event) -> str:
    """The command that is answered."""
    return text(event, "command")


def data(event: Event) -> dict[str, Any]:
    """What the command gives."""
    return mapping(event, "data")


def refusal(event: Event) -> str:
    """Why the command was refused."""
    return text(event, "error")


def has_prices(data: Event) -> bool | None:
    """Of the data of get_state: pi can compute what the session's model costs. None: it does not say.

    A model of `api` virtual has no prices of its own; those of the model that it chooses for a request count.
    """
    chosen = mapping(data, "model")
    prices = mapping(chosen, "cost")
    if not prices or chosen.get("api") == VIRTUAL_API:
        return None
    return any(prices.values())


def context(data: Event) -> tuple[int, int]:
    """Of the data of get_session_stats or get_state: tokens in the context, and how many fit; 0 where pi does not say."""
    used = mapping(data, "contextUsage")
    return whole(used, "tokens"), whole(used, "contextWindow") or whole(mapping(data, "model"), "contextWindow")
