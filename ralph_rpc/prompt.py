"""The prompt of an iteration. Pure; called by the runner's core and by `start --dry-run`.

Order, so that what is new comes first: operator messages, a refused completion, reflection when it is due,
the task, the rules. The prompt never starts with "/", which pi would take for a command.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ralph_rpc.model.config import Config

DEFAULT_REFLECT = """\
This iteration begins with a look back. Before any new work:

1. Read the task, its checklist and notes, and the recent history (`git log`, the diff).
2. Say what has been achieved, what keeps failing, and whether the work still serves the goals.
3. If the approach does not work, change it: write the new plan into the task file.
4. Correct the checklist so that it tells the truth: untick what is not really done.

Then go on with the most valuable next step.
"""

TASK_TEMPLATE = """\
# Goals

What should be true in the end, and why.

# Checklist

- [ ] first step
- [ ] second step

# Notes

Commands to build and test, files to look at, what to leave alone.
"""


@dataclass(frozen=True)
class PromptParts:
    """All that goes into one prompt."""

    iteration: int
    task: str
    task_path: str
    marker: str
    verify: str | None
    operator: Sequence[str] = ()
    refusal: str | None = None
    reflection: str | None = None


def build(parts: PromptParts) -> str:
    """The whole prompt as pi gets it."""
    blocks: list[str] = []
    if parts.operator:
        lines = "\n\n".join(parts.operator)
        blocks.append(f"Message from the operator, to be followed first:\n\n{lines}")
    if parts.refusal:
        blocks.append(parts.refusal)
    if parts.reflection:
        blocks.append(f"Reflection:\n\n{parts.reflection.strip()}")
    blocks.append(f"Task (iteration {parts.iteration}), from {parts.task_path}:\n\n{parts.task.strip()}")
    blocks.append(_rules(parts))
    return "\n\n---\n\n".join(blocks)


def first_prompt(config: Config, task: str, task_path: str, reflection: str | None = None) -> str:
    """The prompt of iteration 1, as `start --dry-run` shows it."""
    due = reflection if config["reflectEvery"] == 1 else None
    return build(PromptParts(1, task, task_path, config["marker"], config["verify"], reflection=due))


def refused(reason: str) -> str:
    """The next prompt's first words after a completion was claimed and refused."""
    return f"The last iteration said that the task is complete, but it is not:\n\n{reason}\n\nMend this first."


def _rules(parts: PromptParts) -> str:
    check = f" It is then checked with `{parts.verify}`." if parts.verify else ""
    return (
        "Rules:\n\n"
        "- You work unattended in a loop. Each iteration starts with an empty context: what the next one should "
        f"know belongs into the project or into {parts.task_path} (tick its checklist, keep its notes short and true).\n"
        "- Do one sensible step, check it, and end your turn. Nobody answers questions: decide, and note why.\n"
        "- Only when the whole task is done and checked, end your last message with this line, alone:\n\n"
        f"{parts.marker}\n\n"
        f"Otherwise don't write that line.{check}"
    )
