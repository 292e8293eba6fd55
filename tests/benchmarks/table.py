"""One row of the result: what was measured, against what, and whether the goal is met. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import orjson


@dataclass(frozen=True)
class Row:
    """`ours` and `reference` are in `unit`; the goal is `value <= limit`, or `value >= limit` where `at_least`.

    `value` is the ratio ours/reference unless given (a plain figure: a p99 in ms, a count). Without `limit` the row
    only tells. A row whose `missing` says what was not there is never met.
    """

    goal: int
    """The number of the goal in docs/performance.md."""
    what: str
    ours: float | None = None
    reference: float | None = None
    unit: str = ""
    against: str = ""
    """What the reference is."""
    limit: float | None = None
    at_least: bool = False
    value: float | None = None
    missing: str = ""

    @property
    def judged(self) -> float | None:
        """What is held against the limit."""
        if self.value is not None:
            return self.value
        if self.ours is None or not self.reference:
            return None
        return self.ours / self.reference

    @property
    def met(self) -> bool | None:
        """None where there is nothing to be met."""
        if self.missing:
            return False
        if self.limit is None:
            return None
        judged = self.judged
        if judged is None:
            return False
        return judged >= self.limit if self.at_least else judged <= self.limit


HEAD = ("goal", "what", "ours", "reference", "", "ratio", "goal is", "met")


def show(rows: Iterable[Row]) -> str:
    """The rows as a table in Markdown, which reads well on a terminal, too."""
    cells = [HEAD, *(_cells(row) for row in sorted(rows, key=lambda row: row.goal))]
    widths = [max(len(line[i]) for line in cells) for i in range(len(HEAD))]
    lines = [_line(line, widths) for line in cells]
    lines.insert(1, _line(["-" * width for width in widths], widths))
    return "\n".join(lines)


def as_json(rows: Iterable[Row]) -> str:
    """The rows as a JSON array."""
    told: list[dict[str, Any]] = [{**asdict(row), "value": row.judged, "met": row.met} for row in rows]
    return orjson.dumps(told, option=orjson.OPT_INDENT_2).decode()


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"


def _cells(row: Row) -> tuple[str, ...]:
    judged, met = row.judged, row.met
    sign = ">=" if row.at_least else "<="
    plain = row.value is not None
    return (
        str(row.goal),
        row.what,
        _figure(row.ours, row.unit),
        _figure(row.reference, row.unit),
        row.missing or row.against,
        "" if judged is None or plain else f"{judged:.2f} x",
        "" if row.limit is None else f"{sign} {row.limit:g}" + (f" {row.unit}" if plain else " x"),
        {True: "yes", False: "NO", None: ""}[met],
    )


def _figure(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:,.{digits}f} {unit}".strip()
