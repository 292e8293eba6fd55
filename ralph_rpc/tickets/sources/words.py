"""What the words mean that people and other tools write into tickets, beside those of `tk`. Pure; called by `parsed`.

A word that is not known never counts as closed, so that nothing starts too early and nothing is thought done that is not.
"""

import re
from functools import lru_cache

from ralph_rpc.tickets.ticket import PRIORITIES, Status

_STATUS: dict[Status, str] = {
    "open": "open opened new todo ready backlog pending planned unstarted notstarted reopened reopen",
    "in_progress": "inprogress progress doing wip started active working ongoing review inreview reviewing testing "
    "needsreview intesting indev indevelopment claimed",
    "closed": "closed close done complete completed cancelled canceled resolved fixed finished wontfix wontdo notplanned "
    "abandoned rejected declined duplicate invalid obsolete superseded archived merged shipped released delivered dropped "
    "deleted removed tombstone implemented verified deployed accepted",
}
_STATUS_OF: dict[str, Status] = {word: status for status, words in _STATUS.items() for word in words.split()}

_PRIORITY = (
    "critical urgent blocker highest asap",
    "high important major",
    "medium normal default moderate",
    "low minor",
    "lowest trivial backlog someday nice-to-have",
)
_PRIORITY_OF = {_word: number for number, _words in enumerate(_PRIORITY) for _word in _words.split()}
_NUMBER = re.compile(r"(?:p(?:rio(?:rity)?)?[ :_-]*)?([+-]?\d{1,6})(?:\.\d*)?(?![\w.])", re.IGNORECASE | re.ASCII)

_REMARK = re.compile(r"[(\[,:;/—–]| - ")
"""What begins a remark behind a word."""

_DEPENDENCIES = frozenset(
    [
        "dep",
        "deps",
        "dependency",
        "dependencies",
        "depend",
        "depends",
        "dependson",
        "dependentupon",
        "dependenton",
        "blockedby",
        "blockedon",
        "isblockedby",
        "blockers",
        "requires",
        "needs",
        "prerequisite",
        "prerequisites",
        "prereq",
        "prereqs",
        "after",
        "follows",
        "waitsfor",
        "waitson",
        "waitingfor",
        "waitingon",
        "predecessor",
        "predecessors",
    ]
)
_DEPENDENTS = frozenset(
    ["blocks", "blocking", "isblocking", "dependents", "requiredby", "neededby", "before", "successors", "unblocks"]
)
_NOTHING = frozenset({"", "-", "~", "null", "nil", "none", "n/a", "na", "no", "false", "nothing", "{}", "[]"})
_LONGEST_NOTHING = max(map(len, _NOTHING))
_KEPT = 1024
"""Words whose meaning is remembered: a backlog of thousands has some dozens."""


@lru_cache(_KEPT)
def status_of(word: str) -> Status | None:
    """The status that a word means; None if it is not known."""
    known = _STATUS_OF.get(_bare(word))
    if known is not None or "?" in word:
        return known
    # `✅ done`, `closed (duplicate of ab-1)`; nothing that is only half said counts as open.
    first = _STATUS_OF.get("".join(filter(str.isalnum, _REMARK.split(word, maxsplit=1)[0])).lower())
    return None if first == "open" else first


@lru_cache(_KEPT)
def says_status(key: str) -> bool:
    """Whether a key means the status, where there is none of the name that `tk` knows."""
    return _bare(key) in ("status", "state")


@lru_cache(_KEPT)
def priority_of(word: str) -> int:
    """The priority that a word or number means, at the nearest end where it lies outside; 2 if it means none."""
    number = _NUMBER.match(word.strip())
    if number is not None:
        return min(max(int(number[1]), PRIORITIES[0]), PRIORITIES[-1])
    said = word.strip().lower()
    return _PRIORITY_OF.get(said, _PRIORITY_OF.get(_REMARK.split(said, maxsplit=1)[0].strip(), 2))


@lru_cache(_KEPT)
def says_deps(key: str) -> bool:
    """Whether a key, which is not `deps`, looks as if it named what its ticket depends on."""
    return _bare(key) in _DEPENDENCIES


@lru_cache(_KEPT)
def says_dependents(key: str) -> bool:
    """Whether a key looks as if it named tickets that depend on its own."""
    return _bare(key) in _DEPENDENTS


def is_nothing(word: str) -> bool:
    """Whether a word says that there is nothing to be said."""
    return len(word) <= _LONGEST_NOTHING and word.lower() in _NOTHING


def _bare(word: str) -> str:
    """Without case, and without what stands between words."""
    return re.sub(r"[\s_'’-]+", "", word).lower()
