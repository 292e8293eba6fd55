"""Plots of a report as inline SVG: bars per iteration, and a strip that shows what ran when and how it ended. Pure.

They have no text but titles (shown on hover, read by screen readers): axes are HTML beside them, so that a plot can
be squeezed to any width and its labels stay readable. Colours are classes, which the page gives for light and dark.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from markupsafe import Markup

from ralph_rpc.terminal.inert import inert

MOST_BARS = 200
"""More iterations than this share bars."""
_FEWEST = 12
"""Columns that a plot has at least, so that three iterations do not become three walls."""
_HEIGHT = 100
_WIDTH = 1_000
_LANE = 18
_LANES = 32
"""More than run at once; records that claim more share the last lane."""
_GAP = 0.04
"""Longest gap of the strip, as a share of the time worked: a night's pause would leave nothing else to see."""


@dataclass(frozen=True, slots=True)
class StackedBar:
    """One iteration, or several that follow each other; `parts` are stacked, each with its class."""

    parts: Sequence[tuple[str, float]]
    title: str

    @property
    def height(self) -> float:
        return sum(value for _, value in self.parts)


@dataclass(frozen=True, slots=True)
class Span:
    """An iteration in time, epoch milliseconds."""

    start: int
    end: int
    style: str
    title: str


def bars(columns: Sequence[StackedBar], title: str) -> Markup:
    """Columns from left to right, the highest as high as the plot."""
    top = max((column.height for column in columns), default=0) or 1
    shapes = []
    for index, column in enumerate(columns):
        y = float(_HEIGHT)
        rects = []
        for style, value in column.parts:
            height = max(value, 0) / top * _HEIGHT
            y -= height
            rects.append(f'<rect class="{style}" x="{index + 0.1:.1f}" y="{y:.2f}" width="0.8" height="{height:.2f}"/>')
        shapes.append(f"<g><title>{_text(column.title)}</title>{''.join(rects)}</g>")
    width = max(len(columns), _FEWEST)
    middle = f'<line class="grid" x1="0" x2="{width}" y1="{_HEIGHT / 2}" y2="{_HEIGHT / 2}"/>'
    return _svg(width, _HEIGHT, title, middle + "".join(shapes), "bars")


def strip(spans: Sequence[Span], title: str) -> Markup:
    """Iterations by time, those that ran at once below each other; longer gaps between them are shortened."""
    placed = _placed(sorted(spans, key=lambda span: (span.start, span.end)))
    begin = min((start for start, _, _, _ in placed), default=0.0)
    scale = _WIDTH / (max((end for _, end, _, _ in placed), default=1.0) - begin or 1)
    shapes = []
    for start, end, lane, span in placed:
        x, width = (start - begin) * scale, max((end - start) * scale, 1.5)
        place = f'x="{x:.2f}" y="{lane * _LANE + 1}" width="{width:.2f}" height="{_LANE - 2}"'
        shapes.append(f'<g><title>{_text(span.title)}</title><rect class="{span.style}" {place}/></g>')
    lanes = max((lane for _, _, lane, _ in placed), default=0) + 1
    return _svg(_WIDTH, lanes * _LANE, title, "".join(shapes), "strip")


def _placed(spans: Sequence[Span]) -> list[tuple[float, float, int, Span]]:
    """Start, end and lane of each, in order of time, once the gaps are shortened."""
    longest = _GAP * sum(max(span.end - span.start, 1) for span in spans)
    placed: list[tuple[float, float, int, Span]] = []
    ends: list[int] = []
    cut, covered = 0.0, spans[0].start if spans else 0
    for span in spans:
        cut += max(span.start - covered - longest, 0)
        covered = max(span.end, covered)
        free = (number for number, end in enumerate(ends) if end <= span.start)
        lane = next(free, min(len(ends), _LANES - 1))
        ends[lane : lane + 1] = [span.end]
        placed.append((span.start - cut, span.end - cut, lane, span))
    return placed


def share_of(count: int) -> int:
    """Percent of the width of a plot that so many bars take."""
    return 100 * count // max(count, _FEWEST)


def shared(count: int) -> int:
    """How many iterations each bar must stand for."""
    return max(1, -(-count // MOST_BARS))


def _svg(width: int, height: int, title: str, content: str, style: str) -> Markup:
    # Strokes would be squeezed with the plot: only the grid has one, and its style keeps that as it is.
    return Markup(
        f'<svg class="{style}" viewBox="0 0 {width} {height}" preserveAspectRatio="none" role="img"'
        f' aria-label="{_text(title)}" style="--lanes:{height // _LANE}"><title>{_text(title)}</title>{content}</svg>'
    )


def _text(text: str) -> str:
    return escape(inert(text, keep_newlines=False))
