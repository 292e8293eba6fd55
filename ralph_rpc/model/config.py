"""config.json: the options a loop was started with. `ralph_rpc/options` resolves them."""

from typing import Literal, NotRequired, TypedDict

from ralph_rpc.model.version import SchemaVersion


class Config(TypedDict):
    """Effective options; `null` means unset. Durations in milliseconds, 0 means no limit."""

    schemaVersion: NotRequired[SchemaVersion]
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
    maxWaitMs: NotRequired[int]
    """Longest wait for a provider, from its first failure on; 0 means no limit; missing: 8 days."""
    fallbackModels: NotRequired[list[str]]
    """PROVIDER/ID of the models to continue with while the loop's own is out, in this order."""
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
    keepSessions: NotRequired[int]
    """How many of pi's session files stay, the newest; missing: 100."""
    piMemory: NotRequired[int]
    """Bytes of resident memory from which pi is replaced between two iterations; 0: never; missing: 1 GiB."""
    shareCheckout: NotRequired[bool | None]
    """It was started although another loop works in the same checkout."""
    pi: list[str]
    """The command that is pi: one absolute path, or node and a script."""
    piVersion: str | None
    piArgs: list[str]
    """Passed to pi unchanged."""
    backend: NotRequired[Literal["rpc", "print"]]
    """print: each prompt gets a pi of its own, `pi -p --mode json`; missing: rpc."""
    launcher: NotRequired[str | None]
    """What starts pi elsewhere: a preset or the words of a prefix; null or missing: pi runs here."""
    launcherEnv: NotRequired[list[str]]
    """Names of variables whose values go to the far side, on stdin."""
    hosts: NotRequired[list[str]]
    """HOST:SLOTS of the machines that tickets are worked on."""
    engine: NotRequired[str | None]
    """What runs a job for each ticket: its kind, a colon and its own words; null or missing: pis of the runner's own."""
    hub: NotRequired[str | None]
    """The repository that the jobs clone and push to; null or missing: the project's own."""
    queueTimeoutMs: NotRequired[int]
    """Longest wait until something runs over there; 0 or missing: no limit."""
    leaseMs: NotRequired[int]
    """The far side ends pi when it has heard nothing for so long; missing: a minute."""
    tickets: NotRequired[str | None]
    """The folder of the tickets; null or missing: a task loop."""
    parallel: NotRequired[int]
    """Tickets worked on at the same time."""
    attempts: NotRequired[int]
    """At a ticket, before it is set aside; and the same number at its merge."""
    allowUntagged: NotRequired[bool | None]
    """Tickets without a component tag may run beside others; null: if the backlog has no such tag."""
    componentPrefix: NotRequired[str]
    """What component tags begin with; missing: `component:`."""
    assignees: NotRequired[list[str]]
    """The loop is limited to tickets that are assigned to one of these; empty: to anybody."""
    tags: NotRequired[list[str]]
    """The loop is limited to tickets that have one of these tags; empty: any."""
    takeInProgress: NotRequired[bool | None]
    """Tickets that are in progress, so that somebody works on them, may be started."""
    worktrees: NotRequired[bool | None]
    """A git worktree and branch for each ticket; null: if parallel is more than 1."""
    worktreesDir: NotRequired[str | None]
    """Folder below which the worktrees of tickets are made; null: the user's data folder."""
    keepWorktrees: NotRequired[bool | None]
    """A ticket's worktree and branch stay once it is merged and closed."""
    worktreeSetup: NotRequired[str | None]
    """Shell command that prepares a new worktree."""
    verifyClean: NotRequired[bool | None]
    """Verify a ticket in a checkout of its commit; null: where it made files that git ignores."""
    worktreeCopy: NotRequired[list[str]]
    """Untracked files to copy into each worktree, as globs from the top of the repository."""
    into: NotRequired[str | None]
    """The branch that finished tickets are merged into."""
    merge: NotRequired[bool | None]
    """False: finished tickets stay on their branches."""
    verifyParallel: NotRequired[int | None]
    """Verifications at one time; null: as many as there are, and one at a time once two have disturbed each other."""
    promptTemplate: NotRequired[str | None]
    """Replaces a ticket's text and rules in its prompt."""
    lessonsMax: NotRequired[int]
    only: NotRequired[list[str]]
    """Tickets that the loop is limited to; empty: all of them."""
    notify: NotRequired[str | None]
    """Shell command to run when the loop ends or needs a person, or `desktop`."""


Thinking = Literal["off", "minimal", "low", "medium", "high", "xhigh", "max"]
