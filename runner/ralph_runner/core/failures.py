"""What a failed run means, by what a person must do about it, and how long to wait after it. Pure.

    wait    rate-limit, quota, overloaded, network   the loop waits, for the reset that is named or with growing gaps
    pay     billing                                  the loop waits and notifies; it resumes by itself once it is paid
    fix     auth, refused                            the loop ends: at once, or when the provider refused three times
    other   context, empty, hang, crash, other       the next iteration tries again; --max-failures in a row end the loop

The texts are providers' and pi's own, in English and, for providers that answer in it, in Chinese; others translate only
their web pages. The classes follow measured behaviour of pi 0.73.1 to 1.6.0. Called by the step when an iteration ended.
"""

import re
from dataclasses import dataclass

from ralph_rpc.model.iteration import ErrorKind
from ralph_runner.core.resets import names_reset

WAITS = frozenset[ErrorKind](("rate-limit", "overloaded", "network", "quota", "billing", "lost"))
"""The fault of the provider or of a far side, and it passes: the loop waits, as long as --max-wait allows, and no failure is
counted."""
NO_ANSWER = WAITS | frozenset[ErrorKind](("auth", "refused", "empty", "other"))
"""The model gave no usable answer: such an iteration is no work, whatever ended it."""

FIRST_BACKOFF_MS = 2_000
LONGEST_BACKOFF_MS = 600_000
FIRST_PROBE_MS = 60_000
LONGEST_PROBE_MS = 1_800_000
"""An exhausted account is asked again at gaps that grow up to 30 minutes."""
REFUSALS = 3
"""A request that was refused this often in a row is not repeated."""
RESTART_WINDOW_MS = 600_000
RESTART_BUDGET = 5
LONGEST_RESTART_MS = 60_000

_READ_CHARS = 16_384
_PASSING = (408, 409, 425)
"""Statuses of a request that came at a bad moment."""
_STATUS = re.compile(
    r"^\s*(?:server requested [^()]{1,40}\([^()]{1,40}\)\.\s*)?(?:error:?\s*)?(?:http\s*)?(\d{3})\b", re.IGNORECASE
)
"""Also behind pi's own words for a wait that is longer than it allows."""
_STATUS_WITHIN = re.compile(
    r"\b(?:status(?:[ _]?code)?|http|code|error|failed)[\"':=\s(]{1,4}([45]\d\d)\b", re.IGNORECASE
)
_BILLING = re.compile(
    r"payment.{0,3}required|insufficient.{0,3}(?:balance|credit|fund)|insufficient_quota|credit balance|balance is too low"
    r"|(?:out of|no|any|more|not enough|used all(?: available)?|exhausted|depleted|add|purchase|buy|prepa\w{1,8}) credits?\b"
    r"|credits? (?:are |is |have been |has been )?(?:depleted|exhausted|used up|required)"
    r"|check your (?:plan and )?billing|plans? (?:&|and) billing|billing.{0,3}(?:hard.{0,3}limit|not.{0,3}active|disabled|account|issue|required|error)"
    r"|billing to be enabled|enable billing|provided payment|no payment method|creditserror|over budget"
    r"|spend(?:ing)?[ _-]?(?:limit|cap)|budget.{0,20}exceeded|exceeded.{0,20}budget|overdue|arrears?\b|arrearage|unpaid|past due"
    r"|top[ -]?up\b|recharge|(?:subscription|package|membership).{0,30}(?:expired|inactive|required|cancell?ed)"
    r"|exceeded_current_quota|account is in good standing|key limit exceeded \(total"
    r"|out of (?:extra )?usage|from your extra usage|余额|欠费|充值",
    re.IGNORECASE,
)
_BEDROCK_400 = "Validation error:"
"""pi's words for it."""
_UNPAID = re.compile(
    r"insufficient.{0,3}(?:balance|credit|fund)|creditserror|no payment method|monthlylimiterror|userlimiterror|spending limit",
    re.IGNORECASE,
)
"""Money beyond doubt: some gateways say 401 for an empty account."""
_PLAN = re.compile(
    r"usage[ _]?limit|hit your (?:[\w.]{1,20} ){0,4}limit|(?:hour(?:ly)?|daily|weekly|monthly|session|plan|message|premium request)s?[ _-](?:limit|allowance|cap)\b"
    r"|per (?:hour|day|week|month) limit|out of (?:extra )?usage|使用上限",
    re.IGNORECASE,
)
"""Limits of a plan: no rate limit, whatever code stands beside them."""
_QUOTA = re.compile(
    r"\bquota\b|quota_?exceeded|(?<!connection )limit reached|reached (?:your|the|its|their).{0,40}limit|resource_exhausted"
    r"|exceeded your.{0,40}(?:limit|allowance)|额度|配额|限额",
    re.IGNORECASE,
)
_AUTH = re.compile(
    r"authentication[ _]error|no api key|authentication fail(?:ed|s)|(?:invalid|incorrect|wrong|missing|expired|revoked)[ _]?(?:x-)?api[ _-]?key"
    r"|api[ _-]key (?:is |was |has been )?(?:invalid|expired|not valid|missing|revoked|disabled|deactivated)|unauthori[sz]ed|unauthenticated|not logged in|please (?:re-?)?log ?in"
    r"|(?:oauth|access|refresh|security|authentication|session|sso) ?(?:token|session).{0,40}(?:expired|invalid|revoked|already been used)"
    r"|\btoken (?:is |has |was )(?:been )?(?:expired|revoked)|invalid_grant|extract accountid"
    r"|(?:sign|log)(?:ing)? in again|(?:could|can)(?: not|not) load .{0,30}credentials|unrecognizedclient"
    r"|permission[ _](?:denied|error)|access ?denied|\bforbidden\b|organization has been disabled"
    r"|身份验证|鉴权失败|令牌.{0,6}(?:过期|无效)|密钥.{0,6}(?:无效|错误)",
    re.IGNORECASE,
)
_TOO_LARGE = re.compile(r"request[ _]too[ _]large", re.IGNORECASE)
"""No wait makes it smaller, though some providers call it a rate limit."""
_CONTEXT = re.compile(
    r"context[ _](?:length|window|limit|size)|maximum context|prompt (?:is )?too long|too many (?:input )?tokens|input is too long"
    r"|exceeds? the (?:model'?s )?(?:maximum|max).{0,20}tokens|exceeds the limit of \d|exceeded model token limit|exceeds max length"
    r"|prompt length is \d|too large for model|range of input length|reduce the length",
    re.IGNORECASE,
)
_RATE = re.compile(
    r"rate.?limit|too many requests|requests per|tokens per min|throttl|concurren(?:t|cy).{0,20}limit|slow down"
    r"|速率限制|频率|频繁|请求过多|并发",
    re.IGNORECASE,
)
_OVERLOADED = re.compile(
    r"overload|over capacity|at capacity|capacity exceeded|server.?error|server had an error|upstream|unavailable|bad gateway|gateway time-?out"
    r"|internal.?error|high (?:demand|traffic)|(?:too|server.?|currently.?)busy|not ready|try again later|(?:re)?try your request"
    r"|provider.?returned.?(?:an.?)?error|stream error|engine (?:loop|core)|enginecore"
    r"|繁忙|过载|访问量过大",
    re.IGNORECASE,
)
_NETWORK = re.compile(
    r"^terminated|(?:cannot|could not|unable to|failed to) connect|\b(?:tls|ssl)\b|connection (?:error|refused|reset|closed|lost|aborted|timed)"
    r"|\b(?:econn\w+|etimedout|enotfound|eai_again|epipe|ehostunreach|enetunreach)\b|timed? ?out|fetch failed|network"
    r"|socket (?:hang up|closed|connection was closed)|websocket|ended (?:without|before)|error reading response|in json at position"
    r"|expected property name|unexpected (?:end|token)|certificate|getaddrinfo|und_err|premature close|other side closed"
    r"|stream (?:was interrupted|disconnected|failed|has been cancell?ed)|failed, reason:|reset before headers|did not get a response"
    r"|tunneling|chunked read|cut short",
    re.IGNORECASE,
)
_HTML = re.compile(r"<!doctype html|<html", re.IGNORECASE)
"""No API answers with a web page: it comes from something on the way to it."""
_NO_MODEL = re.compile(
    r"model.{0,80}(?:not.?found|does not exist|not exist|unknown|end of its life)|model_not_found|no such model|unknown model|invalid model"
    r"|model identifier is invalid|not a valid model|model .{0,60}is not supported",
    re.IGNORECASE,
)
_CONTENT = re.compile(
    r"content_filter|\bflagged\b|moderation|content management policy|model refused"
    r"|stopped with: (?:safety|prohibited|blocklist|spii|recitation|sensitive|guardrail|content_filtered)",
    re.IGNORECASE,
)
"""What the request or its answer says is not wanted: another try may go another way."""


