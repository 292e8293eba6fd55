"""The words that the HTML and the Markdown form of a report share. Pure; texts are raw, renderers make them inert."""

from collections.abc import Iterator

from ralph_rpc.clock import iso, parse_iso
from ralph_rpc.model.iteration import Iteration
from ralph_rpc.model.usage import tokens, unpriced
from ralph_rpc.report.facts import BatchTried, CommandGiven, LoopSummary, Report
from ralph_rpc.story.words import shortened
from ralph_rpc.terminal.units import cost, count, duration, money, number

OUTCOMES = {"ok": "succeeded", "failed": "failed", "timeout": "timed out", "crashed": "crashed", "aborted": "aborted"}
"""Outcome -> what is said of several iterations that had it."""


def moment(text: str | None, seconds: bool = False) -> str:
    """A time for people, in UTC: `2026-02-06 17:50`."""
    at = parse_iso(text)
    if at is None:
        return text or ""
    return iso(at)[: 19 if seconds else 16].replace("T", " ")


def plural(number: int, noun: str) -> str:
    """`1 iteration`, `1,200 iterations`."""
    return f"{number:,} {noun if number == 1 else noun + 's'}"


def batch_tickets(batch: BatchTried) -> str:
    """Which tickets were merged together."""
    return shortened(batch.tickets) if batch.tickets else "(the target branch itself)"


def batch_state(batch: BatchTried) -> str:
    """What became of it."""
    said = {"red": "verify was red", "target-red": "does not pass verify; merges waited"}.get(batch.state, batch.state)
    return f"{said}, though verify was red at first: it is not reliable" if batch.is_fluke else said


def headline(summary: LoopSummary) -> str:
    """Where the loop stands, in a sentence."""
    reason = f" ({summary.stop_reason})" if summary.stop_reason else ""
    status = "ended in error" if summary.status == "error" else summary.status
    tickets = f"{summary.progress}, " if summary.kind == "tickets" else ""
    done = f"{tickets}{plural(summary.iterations, 'iteration')}, {duration(summary.elapsed_ms)} and {_cost(summary)}"
    return f"{status[:1].upper()}{status[1:]}{reason} after {done}."


def figures(summary: LoopSummary) -> Iterator[tuple[str, str, str]]:
    """The numbers that matter most: title, value, and what else there is to say."""
    if summary.kind == "tickets":
        yield "Tickets", summary.progress.removesuffix(" tickets"), "closed"
    most = f"of at most {summary.max_iterations:,}" if summary.max_iterations else "no limit"
    yield "Iterations", f"{summary.iterations:,}", most
    yield ("Cost", _cost(summary), ", ".join(_beside_the_cost(summary)))
    waited = f", {duration(summary.waited_ms)} waited or paused" if summary.waited_ms else ""
    yield "Time", duration(summary.elapsed_ms), f"without pauses{waited}"
    cache = f"cache {count(summary.cache_read)} read, {count(summary.cache_write)} written"
    yield "Tokens", count(summary.tokens), f"{count(summary.tokens_in)} in, {count(summary.tokens_out)} out; {cache}"
    yield "Tool calls", f"{summary.tool_calls:,}", f"in {plural(summary.turns, 'turn')}"


def _cost(summary: LoopSummary) -> str:
    return cost(summary.cost, summary.tokens)


def _beside_the_cost(summary: LoopSummary) -> Iterator[str]:
    if summary.iterations and summary.cost:
        yield f"{money(summary.cost / summary.iterations)} each"
    if summary.unpriced:
        yield f"without {plural(summary.unpriced, 'request')} that nobody prices"


def particulars(facts: Report) -> Iterator[tuple[str, str]]:
    """The rest of the summary, as titled lines."""
    summary = facts.summary
    yield "Project", summary.project
    yield "Model", "/".join(part for part in (summary.provider, summary.model) if part)
    yield "Waits", summary.waits or ""
    yield "pi", summary.pi_version or ""
    yield "Started", f"{moment(summary.started_at, seconds=True)} UTC" if summary.started_at else ""
    yield "Ended", f"{moment(summary.ended_at, seconds=True)} UTC" if summary.ended_at else ""
    yield "Last seen", "" if summary.ended_at else f"{moment(summary.updated_at, seconds=True)} UTC"
    yield "Worktree", summary.branch or ""
    yield "Verified by", summary.verify or ""
    commits = sum(ticket.commits for ticket in facts.tickets)
    commits += sum(len(record.get("commits", ())) for record in facts.iterations if "ticket" not in record)
    yield "Commits", f"{commits:,}" if commits else ""
    yield "Files", summary.ralph_dir


def outcomes(iterations: list[Iteration]) -> list[tuple[str, int]]:
    """How many iterations had which outcome, those that there were."""
    tally = dict.fromkeys(OUTCOMES, 0)
    for record in iterations:
        tally[record["outcome"]] += 1
    return [(outcome, number) for outcome, number in tally.items() if number]


def verdict(record: Iteration) -> str:
    """What the verify command said of this iteration."""
    verify = record.get("verify")
    if verify is None:
        return ""
    return "passed" if verify["exitCode"] == 0 else f"exit {verify['exitCode']}"


def receipt(message: CommandGiven) -> str:
    """How far a message has come."""
    text = message.state
    if message.state == "delivered" and message.iteration is not None:
        text += f" in iteration {message.iteration}"
    if message.redelivered:
        text += ", perhaps twice"
    return text + (f": {message.reason}" if message.reason else "")


def spent(record: Iteration) -> str:
    """What an iteration cost; a mark where requests are missing in it."""
    missing = int(number(unpriced(record)))
    text = cost(number(record["cost"]), number(tokens(record)))
    return f"{text} + {missing} unpriced" if missing else text
