"""When a provider says that its limit ends: reset times as they are really written. Pure; called by the step.

    try again in ~287 min            resets 2:30am (America/New_York)       try again at Dec 17th, 2026 12:27 AM
    retry-after: 120                 resets Mon 9:00 AM                     "resets_at": 1764460800
    "retryDelay": "34.07s"           reset at 2026-11-30T00:00:00Z          Retry-After: Wed, 02 Dec 2026 07:28:00 GMT

A time counts only behind a word that announces it (`retry`, `reset`, `try again` …), so that other figures of a message
are not taken for one. A time of day without a zone is the machine's own, as tools that print one mean it; an ISO time
without one is UTC, in a Chinese text that of Beijing. Whatever a text holds, reading it takes linear time, raises
nothing and yields no time in the past.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo

_READ_CHARS = 16_384
"""Providers name a reset near the beginning; an HTML page behind it is not read."""
_MOST_WORDS = 40
_REACH_CHARS = 160
"""A reset stands at most this far behind the word that announces it."""

_WORD = re.compile(
    r"retry|try\s+again|reset|available|wait\s|again\s+(?:in|at|on)\b|reached\s*\||until\s|renews?\b|expires?\b|come\s+back|lifted"
    r"|regain|replenished|refreshed\s|cooldown|server\s+requested\s|将[在于]|请[在等\s\d]|等待",
    re.IGNORECASE,
)

_UNIT_MS = {
    "ms": 1,
    "s": 1_000,
    "m": 60_000,
    "h": 3_600_000,
    "d": 86_400_000,
    "w": 604_800_000,
    "秒": 1_000,
    "分": 60_000,
    "小": 3_600_000,
    "天": 86_400_000,
}
_UNIT = r"milliseconds?|msecs?|ms|seconds?|secs?|s|minutes?|mins?|m|hours?|hrs?|hr|h|days?|d|weeks?|w|秒|分钟?|小时|天"
_WORDS = ("a", "an", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_NUMBER = rf"\b(?:{'|'.join(_WORDS)})"
_AMOUNT = rf"(?:\d{{1,9}}(?:\.\d{{1,9}})?\s{{0,3}}|{_NUMBER}\s{{1,3}})(?:{_UNIT})(?![a-z])"
_SPAN = re.compile(
    rf"(?:^|[^\w.]|[一-鿿])(?:in|after|for|about|delay|reset\w*|wait)?[\"':=\s~≈]{{0,8}}(?:(?:about|approximately|around|another)\s+)?"
    rf"~?({_AMOUNT}(?:[\s,]{{0,3}}(?:and\s+)?{_AMOUNT}){{0,5}})",
    re.IGNORECASE,
)
_ONE_AMOUNT = re.compile(rf"(\d{{1,9}}(?:\.\d{{1,9}})?|{_NUMBER}(?=\s))\s{{0,3}}({_UNIT})(?![a-z])", re.IGNORECASE)
_BARE = re.compile(
    r"(?:after|in_?seconds|delay|in|seconds)([-_ ]?(?:ms|milliseconds?|seconds?|secs?))?[\"'\]]{0,2}\s{0,3}[:=]?\s{0,3}[\"'\[]{0,2}~?"
    r"(\d{1,12}(?:\.\d{1,9})?)(?![\d:]|\s{0,3}[a-z/]|-\d)",
    re.IGNORECASE,
)
_COUNTDOWN = re.compile(
    r"\bin[:\s~]{1,3}(?:(\d{1,3})\.)?(\d{1,3}):(\d\d)(?::(\d\d))?(?![\d:]|\s?[ap]\.?m)", re.IGNORECASE
)
_EPOCH = re.compile(r"(?<![\d.])(\d{10}|\d{13})(?:\.\d{1,9})?(?!\d)")
_ISO = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d)(?::(\d\d)(?:\.\d{1,9})?)?\s?(Z|UTC|GMT|[+-]\d\d:?\d\d)?", re.IGNORECASE
)

_CHINESE = re.compile("[一-鿿]")
_BEIJING = timezone(timedelta(hours=8))

_MONTHS = {
    name: number
    for number, name in enumerate(
        ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"], 1
    )
}
_DAYS = {name: number for number, name in enumerate(["mon", "tue", "wed", "thu", "fri", "sat", "sun"])}
_MONTH = (
    r"(jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?"
    r"|dec(?:ember)?)\.?"
)
_MONTH_DAY = re.compile(rf"\b{_MONTH}\s+(\d{{1,2}})(?:st|nd|rd|th)?(?:,?\s+(\d{{4}}))?(?!\d)", re.IGNORECASE)
_DAY_MONTH = re.compile(
    rf"\b(\d{{1,2}})(?:st|nd|rd|th)?(?:\s+of)?[\s-]{_MONTH}(?:,?[\s-](\d{{4}}))?(?!\d)", re.IGNORECASE
)
_DATE = re.compile(r"\b(\d{4})-(\d\d)-(\d\d)\b")
_EU_DATE = re.compile(r"\b(\d{1,2})\.(\d{1,2})\.(\d{4})\b")
_US_DATE = re.compile(r"\b(\d{1,2})/(\d{1,2})/(\d{4})\b")
_WEEKDAY = re.compile(
    r"\b(mon(?:day)?|tue(?:s(?:day)?)?|wed(?:nesday)?|thu(?:rs?(?:day)?)?|fri(?:day)?|sat(?:urday)?|sun(?:day)?)\b",
    re.IGNORECASE,
)
_CLOCK = re.compile(
    r"(?<![\d:./-])(?:(\d{1,2})(?::(\d\d))?(?::(\d\d))?\s?([ap])\.?m\b\.?|(\d{1,2}):(\d\d)(?::(\d\d))?(?![\d:])|\b(midnight|noon)\b)",
    re.IGNORECASE,
)
_ZONE = re.compile(
    r"\(?\b(?:([A-Z][A-Za-z]+(?:/[A-Za-z0-9_+-]+){1,2})|(?:UTC|GMT)\s?([+-]\d{1,2})(?::?(\d\d))?"
    r"|(UTC|GMT|PST|PDT|PT|EST|EDT|ET|CST|CDT|MST|MDT|CET|CEST|BST|JST|KST|IST|AEST|AEDT)\b)"
    r"|(?<=\d)\s?([+-]\d\d):?(\d\d)\b|(?i:\b(pacific|eastern|central|mountain)\b)"
)
_ZONES = {
    "UTC": "UTC",
    "GMT": "UTC",
    "PST": "America/Los_Angeles",
    "PDT": "America/Los_Angeles",
    "PT": "America/Los_Angeles",
    "pacific": "America/Los_Angeles",
    "EST": "America/New_York",
    "EDT": "America/New_York",
    "ET": "America/New_York",
    "eastern": "America/New_York",
    "CST": "America/Chicago",
    "CDT": "America/Chicago",
    "central": "America/Chicago",
    "MST": "America/Denver",
    "MDT": "America/Denver",
    "mountain": "America/Denver",
    "CET": "Europe/Paris",
    "CEST": "Europe/Paris",
    "BST": "Europe/London",
    "JST": "Asia/Tokyo",
    "KST": "Asia/Seoul",
    "IST": "Asia/Kolkata",
    "AEST": "Australia/Sydney",
    "AEDT": "Australia/Sydney",
}


def named_reset(text: str, wall_ms: int) -> int | None:
    """The moment, in epoch milliseconds and after `wall_ms`, when the limit ends by the provider's own words.

    None where the text names none, or only such as have passed. Of several the last: the nearer ones are hints for
    another limit, and a probe before the last is over would only be refused again.
    """
    found = [moment for part in _parts(text[:_READ_CHARS]) for moment in _moments(part, wall_ms) if moment > wall_ms]
    return max(found, default=None)


def names_reset(text: str) -> bool:
    """Whether the provider says that its limit ends by itself, be it that the moment has just passed."""
    return any(moment for part in _parts(text[:_READ_CHARS]) for moment in _moments(part, 0))


def _parts(text: str) -> Iterator[str]:
    """What stands behind each word that announces a reset, up to the next such word."""
    starts = [match.start() for match, _ in zip(_WORD.finditer(text), range(_MOST_WORDS), strict=False)]
    for start, end in zip(starts, [*starts[1:], len(text)], strict=False):
        yield text[start : min(end, start + _REACH_CHARS)]


def _moments(part: str, wall_ms: int) -> Iterator[int]:
    """Every moment that one part can mean; the most exact way of writing wins."""
    try:
        if (iso := _ISO.search(part)) is not None:
            yield _iso(iso)
        elif (countdown := _COUNTDOWN.search(part)) is not None:
            yield wall_ms + _counted_down(countdown)
        elif (dated := _dated(part, wall_ms)) is not None:
            yield dated
        elif (span := _span(part)) is not None:
            yield wall_ms + span
        elif (epoch := _EPOCH.search(part)) is not None:
            number = int(epoch[1])
            yield number if number >= 10**12 else number * 1_000
    except (ValueError, OverflowError, OSError):
        return  # no such day, or a year beyond what a calendar holds


def _span(part: str) -> int | None:
    """Milliseconds of `1h 20m`, `2 minutes and 5 seconds`, `~287 min`, `after: 120`, `an hour`."""
    worded, bare = _SPAN.search(part), _BARE.search(part)
    if worded is not None and (bare is None or worded.start(1) <= bare.start(2)):
        return int(sum(_milliseconds(amount, unit) for amount, unit in _ONE_AMOUNT.findall(worded[1])))
    if bare is None or _EPOCH.fullmatch(bare[2]):
        return None
    return int(float(bare[2]) * (1 if "m" in (bare[1] or "").lower() else 1_000))


def _milliseconds(amount: str, unit: str) -> float:
    word = unit.lower()
    name = "ms" if word.startswith(("ms", "milli")) else word[0]
    return (max(1, _WORDS.index(amount.lower()) - 1) if amount.isalpha() else float(amount)) * _UNIT_MS[name]


def _counted_down(match: re.Match[str]) -> int:
    """Milliseconds of `04:59:59` (hours first), of `12:30` (minutes and seconds) and of `2.04:59:59` (with days)."""
    days, first, second = int(match[1] or 0), int(match[2]), int(match[3])
    seconds = first * 60 + second if match[4] is None else first * 3_600 + second * 60 + int(match[4])
    return (days * 86_400 + seconds) * 1_000


def _iso(match: re.Match[str]) -> int:
    year, month, day, hour, minute = (int(match[n]) for n in range(1, 6))
    return _epoch_ms(
        datetime(year, month, day, hour, minute, int(match[6] or 0), tzinfo=_offset(match[7]) or _unnamed(match.string))
    )


def _unnamed(part: str) -> tzinfo:
    """The zone of an ISO time that names none."""
    return _BEIJING if _CHINESE.search(part) else UTC


def _offset(text: str | None) -> tzinfo | None:
    if text is None:
        return None
    if text.upper() in ("Z", "UTC", "GMT"):
        return UTC
    digits = text[1:].replace(":", "")
    span = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    return timezone(-span if text[0] == "-" else span)


def _dated(part: str, wall_ms: int) -> int | None:
    """A time of day, a day, or both: the next such moment."""
    zone, rest = _zone(part)
    clock = _CLOCK.search(rest)
    now = datetime.fromtimestamp(wall_ms / 1_000, zone) if zone is not None else datetime.fromtimestamp(wall_ms / 1_000)
    day = _day(rest, now)
    if clock is None and day is None:
        return None
    hour, minute, second = (0, 0, 0) if clock is None else _time_of_day(clock)
    if day is not None:
        return _epoch_ms(day.replace(hour=hour, minute=minute, second=second, microsecond=0))
    today = now.replace(hour=hour, minute=minute, second=second, microsecond=0)
    # In the hour that the end of summer time repeats, a time of day comes twice.
    candidates = (today.replace(fold=0), today.replace(fold=1), (today + timedelta(days=1)).replace(fold=0))
    return next((moment for moment in map(_epoch_ms, candidates) if moment > wall_ms), None)


def _time_of_day(clock: re.Match[str]) -> tuple[int, int, int]:
    if clock[8] is not None:
        return (0 if clock[8].lower() == "midnight" else 12), 0, 0
    if clock[4] is not None:
        hour = int(clock[1])
        if not 1 <= hour <= 12:
            raise ValueError(f"no hour of twelve: {hour}")
        return hour % 12 + (12 if clock[4].lower() == "p" else 0), int(clock[2] or 0), int(clock[3] or 0)
    return int(clock[5]), int(clock[6]), int(clock[7] or 0)


def _day(part: str, now: datetime) -> datetime | None:
    """The day that is named, at the time of day of `now`; without a year the one nearest to now."""
    if (match := _DATE.search(part)) is not None:
        return now.replace(year=int(match[1]), month=int(match[2]), day=int(match[3]))
    if (match := _EU_DATE.search(part)) is not None:
        return now.replace(year=int(match[3]), month=int(match[2]), day=int(match[1]))
    if (match := _US_DATE.search(part)) is not None:
        return now.replace(year=int(match[3]), month=int(match[1]), day=int(match[2]))
    if (match := _MONTH_DAY.search(part)) is not None:
        return _year(now, match[3], _MONTHS[match[1][:3].lower()], int(match[2]))
    if (match := _DAY_MONTH.search(part)) is not None:
        return _year(now, match[3], _MONTHS[match[2][:3].lower()], int(match[1]))
    if (match := _WEEKDAY.search(part)) is not None:
        ahead = (_DAYS[match[1][:3].lower()] - now.weekday()) % 7
        return _weekday(part, now, ahead)
    if re.search(r"\btomorrow\b", part, re.IGNORECASE):
        return now + timedelta(days=1)
    return None


def _year(now: datetime, year: str | None, month: int, day: int) -> datetime:
    if year is not None:
        return now.replace(year=int(year), month=month, day=day)
    near = (now.replace(year=now.year + more, month=month, day=day) for more in (-1, 0, 1))
    return min(near, key=lambda moment: abs(moment - now))


def _weekday(part: str, now: datetime, ahead: int) -> datetime:
    clock = _CLOCK.search(part)
    hour, minute, _ = (0, 0, 0) if clock is None else _time_of_day(clock)
    if ahead == 0 and (hour, minute) <= (now.hour, now.minute):
        ahead = 7
    return now + timedelta(days=ahead)


def _zone(part: str) -> tuple[tzinfo | None, str]:
    """The zone that the part names, and the part without its name. None: the machine's own."""
    match = _ZONE.search(part)
    if match is None:
        return None, part
    rest = f"{part[: match.start()]} {part[match.end() :]}"
    if match[1] is not None:
        try:
            return ZoneInfo(match[1]), rest
        except (ValueError, OSError, KeyError):
            return None, part
    if match[4] is not None or match[7] is not None:
        return ZoneInfo(_ZONES[match[4] or match[7].lower()]), rest
    hours, minutes = int(match[2] or match[5]), int(match[3] or match[6] or 0)
    span = timedelta(hours=abs(hours), minutes=minutes)
    return timezone(-span if hours < 0 else span), rest


def _epoch_ms(moment: datetime) -> int:
    """Times that the start of summer time skips are read as the clock showed before."""
    return int(moment.timestamp() * 1_000)
