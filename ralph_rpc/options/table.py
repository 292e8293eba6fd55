"""The options of `start` and `resume`: one table, from which command line, environment and TOML files read.

A new option is one row here. `flags` declares the rows for click, `resolve` and `toml` read values by them. Pure but
for the files that a value points at.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from ralph_rpc.errors import UsageError
from ralph_rpc.model.config import Thinking
from ralph_rpc.options.kinds import (
    ANSWERS,
    ARGUMENTS,
    BACKEND,
    BOOLEAN,
    COMMAND,
    COUNT,
    DURATION,
    ENGINE,
    FILE,
    FOLDER,
    HOSTS,
    LABELS,
    LAUNCHER,
    LEASE,
    LIMIT,
    LINE,
    MEMORY,
    MODELS,
    MONEY,
    NAMES,
    NOTIFY,
    PATHS,
    PROGRAM,
    SIZE,
    THINKING,
    TOKENS,
    VARIABLES,
    WHOLE,
    Kind,
    Wrong,
)


@dataclass(frozen=True)
class Option:
    """One option: `--<name>`, `RALPH_<NAME>` and the TOML key `<name>` are the same."""

    name: str
    key: str
    """Its key in Config; `reflect` has none, its text becomes reflect.md."""
    kind: Kind
    help: str
    default: str | None = None
    """As it would be typed; None is unset."""
    short: str | None = None
    value: str = ""
    """What the help calls its value, where that of its kind says too little."""

    @property
    def param(self) -> str:
        return self.name.replace("-", "_")

    @property
    def env(self) -> str:
        return "RALPH_" + self.param.upper()

    @property
    def is_list(self) -> bool:
        return self.kind in (PATHS, NAMES, LABELS, MODELS, VARIABLES, HOSTS, ARGUMENTS)

    @property
    def default_value(self) -> Any:
        """What Config holds where nobody gives the option."""
        if self.default is not None:
            return self.kind.parse(self.default, Path("/"))
        if self.is_list or self.kind is PROGRAM:
            return []
        return {} if self.kind is ANSWERS else None

    def is_given(self, cli: Mapping[str, object]) -> bool:
        """Whether the command line gives it; `cli` holds click's parameters, of which None and () are not given."""
        return cli.get(self.param) not in (None, ())

    def parse(self, texts: Sequence[str], folder: Path, origin: str) -> Any:
        """The value from its texts (more than one only for lists); UsageError that names the origin."""
        try:
            if self.kind in (PATHS, NAMES, LABELS, MODELS, VARIABLES, HOSTS):
                return [self.kind.parse(text, folder) for text in texts]
            return self.kind.parse(texts[0], folder)
        except Wrong as error:
            raise UsageError(f"{origin}: {error}") from None


