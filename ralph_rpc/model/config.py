"""config.json: the options a loop was started with. `ralph_rpc/options.py` resolves them."""

from typing import Literal, TypedDict


class Config(TypedDict):
    """Effective options; `null` means unset. Durations in milliseconds, 0 means no limit."""

    model: str | None
    provider: str | None
    thinking: str | None
    maxIterations: int
    maxCost: float | None
    maxTokens: int | None
    maxTimeMs: int | None
    iterationTimeoutMs: int
    idleTimeoutMs: int
    toolTimeoutMs: int
    maxFailures: int
    stallAfter: int
    """Iterations without any change after which the loop ends as stalled; 0 means never."""
    verify: str | None
    """Shell command that must exit 0 before a claimed completion counts."""
    marker: str
    reflectEvery: int
    """0 means never."""
    worktree: str | None
    """Branch."""
    extensions: list[str]
    skills: list[str]
    approve: bool | None
    """--approve / --no-approve of pi; null passes neither."""
    uiAnswers: dict[str, str | bool]
    """Answers to dialogs of pi's extensions by their title; others are cancelled."""
    logSize: int
    """Bytes at which events.jsonl is rotated."""
    logKeep: int
    """Rotated files kept beside the current one."""
    pi: list[str]
    """The command that is pi: one absolute path, or node and a script."""
    piVersion: str | None
    piArgs: list[str]
    """Handed to pi as they are."""


Thinking = Literal["off", "minimal", "low", "medium", "high", "xhigh", "max"]
