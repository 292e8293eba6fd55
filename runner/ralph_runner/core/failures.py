"""What a failure is, and how long to wait after it. Pure; called by the step when an iteration has ended.

The texts are providers' and pi's own; the classes follow measured behaviour of pi 0.73.1 to 1.5.2: quota before
status codes (some providers answer 400 or 429 for an empty account), then the leading three-digit status.
"""

import re
from dataclasses import dataclass

from ralph_rpc.clock import parse_iso
from ralph_rpc.model.iteration import ErrorKind

TRANSIENT: frozenset[ErrorKind] = frozenset({"rate-limit", "overloaded", "network", "quota"})
"""Not the task's fault: these iterations don't count, and the loop waits before the next."""

FIRST_BACKOFF_MS = 2_000
LONGEST_BACKOFF_MS = 600_000
QUOTA_BACKOFF_MS = 900_000
LONGEST_QUOTA_MS = 3_600_000
LONGEST_NAMED_WAIT_MS = 7 * 24 * 3_600_000
RESTART_WINDOW_MS = 600_000
RESTART_BUDGET = 5
LONGEST_RESTART_MS = 60_000

_STATUS = re.compile(r"^\s*(\d{3})\b")
_QUOTA = re.compile(r"insufficient_quota|\bquota\b|billing|credit balance|usage limit|payment required", re.IGNORECASE)
_AUTH = re.compile(
    r"authentication_error|no api key|authentication failed|invalid[ _]api[ _]key|incorrect api key|unauthorized", re.IGNORECASE
)
_CONTEXT = re.compile(r"context[ _](length|window)|maximum context|prompt is too long|too many tokens", re.IGNORECASE)
_RATE = re.compile(r"rate.?limit|too many requests", re.IGNORECASE)
_OVERLOADED = re.compile(r"overloaded|server.?error|service unavailable|bad gateway|internal error", re.IGNORECASE)
_NETWORK = re.compile(
    r"^terminated|connection error|connection (refused|reset)|econn|timed? ?out|fetch failed|socket hang up|"
    r"network|ended (without|before)|error reading response|in json at position|expected property name",
    re.IGNORECASE,
)
_NO_MODEL = re.compile(r"model.{0,80}(not.?found|does not exist|unknown)|model_not_found|no such model", re.IGNORECASE)

_UNITS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_WORDS = {"milli": "ms", "sec": "s", "min": "m", "hour": "h", "day": "d"}
_ISO = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:?\d\d)?")
_RELATIVE = re.compile(
    r"(?:retry[- _]after(?:[- _](?:seconds|secs|ms))?|try again in|retry in|resets? in|reset[s_]*_?in_seconds|available in)"
    r"[\"':=\s]*((?:\d+(?:\.\d+)?\s*(?:milliseconds?|ms|seconds?|secs?|s|minutes?|mins?|m|hours?|hrs?|h|days?|d)?\s*(?:,|and)?\s*)+)",
    re.IGNORECASE,
)
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)", re.IGNORECASE)
_EPOCH = re.compile(r"reset[a-z_ -]*[\"':=\s]+(\d{10}|\d{13})\b", re.IGNORECASE)


@dataclass(frozen=True)
class Failure:
    """One failed run, as the loop sees it."""

    kind: ErrorKind
    message: str
    fatal: bool = False
    """No later attempt can succeed before a person has changed something."""


def classify(message: str) -> Failure:
    """The class of a provider's or pi's error text; unknown texts are `other`."""
    status = _STATUS.match(message)
    code = int(status.group(1)) if status else 0
    if _QUOTA.search(message) and code not in (401, 403):
        return Failure("quota", message)
    if code in (401, 403) or _AUTH.search(message):
        return Failure("auth", message, fatal=True)
    if code == 404 or _NO_MODEL.search(message):
        return Failure("other", message, fatal=True)
    if _CONTEXT.search(message):
        return Failure("context", message)
    if code == 429 or _RATE.search(message):
        return Failure("rate-limit", message)
    if code >= 500 or _OVERLOADED.search(message):
        return Failure("overloaded", message)
    if code == 408 or _NETWORK.search(message):
        return Failure("network", message)
    return Failure("other", message)


def named_reset(message: str, wall_ms: int) -> int | None:
    """Epoch milliseconds of the reset that the text names, if it names one in the future."""
    found: int | None = None
    if (epoch := _EPOCH.search(message)) is not None:
        number = int(epoch.group(1))
        found = number if number > 10**12 else number * 1000
    elif (relative := _RELATIVE.search(message)) is not None:
        unit = "ms" if re.search(r"ms[\"':=\s]*$", relative.group(0)[: relative.start(1) - relative.start()]) else "s"
        found = wall_ms + _span(relative.group(1), unit)
    elif re.search(r"reset|try again|available|retry", message, re.IGNORECASE) and (moment := _ISO.search(message)):
        found = parse_iso(moment.group(0))
    if found is None or found <= wall_ms:
        return None
    return min(found, wall_ms + LONGEST_NAMED_WAIT_MS)


def _span(text: str, bare_unit: str) -> int:
    """Milliseconds of "1h 20m", "90" (in `bare_unit`), "2 minutes and 5 seconds"."""
    total = 0.0
    for amount, word in _AMOUNT.findall(text):
        word = word.lower()
        unit = next((u for stem, u in _WORDS.items() if word.startswith(stem)), None)
        if unit is None:
            unit = bare_unit if not word else "h" if word.startswith("hr") else word
        total += float(amount) * _UNITS.get(unit, 1_000)
    return int(total)


def backoff(failures: int, kind: ErrorKind, rand: float) -> int:
    """Milliseconds to wait after the n-th failure in a row: doubled each time, with jitter down to one half."""
    first, longest = (
        (QUOTA_BACKOFF_MS, LONGEST_QUOTA_MS) if kind == "quota" else (FIRST_BACKOFF_MS, LONGEST_BACKOFF_MS)
    )
    return _jitter(min(longest, first * 2 ** min(max(failures - 1, 0), 20)), rand)


def restart_delay(restarts: int, rand: float) -> int:
    """Milliseconds before pi is started again after its n-th recent crash: 1 s, 2 s, 4 s … 60 s, with jitter."""
    return _jitter(min(LONGEST_RESTART_MS, 1_000 * 2 ** min(max(restarts - 1, 0), 10)), rand)


def recent(restarts: tuple[int, ...], mono: int) -> tuple[int, ...]:
    """The restarts that still count against the budget. Monotonic: setting the clock forgives no crash loop."""
    return tuple(at for at in restarts if mono - at <= RESTART_WINDOW_MS)


def restarts_kept(restarts: tuple[int, ...], mono: int, wall_ms: int) -> list[int]:
    """Restarts as they outlive the runner: in epoch milliseconds."""
    return [wall_ms - (mono - at) for at in restarts]


def restarts_found(kept: list[int], mono: int, wall_ms: int) -> tuple[int, ...]:
    """Restarts that an earlier runner kept. One in the future has just been: the clock was set back since."""
    return recent(tuple(mono - max(0, wall_ms - at) for at in kept), mono)


def _jitter(full: int, rand: float) -> int:
    return int(full * (0.5 + 0.5 * rand))
