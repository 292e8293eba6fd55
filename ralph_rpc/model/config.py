"""config.json: the options a loop was started with. `ralph_rpc/options.py` resolves them."""

from typing import Literal, NotRequired, TypedDict


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
    tickets: NotRequired[str | None]
    """The folder of the tickets; null or missing: a task loop."""
    parallel: NotRequired[int]
    """Tickets worked on at the same time."""
    attempts: NotRequired[int]
    """Of a ticket; then it is set aside. Of its merge as many again."""
    allowUntagged: NotRequired[bool | None]
    """Tickets without a component tag may run beside others."""
    worktrees: NotRequired[bool | None]
    """A git worktree and branch for each ticket; null: if parallel is more than 1."""
    worktreeSetup: NotRequired[str | None]
    """Shell command that makes a new worktree ready for work."""
    worktreeCopy: NotRequired[list[str]]
    """Files that are not in git, as globs from the top of the repository, that come along into a worktree."""
    into: NotRequired[str | None]
    """The branch that finished tickets are merged into."""
    merge: NotRequired[bool | None]
    """False: finished tickets stay on their branches."""
    promptTemplate: NotRequired[str | None]
    """What takes the place of a ticket's text and rules in its prompt."""
    lessonsMax: NotRequired[int]
    only: NotRequired[list[str]]
    """Tickets that the loop is limited to; empty: all of them."""
    notify: NotRequired[str | None]
    """Shell command that is told what a person should know, or `desktop`."""


Thinking = Literal["off", "minimal", "low", "medium", "high", "xhigh", "max"]
