"""The prompt of an iteration. Pure; called by the runner's core and by `start --dry-run`.

What is new comes first: operator messages, what cut the last iteration off, a refused completion, reflection when it is
due, the task, the rules. The prompt never starts with "/", which pi would take for a command.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ralph_rpc.model.config import Config
from ralph_rpc.prompts.phrases import BREAK, completion_rule, from_operator

DEFAULT_REFLECT = """\
Begin this iteration by looking back. Before any new work:

1. Read the task, its checklist and notes, and the recent history (`git log`, the diff).
2. Say what has been achieved, what keeps failing, and whether the work still serves the goals.
3. If the approach does not work, change it: write the new plan into the task file.
4. Correct the checklist: untick whatever is not really done.

Then continue with the most valuable next step.
"""

TASK_TEMPLATE = """\
# Goals

What should be true at the end, and why.

# Checklist

- [ ] first step
- [ ] second step

# Notes

Commands to build and test, files to look at, what to leave alone.
"""


@dataclass(frozen=True)
class PromptParts:
    """Everything that goes into one prompt."""

    iteration: int
    task: str
    task_path: str
    marker: str
    verify: str | None
    operator: Sequence[str] = ()
    refusal: str | None = None
    news: str | None = None
    """What cut the last iteration off, or how it nearly claimed completion."""
    reflection: str | None = None


def build(parts: PromptParts) -> str:
    """The whole prompt as pi gets it."""
    blocks: list[str] = []
    if parts.operator:
        blocks.append(from_operator(parts.operator))
    if parts.news:
        blocks.append(parts.news)
    if parts.refusal:
        blocks.append(parts.refusal)
    if parts.reflection:
        blocks.append(f"Reflection:\n\n{parts.reflection.strip()}")
    blocks.append(f"Task (iteration {parts.iteration}), from {parts.task_path}:\n\n{parts.task.strip()}")
    blocks.append(_rules(parts))
    return BREAK.join(blocks)


def first_prompt(config: Config, task: str, task_path: str, reflection: str | None = None) -> str:
    """The prompt of iteration 1, as `start --dry-run` shows it."""
    due = reflection if config["reflectEvery"] == 1 else None
    return build(PromptParts(1, task, task_path, config["marker"], config["verify"], reflection=due))


def refused(reason: str) -> str:
    """How the next prompt begins after a completion was claimed and refused."""
    return f"The last iteration claimed that the task is complete, but it is not:\n\n{reason}\n\nFix this first."


def _rules(parts: PromptParts) -> str:
    return (
        "Rules:\n\n"
        "- You work unattended in a loop. Each iteration starts with an empty context: what the next one should know "
        f"belongs in the project or in {parts.task_path} (tick its checklist, keep its notes short and accurate).\n"
        "- Take one sensible step, check it, and end your turn. Nobody will answer questions: decide, and write down "
        f"why.\n{completion_rule('task', parts.marker, parts.verify)}"
    )
