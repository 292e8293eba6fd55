"""The words that the HTML and the Markdown form of a report share. Pure; texts are raw, renderers make them inert."""

from collections.abc import Iterator

from ralph_rpc.clock import iso, parse_iso
from ralph_rpc.model.iteration import Iteration
from ralph_rpc.report.facts import Facts, Message, Summary
from ralph_rpc.text import count, duration, money

OUTCOMES = {
    "ok": "went well",
    "failed": "failed",
    "timeout": "took too long",
    "crashed": "crashed",
    "aborted": "aborted",
}
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


def headline(summary: Summary) -> str:
    """How it stands, in a sentence."""
    reason = f" ({summary.stop_reason})" if summary.stop_reason else ""
    status = "ended in error" if summary.status == "error" else summary.status
    done = (
        f"{plural(summary.iterations, 'iteration')}, {duration(summary.elapsed_ms)} and {money(summary.cost)}"
    )
    return f"{status[:1].upper()}{status[1:]}{reason} after {done}."


def figures(summary: Summary) -> Iterator[tuple[str, str, str]]:
    """The numbers that matter most: title, value, and what else there is to say."""
    most = f"of at most {summary.max_iterations:,}" if summary.max_iterations else "no limit"
    yield "Iterations", f"{summary.iterations:,}", most
    yield (
        "Cost",
        money(summary.cost),
        f"{money(summary.cost / summary.iterations)} each" if summary.iterations else "",
    )
    yield "Time", duration(summary.elapsed_ms), "pauses left out"
    cache = f"{count(summary.cache_read)} from cache"
    yield (
        "Tokens",
        count(summary.tokens_in + summary.tokens_out),
        f"{count(summary.tokens_out)} written, {cache}",
    )
    yield "Tool calls", f"{summary.tool_calls:,}", f"in {plural(summary.turns, 'turn')}"


def particulars(facts: Facts) -> Iterator[tuple[str, str]]:
    """The rest of the summary, as titled lines."""
    summary = facts.summary
    yield "Project", summary.project
    yield "Model", "/".join(part for part in (summary.provider, summary.model) if part)
    yield "pi", summary.pi_version or ""
    yield "Started", f"{moment(summary.started_at, seconds=True)} UTC" if summary.started_at else ""
    yield "Ended", f"{moment(summary.ended_at, seconds=True)} UTC" if summary.ended_at else ""
    yield "Last sign", "" if summary.ended_at else f"{moment(summary.updated_at, seconds=True)} UTC"
    yield "Worktree", summary.branch or ""
    yield "Verified by", summary.verify or ""
    commits = sum(len(record.get("commits", ())) for record in facts.iterations)
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


def receipt(message: Message) -> str:
    """How far a message has come."""
    text = message.state
    if message.state == "delivered" and message.iteration is not None:
        text += f" in iteration {message.iteration}"
    if message.redelivered:
        text += ", perhaps twice"
    return text + (f": {message.reason}" if message.reason else "")


def tokens(record: Iteration) -> int:
    """What an iteration read anew and wrote."""
    return record["tokensIn"] + record["tokensOut"]
