"""A report as Markdown, for a pull request or a chat. Pure. The same facts as the page, without plots.

Everything is made inert and escaped: nothing from a model or a file becomes markup, a link or a column of its own.
"""

import re
from collections.abc import Iterable, Sequence

from ralph_rpc.model.iteration import Iteration
from ralph_rpc.model.usage import tokens
from ralph_rpc.report import wording
from ralph_rpc.report.facts import BatchTried, Report, ReportedFailure, TicketSummary, TimeWaited, ToolUse
from ralph_rpc.report.wording import moment
from ralph_rpc.story.models import HostUse, ModelUse, spans
from ralph_rpc.terminal.inert import inert
from ralph_rpc.terminal.units import cost, count, duration, number
from ralph_rpc.terminal.width import clip

_MARKUP = re.compile(r"([\\`*_{}\[\]#|~$@]|:(?=//)|(?<=[wW]{3})\.)")
"""What could be read as markup in the middle of a line, addresses that become links by themselves included."""
_CELL = 200
"""Columns of a text in a table."""


def render(facts: Report) -> str:
    """The document."""
    summary = facts.summary
    parts = [f"# {_text(summary.name)}: {_text(summary.status)}", _text(wording.headline(summary))]
    if summary.error:
        parts.append(f"**{_text(summary.error)}**")
    parts += [f"> {_text(gap)}" for gap in facts.gaps]
    pairs = [(title, f"{value} ({more})" if more else value) for title, value, more in wording.figures(summary)]
    pairs += [pair for pair in wording.particulars(facts) if pair[1]]
    parts.append("\n".join(f"- {title}: {_text(value)}" for title, value in pairs))
    for title, text in (("The task", summary.task), ("The last message from the agent", summary.last_text)):
        if text:
            parts += [f"## {title}", _fenced(text)]
    for title, head, rows in _tables(facts):
        if cells := list(rows):
            parts += [f"## {title}", _table(head, cells)]
    parts.append(_text(f"Made {facts.generated_at} by ralph-rpc {facts.version}. Times are UTC."))
    return "\n\n".join(parts) + "\n"


Cells = Sequence[object]
"""A row of a table; None is an empty cell."""


def _tables(facts: Report) -> Iterable[tuple[str, str, Iterable[Cells]]]:
    """Title, head and rows, where a cell of the head that ends in a colon is over numbers."""
    yield (
        "Tickets",
        "Ticket|Status|Attempt:|Took:|Waited:|Iterations|Tokens:|Cost:|Commits:|Branch|Notes",
        map(_ticket, facts.tickets),
    )
    yield "Merges", "When|Tickets|What|Took:", map(_batch, facts.batches)
    if len(facts.models) > 1:
        yield "Models", "Model|Iterations:|Which|Tokens:|Cost:", map(_model, facts.models)
    if facts.hosts:
        yield "Machines", "Machine|Iterations:|Which|Lost:|Tokens:|Cost:", map(_host, facts.hosts)
    yield (
        "Iterations",
        "No.:|Ticket|Outcome|Started|Took:|Turns:|Tools:|Tokens:|Cost:|Verify|Commits:|Files:|Summary",
        map(_iteration, facts.iterations),
    )
    yield (
        "No record yet",
        "No.:|Ticket|Started",
        ((one.iteration, one.ticket, moment(one.started_at)) for one in facts.running),
    )
    yield "Failures and warnings", "When|Iteration:|Ticket|Kind|Cause", map(_failure, facts.failures)
    yield (
        "Requests that pi retried",
        "Times:|Last|Error",
        ((one.times, moment(one.last_at), one.cause) for one in facts.retries),
    )
    yield "Waits and pauses", "What|Times:|Total:|Longest:|Last|Reason", map(_waited, facts.waits)
    yield "Tools", "Tool|Calls:|Failed:|Cut off:|Total time:|Longest:|Last failure", map(_tool, facts.tools)
    yield (
        "Messages and commands",
        "When|Command|Text|Receipt",
        ((moment(one.at), one.command, one.text, wording.receipt(one)) for one in facts.messages),
    )
    yield (
        "Starts, waits and restarts",
        "When|What|Details",
        ((moment(one.at, seconds=True), one.what, one.detail) for one in facts.life),
    )


def _ticket(one: TicketSummary) -> Cells:
    numbers = ", ".join(map(str, one.iterations))
    took, paid = _took(one.duration_ms), cost(one.cost, one.tokens)
    return (
        one.ticket,
        one.status,
        one.attempt,
        took,
        _took(one.waited_ms),
        numbers,
        count(one.tokens),
        paid,
        one.commits,
        one.branch,
        one.error or one.note,
    )


def _batch(one: BatchTried) -> Cells:
    return moment(one.at, seconds=True), wording.batch_tickets(one), wording.batch_state(one), _took(one.duration_ms)


def _model(one: ModelUse) -> Cells:
    return one.model, len(one.iterations), spans(one.iterations), count(one.tokens), cost(one.cost, one.tokens)


def _host(one: HostUse) -> Cells:
    runs = len(one.iterations)
    return one.host, runs, spans(one.iterations), one.lost, count(one.tokens), cost(one.cost, one.tokens)


def _iteration(one: Iteration) -> Cells:
    return (
        one["iteration"],
        one.get("ticket"),
        one["outcome"],
        moment(one["startedAt"], seconds=True),
        _took(one["durationMs"]),
        one["turns"],
        one["toolCalls"],
        count(number(tokens(one))),
        wording.spent(one),
        wording.verdict(one),
        len(one["commits"]) if "commits" in one else None,
        one.get("filesChanged"),
        one.get("error") or one["summary"],
    )


def _failure(one: ReportedFailure) -> Cells:
    return moment(one.at, seconds=True), one.iteration, one.ticket, one.kind, f"{one.cause} {one.detail or ''}"


def _waited(one: TimeWaited) -> Cells:
    return one.what, one.times, _took(one.total_ms), _took(one.longest_ms), moment(one.last_at), one.reason


def _tool(one: ToolUse) -> Cells:
    total, longest = _took(one.total_ms), _took(one.longest_ms)
    return one.name, one.calls, one.failed, one.unfinished, total, longest, one.last_failure


def _table(head: str, rows: Iterable[Cells]) -> str:
    titles = head.split("|")
    lines = ["| " + " | ".join(title.rstrip(":") for title in titles) + " |"]
    lines.append("|" + "|".join(" ---: " if title.endswith(":") else " --- " for title in titles) + "|")
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
