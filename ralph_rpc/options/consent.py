"""What a project's file may set by itself, and what counts only once the user has agreed to it.

A project's file may choose how the work is done. What can run something, read something from elsewhere into a prompt,
or loosen a limit or a safeguard is the user's to allow. An option that is not named here is *guarded*, so that a new
one cannot be forgotten. Pure. Called by `resolve`, for `.ralph/config.toml` and `.tf/config/settings.json`, and for the
options of a loop that was made elsewhere.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

FREE = frozenset(
    (
        "assignee",
        "component-prefix",
        "fallback-model",
        "into",
        "lessons-max",
        "marker",
        "model",
        "only",
        "provider",
        "reflect-every",
        "tag",
        "thinking",
        "worktree",
        "worktree-copy",
    )
)
"""They choose among what the user has, and run nothing."""

SWITCHES = frozenset(("allow-untagged", "keep-worktrees", "merge", "worktrees"))
"""They choose as well, but where the user has chosen, no project turns them the other way."""

LIMITS = frozenset(
    (
        "attempts",
        "max-failures",
        "max-iterations",
        "max-cost",
        "max-tokens",
        "max-time",
        "max-wait",
        "iteration-timeout",
        "idle-timeout",
        "tool-timeout",
        "stall-after",
        "parallel",
        "pi-memory",
        "queue-timeout",
    )
)
"""They bound what a loop may use; without a value, or with 0, they do not."""

AMOUNTS = frozenset(("log-size", "log-keep", "keep-sessions", "verify-parallel"))
"""The same, but 0 is the least."""

HARMLESS: Mapping[str, tuple[object, ...]] = {"approve": (False,), "notify": ("desktop",), "take-in-progress": (False,)}
"""Values of guarded options that need nobody's word."""


class Guarded(NamedTuple):
    """A value that does not count before the user has agreed to it."""

    name: str
    """The option."""
    value: Any
    origin: str
    why: str


def needs_consent(name: str, value: Any, own: Any, origin: str) -> Guarded | None:
    """What the user has to agree to, None where nothing. `own` is what would count without this value."""
    if name in FREE or value == own or value in HARMLESS.get(name, ()):
        return None
    if name in SWITCHES:
        return None if own is None else Guarded(name, value, origin, "the opposite of your own setting")
    if name in LIMITS or name in AMOUNTS:
        if _bound(name, value) <= _bound(name, own):
            return None
        return Guarded(name, value, origin, "looser than your own limit")
    return Guarded(name, value, origin, _REASONS.get(name, "changes what is run or allowed"))


def _bound(name: str, value: float | None) -> float:
    return math.inf if value is None or (value == 0 and name in LIMITS) else value


_REASONS = {
    "pi": "is run instead of your pi",
    "launcher": "is run before pi",
    "engine": "runs jobs elsewhere",
    "hub": "gets the work, and says what jobs do",
    "verify": "is run by a shell",
    "notify": "is run by a shell",
    "worktree-setup": "is run by a shell",
    "extension": "is loaded into pi",
    "skill": "is loaded into pi",
    "approve": "lets pi load what lies in the project's .pi/",
    "ui-answers": "answers questions in your place",
    "pi-args": "is given to pi",
    "prompt-template": "replaces the prompt",
    "reflect": "is a file whose text becomes a prompt",
    "share-checkout": "lets two loops work on the same files",
}
