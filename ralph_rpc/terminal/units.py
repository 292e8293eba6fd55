"""Durations, money and counts as a person reads them, the same in every view. Pure. Called by every face."""

from typing import Any


def duration(ms: float) -> str:
    """`2d03h`, `1h02m`, `3m12s`, `4.2s`, `21ms`; nothing negative."""
    ms = max(ms, 0)
    if ms < 1_000:
        return f"{int(ms)}ms"
    if ms < 59_950:
        return f"{ms / 1000:.1f}s"
    seconds = round(ms / 1000)
    if seconds < 3_600:
        return f"{seconds // 60}m{seconds % 60:02}s"
    minutes = seconds // 60
    if minutes < 24 * 60:
        return f"{minutes // 60}h{minutes % 60:02}m"
    hours = minutes // 60
    return f"{hours // 24}d{hours % 24:02}h"


def whole_seconds(ms: float) -> str:
    """A duration that is counted on a screen: `42s`, `3m12s`."""
    return f"{int(ms) // 1000}s" if ms < 60_000 else duration(ms)


def ago(ms: float) -> str:
    """How long ago in one coarse unit: `now`, `12s ago`, `3m ago`, `5h ago`, `9d ago`."""
    seconds = int(ms / 1000)
    if seconds < 2:
        return "now"
    for unit, size, upto in (("s", 1, 60), ("m", 60, 3_600), ("h", 3_600, 86_400)):
        if seconds < upto:
            return f"{seconds // size}{unit} ago"
    return f"{seconds // 86_400}d ago"


def money(usd: float) -> str:
    """`$1.23`, in every view; `<$0.01` for less than a cent, so that a cheap model does not look free."""
    return "<$0.01" if 0 < usd < 0.01 else f"${usd:,.2f}"


def cost(usd: float, tokens: float) -> str:
    """As `money`; `no prices` where tokens were used and pi knew no price for any of them."""
    return "no prices" if usd == 0 and tokens > 0 else money(usd)


def count(number: float) -> str:
    """`950`, `12.3k`, `4.5M`."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(number) >= size * 0.99995:
            return f"{number / size:.1f}{unit}"
    return str(int(number))


def number(value: Any) -> float:
    """A finite number from a file that may hold anything; 0 for anything else."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e15:
        return value
    return 0