@dataclass(frozen=True)
class Failure:
    """One failed run, as the loop sees it."""

    kind: ErrorKind
    message: str
    fatal: bool = False
    """No later attempt can succeed before a person has changed something."""


def classify(message: str) -> Failure:
    """The class of a provider's or pi's error text; a text that says nothing known is `other`.

    Money and quota before the status: providers answer 400, 403 and 429 for an empty account. A limit that names its
    reset is no bill: it passes by itself.
    """
    text = message[:_READ_CHARS]
    status = _STATUS.match(text) or _STATUS_WITHIN.search(text)
    code = int(status[1]) if status else 400 if text.startswith(_BEDROCK_400) else 0
    passes = names_reset(text)
    unpaid = (_UNPAID if code == 401 else _BILLING).search(text)
    if code == 402 or (unpaid and not passes):
        return Failure("billing", message)
    if code == 401:
        return Failure("auth", message, fatal=True)
    if _PLAN.search(text) or (_QUOTA.search(text) and not _RATE.search(text)):
        return Failure("quota", message)
    if code == 413 or _TOO_LARGE.search(text):
        return Failure("context", message)
    if code == 429 or _RATE.search(text):
        return Failure("rate-limit", message)
    if code == 403 and _CONTENT.search(text):
        return Failure("refused", message)
    if code == 403 and _HTML.search(text):
        return Failure("network", message)
    if code == 403 or _AUTH.search(text):
        return Failure("auth", message, fatal=True)
    if code == 404 or _NO_MODEL.search(text):
        return Failure("refused", message, fatal=True)
    if _CONTEXT.search(text):
        return Failure("context", message)
    if code >= 500 or (code < 400 and _OVERLOADED.search(text)):
        return Failure("overloaded", message)
    if code in _PASSING or (code < 400 and _NETWORK.search(text)):
        return Failure("network", message)
    if passes:
        return Failure("quota", message)  # whatever it is, it says when it is over
    if code >= 400 or _CONTENT.search(text):
        return Failure("refused", message)
    return Failure("other", message)


def backoff(failures: int, kind: ErrorKind, rand: float) -> int:
    """Milliseconds to wait after the n-th failure in a row: doubled each time, with jitter down to one half."""
    first = FIRST_PROBE_MS if kind in ("quota", "billing") else FIRST_BACKOFF_MS
    longest = LONGEST_PROBE_MS if kind in ("quota", "billing", "rate-limit") else LONGEST_BACKOFF_MS
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
