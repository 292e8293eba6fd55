"""How many columns a text takes on a terminal, and how it is cut or padded to fit. Pure.

Called by everything that prints a line of bounded width. Columns of emoji, CJK and combining characters are wcwidth's
to say; it is loaded only for a text that may hold one, because loading it takes half as long as a whole `list`.
"""

import re

from ralph_rpc.terminal.inert import inert

_NARROW = re.compile(
    "[ -~\u00a1-\u00ac\u00ae-\u02ff\u0391-\u03a1\u03a3-\u03ff\u0400-\u0482\u048a-\u052f\u1e00-\u1eff\u2010-\u2027"
    "\u2030-\u205e\u20a0-\u20bf\u2190-\u22ff\u2400-\u2426\u2500-\u25fc\u2713-\u2717]*"
)
"""European letters, punctuation, arrows, lines and marks: one column each, and no part of a larger cluster."""


def line_of(text: str, limit: int) -> str:
    """One inert line of at most `limit` columns: the first that is not blank, `…` where more was cut."""
    first = ""
    lines = 0
    for line in text[: 64 * limit].split("\n"):
        if line.strip():
            first = first or line.strip()
            lines += 1
    more = lines > 1 or len(text) > 64 * limit
    return clip(inert(first, keep_newlines=False) + (" …" if more and first else ""), limit)


def clip(text: str, limit: int) -> str:
    """The text cut to `limit` columns, with `…` in the last one where it was longer; no cluster is cut in two."""
    if is_narrow(text):
        return text if len(text) <= limit else text[: limit - 1] + "…" if limit > 0 else ""
    from wcwidth import iter_graphemes

    columns = end = fits = 0
    for cluster in iter_graphemes(text):
        columns += _cluster_width(cluster)
        if columns > limit:
            return text[:fits] + "…" if limit > 0 else ""
        end += len(cluster)
        if columns < limit:
            fits = end
    return text


def clip_start(text: str, limit: int) -> str:
    """As `clip`, but the end is kept: of a path it says more."""
    if is_narrow(text):
        return text if len(text) <= limit else "…" + text[len(text) - limit + 1 :] if limit > 0 else ""
    from wcwidth import iter_graphemes

    clusters = list(iter_graphemes(text))
    columns = sum(map(_cluster_width, clusters))
    if columns <= limit:
        return text
    cut = 0
    while clusters[cut:] and columns >= limit:
        columns -= _cluster_width(clusters[cut])
        cut += 1
    return "…" + "".join(clusters[cut:]) if limit > 0 else ""


def width(text: str) -> int:
    """Columns of a text without control characters."""
    if is_narrow(text):
        return len(text)
    from wcwidth import iter_graphemes

    return sum(map(_cluster_width, iter_graphemes(text)))


def is_narrow(text: str) -> bool:
    """True if every character certainly takes one column, so that the text is as wide as it is long."""
    return text.isascii() or _NARROW.fullmatch(text) is not None


def pad(text: str, columns: int, right: bool = False) -> str:
    """The text filled with spaces to `columns`; `right` puts them before it."""
    fill = " " * (columns - width(text))
    return fill + text if right else text + fill


def _cluster_width(cluster: str) -> int:
    """Columns of one grapheme cluster: a character with all that is joined to it."""
    from wcwidth import wcswidth

    columns = wcswidth(cluster)
    return columns if columns >= 0 else len(cluster)  # negative: it holds a control character
