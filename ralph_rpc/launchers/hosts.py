"""The machines of `--hosts`: which of them the next pi runs on, and which are left alone for a while. Pure.

Each has as many slots as its user gave it. One that fails is rested, longer each time, and what it was to do goes elsewhere.
Kept in memory only: a new runner tries them all again. Called by the runner; the options read `parse_hosts`.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

FIRST_REST_S = 30.0
LONGEST_REST_S = 1800.0
TAKEN_S = 2.0
"""Until it is looked again whether a slot has become free."""


def parse_hosts(texts: Iterable[str]) -> dict[str, int]:
    """`a:4` as {"a": 4}, in order; one slot where none is given. Raises ValueError."""
    found: dict[str, int] = {}
    for text in texts:
        match = re.fullmatch(r"([A-Za-z0-9_.@-]+|[A-Za-z0-9_.@-]*\[[0-9A-Fa-f:.%]+\])(?::([0-9]{1,4}))?", text.strip())
        if match is None or match[1].startswith("-") or match[2] == "0" or (match[2] and not int(match[2])):
            raise ValueError(f"expected HOST:SLOTS such as worker1:4, not {text!r}")
        if match[1] in found:
            raise ValueError(f"host {match[1]!r} is named twice")
        found[match[1]] = int(match[2] or 1)
    return found


@dataclass
class Host:
    """One of them."""

    name: str
    slots: int
    taken: int = 0
    failures: int = 0
    """In a row."""
    has_worked: bool = False
    rested_until: float = 0.0
    reason: str = ""
    """Why it is rested."""


class Hosts:
    """All of them. Times are seconds of one clock."""

    def __init__(self, slots: dict[str, int]) -> None:
        self._hosts = {name: Host(name, number) for name, number in slots.items()}

    def take(self, now: float) -> str | float:
        """The host with the largest part of its slots free, one of which is taken now; or the seconds until it is
        looked again.
        """
        awake = [host for host in self._hosts.values() if host.rested_until <= now]
        free = [host for host in awake if host.taken < host.slots]
        if not free:
            soonest = min(host.rested_until for host in self._hosts.values())
            return TAKEN_S if awake else max(TAKEN_S, soonest - now)
        best = max(free, key=lambda host: (host.failures == 0, 1 - host.taken / host.slots))
        best.taken += 1
        return best.name

    def give_back(self, name: str) -> None:
        """A slot is free again."""
        self._hosts[name].taken -= 1

    def worked(self, name: str) -> None:
        """Something runs there."""
        host = self._hosts[name]
        host.failures, host.has_worked, host.reason = 0, True, ""

    def failed(self, name: str, reason: str, now: float) -> float:
        """It is rested; for how many seconds."""
        host = self._hosts[name]
        host.failures += 1
        rest: float = min(LONGEST_REST_S, FIRST_REST_S * 2 ** min(host.failures - 1, 10))
        host.rested_until, host.reason = now + rest, reason
        return rest

    @property
    def have_hope(self) -> bool:
        """Whether one of them has worked, or has not been tried without success yet."""
        return any(host.has_worked or host.failures == 0 for host in self._hosts.values())

    def told(self) -> list[Host]:
        """As they are, in the user's order."""
        return list(self._hosts.values())
