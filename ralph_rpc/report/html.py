"""A report as one HTML page that needs nothing else: no script, no network, no file beside it. Pure.

The page is a Jinja template (`page/`). Everything it prints is made inert and escaped by
`finalize` and autoescape; the policy in its head forbids everything but its own styles. The only links are to
session files, by addresses that `gather` has built.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import jinja2
from markupsafe import Markup

from ralph_rpc.clock import parse_iso
from ralph_rpc.model.iteration import Iteration
from ralph_rpc.model.usage import tokens
from ralph_rpc.report import plots, wording
from ralph_rpc.report.facts import Report
from ralph_rpc.story.models import spans
from ralph_rpc.terminal.inert import inert
from ralph_rpc.terminal.units import cost, count, duration, money, number
from ralph_rpc.terminal.width import line_of

MOST_ROWS = 1_000
"""Iterations, and tickets, that the page lists: a browser must stay quick."""
_LONG_TASK = 20_000
_SHORT_MS = 3_600_000


def render(facts: Report) -> str:
    """The page."""
    iterations = facts.iterations
    shown = list(iterations[-MOST_ROWS:])
    return _template().render(
        facts=facts,
        summary=facts.summary,
        headline=wording.headline(facts.summary),
        figures=list(wording.figures(facts.summary)),
        particulars=[pair for pair in wording.particulars(facts) if pair[1]],
        outcomes=wording.outcomes(list(iterations)),
        strip=plots.strip(_spans(shown), "Iterations in order of time"),
        charts=_charts(iterations) if iterations else [],
        with_seconds=_is_short(shown),
        iterations=shown,
        tickets=facts.tickets[:MOST_ROWS],
        with_tickets=any("ticket" in record for record in iterations),
        most_rows=MOST_ROWS,
        long_task=_LONG_TASK,
    )


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).with_name("page")),
        autoescape=True,
        finalize=_harmless,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": lambda value: count(number(value)),
        "duration": lambda value: "" if value is None else duration(number(value)),
        "first_line": lambda text, limit=90: line_of(text, limit),
        "moment": wording.moment,
        "plural": wording.plural,
        "receipt": wording.receipt,
        "batch_tickets": wording.batch_tickets,
        "batch_state": wording.batch_state,
        "verdict": wording.verdict,
        "spans": spans,
        "tokens": lambda record: number(tokens(record)),
        "spent": wording.spent,
        "cost": lambda ticket: cost(ticket.cost, ticket.tokens),
        "file_name": lambda path: Path(path).name,
        "said": lambda outcome: wording.OUTCOMES[outcome],
    }
    return environment.get_template("report.html")


def _harmless(value: object) -> object:
    if isinstance(value, Markup):
        return value
    return "" if value is None else inert(str(value))


def _is_short(iterations: Sequence[Iteration]) -> bool:
    """Whether an axis from the first to the last needs seconds to say anything."""
    first, last = (
        (parse_iso(at) for at in (iterations[0]["startedAt"], iterations[-1]["endedAt"])) if iterations else (0, 0)
    )
    return first is not None and last is not None and last - first < _SHORT_MS


def _spans(iterations: Sequence[Iteration]) -> list[plots.Span]:
    spans = []
    for record in iterations:
        start, end = parse_iso(record["startedAt"]), parse_iso(record["endedAt"])
        if start is not None and end is not None:
            spans.append(plots.Span(start, max(start, end), record["outcome"], f"{_name(record)}: {record['outcome']}"))
    return spans


@dataclass(frozen=True, slots=True)
class Chart:
    """A plot with what stands around it; `legend` has classes and what they mean."""

    title: str
    top: str
    plot: Markup
    share: int
    """Percent of its width that the bars take; the axis is as wide."""
    legend: Sequence[tuple[str, str]] = ()


def _charts(iterations: Sequence[Iteration]) -> list[Chart]:
    step = plots.shared(len(iterations))
    groups = [iterations[first : first + step] for first in range(0, len(iterations), step)]
    costs = [
        plots.StackedBar([(_style(group), cost)], f"{_names(group)}: {money(cost)}")
        for group, cost in _each(groups, "cost")
    ]
    times = [
        plots.StackedBar([(_style(group), ms)], f"{_names(group)}: {duration(ms)}")
        for group, ms in _each(groups, "durationMs")
    ]
    share = plots.share_of(len(groups))
    used = [_token_column(group) for group in groups]
    return [
        Chart("Cost", money(_highest(costs)), plots.bars(costs, "Cost of each iteration"), share),
        Chart(
            "Tokens",
            count(_highest(used)),
            plots.bars(used, "Tokens of each iteration"),
            share,
            [("written", "out"), ("read", "in and cache written"), ("cached", "cache read")],
        ),
        Chart("Duration", duration(_highest(times)), plots.bars(times, "Duration of each iteration"), share),
    ]


def _each(groups: Sequence[Sequence[Iteration]], key: str) -> list[tuple[Sequence[Iteration], float]]:
    return [(group, sum(number(record.get(key)) for record in group)) for group in groups]


def _token_column(group: Sequence[Iteration]) -> plots.StackedBar:
    def total(key: str) -> float:
        return sum(number(record.get(key)) for record in group)

    written, read, cached = total("tokensOut"), total("tokensIn") + total("cacheWrite"), total("cacheRead")
    told = f"{_names(group)}: {count(written)} out, {count(read)} in and cache written, {count(cached)} cache read"
    return plots.StackedBar([("written", written), ("read", read), ("cached", cached)], told)


def _highest(columns: Sequence[plots.StackedBar]) -> float:
    return max(column.height for column in columns)


def _style(group: Sequence[Iteration]) -> str:
    """The class of a bar: the last outcome in it that was not `ok`."""
    return next((record["outcome"] for record in reversed(group) if record["outcome"] != "ok"), "ok")


def _names(group: Sequence[Iteration]) -> str:
    return _name(group[0]) if len(group) == 1 else f"Iterations {group[0]['iteration']} to {group[-1]['iteration']}"


def _name(record: Iteration) -> str:
    ticket = record.get("ticket")
    return f"Iteration {record['iteration']}" + (f" ({ticket})" if ticket else "")