OPTIONS: tuple[Option, ...] = (
    Option("model", "model", LINE, "The model, as pi names it."),
    Option("provider", "provider", LINE, "The provider, as pi names it."),
    Option("thinking", "thinking", THINKING, f"Thinking level: {', '.join(get_args(Thinking))}."),
    Option(
        "fallback-model",
        "fallbackModels",
        MODELS,
        "Model to continue with while the others wait more than 5 minutes; can be repeated.",
    ),
    Option("max-iterations", "maxIterations", WHOLE, "Stop after N iterations; 0: no limit.", "50", "-n"),
    Option(
        "max-cost",
        "maxCost",
        MONEY,
        "Stop once this many US dollars are spent; needs a model with prices, or --max-tokens.",
    ),
    Option(
        "max-tokens", "maxTokens", TOKENS, "Stop once this many tokens are used: input, output and cache (500k, 2M)."
    ),
    Option("max-time", "maxTimeMs", LIMIT, "Stop after this time (30s, 10m, 2h, 1d)."),
    Option("iteration-timeout", "iterationTimeoutMs", DURATION, "Longest time for one iteration; 0: no limit.", "2h"),
    Option("idle-timeout", "idleTimeoutMs", DURATION, "Longest time pi may be silent; 0: no limit.", "15m"),
    Option(
        "tool-timeout",
        "toolTimeoutMs",
        DURATION,
        "Longest time for a silent tool call or a verify run; 0: no limit.",
        "1h",
    ),
    Option("max-failures", "maxFailures", WHOLE, "End the loop after N failed iterations in a row.", "10"),
    Option("max-wait", "maxWaitMs", DURATION, "Longest wait for a provider's reset or payment; 0: no limit.", "8d"),
    Option("stall-after", "stallAfter", WHOLE, "End the loop after N iterations that changed nothing; 0: never.", "5"),
    Option("verify", "verify", COMMAND, "Shell command that must exit 0 before the task counts as complete."),
    Option(
        "marker",
        "marker",
        LINE,
        "The line that ends an answer to say the task is complete.",
        "<promise>COMPLETE</promise>",
    ),
    Option("reflect-every", "reflectEvery", WHOLE, "Make every Nth iteration a reflection; 0: never.", "0"),
    Option("reflect", "", FILE, "File with the reflection prompt; needs --reflect-every."),
    Option(
        "worktree", "worktree", LINE, "Work in a git worktree of this branch; it is created if missing.", value="BRANCH"
    ),
    Option("share-checkout", "shareCheckout", BOOLEAN, "Start even though another loop works in this checkout."),
    Option("parallel", "parallel", COUNT, "Work on up to N tickets at the same time.", "1"),
    Option("attempts", "attempts", COUNT, "Set a ticket aside after N attempts.", "3"),
    Option("only", "only", NAMES, "Work on this ticket only, by its id or a part of it; can be repeated.", value="ID"),
    Option(
        "assignee", "assignees", LABELS, "Work only on tickets assigned to this person; can be repeated.", value="NAME"
    ),
    Option("tag", "tags", LABELS, "Work only on tickets with this tag; can be repeated.", value="TAG"),
    Option("take-in-progress", "takeInProgress", BOOLEAN, "Also take tickets that are in progress already."),
    Option("component-prefix", "componentPrefix", LINE, "What component tags begin with.", "component:"),
    Option(
        "allow-untagged",
        "allowUntagged",
        BOOLEAN,
        "Let tickets without a component tag run beside others [if no ticket has one].",
    ),
    Option("worktrees", "worktrees", BOOLEAN, "Give each ticket a git worktree and a branch [if --parallel > 1]."),
    Option("worktrees-dir", "worktreesDir", FOLDER, "Folder for the worktrees [in the user's data folder]."),
    Option("keep-worktrees", "keepWorktrees", BOOLEAN, "Keep a ticket's worktree and branch once it is closed."),
    Option("worktree-setup", "worktreeSetup", COMMAND, "Shell command that prepares each new worktree."),
    Option(
        "verify-clean",
        "verifyClean",
        BOOLEAN,
        "Verify a ticket in a fresh checkout of its commit [if it made what no commit takes along].",
    ),
    Option(
        "worktree-copy",
        "worktreeCopy",
        NAMES,
        "Untracked files to copy into each worktree (glob); can be repeated.",
        value="GLOB",
    ),
    Option("into", "into", LINE, "Branch to merge finished tickets into [the one checked out].", value="BRANCH"),
    Option("merge", "merge", BOOLEAN, "Merge finished tickets, or leave them on their branches [merge]."),
    Option(
        "verify-parallel",
        "verifyParallel",
        COUNT,
        "Run at most N verify commands at once [until two disturb each other].",
    ),
    Option(
        "prompt-template", "promptTemplate", COMMAND, "Prompt for each ticket, such as '/tf {id} --auto'.", value="TEXT"
    ),
    Option("lessons-max", "lessonsMax", WHOLE, "Keep at most N lessons from earlier tickets.", "50"),
    Option(
        "notify",
        "notify",
        NOTIFY,
        "Command to run when the loop ends or needs you; or desktop, ntfy:TOPIC-URL, webhook:URL.",
    ),
    Option("extension", "extensions", PATHS, "A pi extension to load; can be repeated."),
    Option("skill", "skills", PATHS, "A pi skill to load; can be repeated."),
    Option("approve", "approve", BOOLEAN, "Have pi trust, or not trust, the project's own settings (.pi/)."),
    Option("ui-answers", "uiAnswers", ANSWERS, "Answers to dialogs of pi extensions, by title."),
    Option("log-size", "logSize", SIZE, "Rotate events.jsonl at this size.", "256M"),
    Option("log-keep", "logKeep", WHOLE, "Keep N rotated logs.", "4"),
    Option("keep-sessions", "keepSessions", WHOLE, "Keep the pi sessions of the last N iterations.", "100"),
    Option(
        "pi-memory", "piMemory", MEMORY, "Replace pi between iterations once it uses this much memory; 0: never.", "1G"
    ),
    Option("pi", "pi", PROGRAM, "The pi to run."),
    Option(
        "backend",
        "backend",
        BACKEND,
        "rpc, or print: a one-shot pi (pi -p) for each prompt, which takes no messages while it works.",
        "rpc",
    ),
    Option(
        "launcher",
        "launcher",
        LAUNCHER,
        "Run pi elsewhere: srun[:ARGS], ssh:HOST, bwrap[:ARGS], podman:IMAGE, docker:IMAGE, kubectl:IMAGE, or words to put"
        " before pi's, with {name}, {ticket}, {cwd} and {job}.",
    ),
    Option(
        "hosts",
        "hosts",
        HOSTS,
        "Machines to work on tickets by ssh, each with its number of slots (a:4,b:4); --launcher may say how, with {host}.",
    ),
    Option(
        "launcher-env",
        "launcherEnv",
        VARIABLES,
        "Variables of your environment that pi needs over there, such as keys; can be repeated.",
    ),
    Option(
        "engine",
        "engine",
        ENGINE,
        "Tickets: a job for each, in a clone: local, slurm, pbs, lsf, flux, kubernetes:IMAGE; more words as slurm:partition=cpu.",
    ),
    Option(
        "hub",
        "hub",
        LINE,
        "The repository that jobs clone and push to, as an address or a path [with --engine: the project's own].",
    ),
    Option("queue-timeout", "queueTimeoutMs", DURATION, "Longest wait for the launcher to start pi; 0: no limit.", "0"),
    Option(
        "lease",
        "leaseMs",
        LEASE,
        "With --launcher: pi is ended over there after so long without a word from here.",
        "1m",
    ),
    Option("pi-args", "piArgs", ARGUMENTS, "More arguments for pi, given after --."),
)
BY_NAME = {option.name: option for option in OPTIONS}
