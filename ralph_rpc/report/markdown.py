"""A report as Markdown, for a pull request or a chat. Pure. The same facts as the page, without plots.

Everything is made inert and escaped: nothing from a model or a file becomes markup, a link or a column of its own.
"""

import re
from collections.abc import Iterable, Sequence

from ralph_rpc.report import wording
from ralph_rpc.report.facts import Facts
from ralph_rpc.text import clip, count, duration, inert, money, number

_MARKUP = re.compile(r"([\\`*_{}\[\]#|~$@]|:(?=//)|(?<=[wW]{3})\.)")
"""What could make markup of a text in the middle of a line, addresses that become links by themselves included."""
_CELL = 200
"""Columns of a text in a table."""


def render(facts: Facts) -> str:
    """The document."""
    summary = facts.summary
    parts = [f"# {_text(summary.name)}: {_text(summary.status)}", _text(wording.headline(summary))]
    if summary.error:
        parts.append(f"**{_text(summary.error)}**")
    parts += [f"> {_text(gap)}" for gap in facts.gaps]
    pairs = [
        (title, f"{value} ({more})" if more else value) for title, value, more in wording.figures(summary)
    ]
    pairs += [pair for pair in wording.particulars(facts) if pair[1]]
    parts.append("\n".join(f"- {title}: {_text(value)}" for title, value in pairs))
    for title, text in (("The task", summary.task), ("What the agent said last", summary.last_text)):
        if text:
            parts += [f"## {title}", _fenced(text)]
    for title, head, rows in _tables(facts):
        if rows:
            parts += [f"## {title}", _table(head, rows)]
    parts.append(_text(f"Made {facts.generated_at} by ralph-rpc {facts.version}. Times are UTC."))
    return "\n\n".join(parts) + "\n"


def _tables(facts: Facts) -> Iterable[tuple[str, Sequence[str], list[Sequence[object]]]]:
    """Title, head and rows; a column whose title ends in a colon holds numbers."""
    yield "Tickets", ("Ticket", "Status", "Attempt:", "Took:", "Iterations", "Tokens:", "Cost:", "Branch", "Trouble"), [
        (
            one.ticket, one.status, one.attempt, _took(one.duration_ms), ", ".join(map(str, one.iterations)),
            count(one.tokens), money(one.cost), one.branch, one.error,
        )
        for one in facts.tickets
    ]  # fmt: skip
    head = (
        "No.:", "Ticket", "Outcome", "Started", "Took:", "Turns:", "Tools:", "Tokens:", "Cost:", "Verify", "Commits:",
        "Files:", "What it said",
    )  # fmt: skip
    yield "Iterations", head, [
        (
            one["iteration"], one.get("ticket"), one["outcome"], wording.moment(one["startedAt"]),
            _took(one["durationMs"]), one["turns"], one["toolCalls"], count(number(wording.tokens(one))),
            money(number(one["cost"])), wording.verdict(one), len(one["commits"]) if "commits" in one else None,
            one.get("filesChanged"), one.get("error") or one["summary"],
        )
        for one in facts.iterations
    ]  # fmt: skip
    yield (
        "Without a record yet",
        ("No.:", "Ticket", "Started"),
        [(one.iteration, one.ticket, wording.moment(one.started_at)) for one in facts.running],
    )
    yield (
        "Failures and warnings",
        ("When", "Iteration:", "Ticket", "Kind", "Cause"),
        [
            (wording.moment(one.at), one.iteration, one.ticket, one.kind, f"{one.cause} {one.detail or ''}")
            for one in facts.failures
        ],
    )
    yield (
        "Requests that pi tried again by itself",
        ("Times:", "Last", "Error"),
        [(one.times, wording.moment(one.last_at), one.cause) for one in facts.retries],
    )
    yield (
        "Tools",
        ("Tool", "Calls:", "Failed:", "Cut off:", "Time in all:", "Longest:", "Last failure"),
        [
            (
                one.name,
                one.calls,
                one.failed,
                one.unfinished,
                _took(one.total_ms),
                _took(one.longest_ms),
                one.last_failure,
            )
            for one in facts.tools
        ],
    )
    yield (
        "Messages and orders",
        ("When", "Command", "Text", "Receipt"),
        [(wording.moment(one.at), one.command, one.text, wording.receipt(one)) for one in facts.messages],
    )
    yield (
        "Starts, waits and restarts",
        ("When", "What", "How"),
        [(wording.moment(one.at, seconds=True), one.what, one.detail) for one in facts.life],
    )


def _table(head: Sequence[str], rows: list[Sequence[object]]) -> str:
    lines = ["| " + " | ".join(title.rstrip(":") for title in head) + " |"]
    lines.append("|" + "|".join(" ---: " if title.endswith(":") else " --- " for title in head) + "|")
    for row in rows:
        lines.append("| " + " | ".join(_text(clip(_line(cell), _CELL), lined=True) for cell in row) + " |")
    return "\n".join(lines)


def _took(ms: int | None) -> str:
    return "" if ms is None else duration(number(ms))


def _line(cell: object) -> str:
    return "" if cell is None else " ".join(inert(str(cell)).split())


def _text(text: str, lined: bool = False) -> str:
    """One line in which nothing is markup."""
    line = text if lined else _line(text)
    return _MARKUP.sub(r"\\\1", line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"))


def _fenced(text: str) -> str:
    text = inert(text).rstrip("\n")
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"
