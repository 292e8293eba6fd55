"""What the prompts of tasks and of tickets say in the same words. Pure; called by `task`, `ticket` and the runner."""

from collections.abc import Sequence

from ralph_rpc.model.iteration import Iteration
from ralph_rpc.terminal.inert import inert

BREAK = "\n\n---\n\n"
"""Between two parts of a prompt."""


def from_operator(messages: Sequence[str]) -> str:
    """The messages of a person, which head the prompt."""
    return "Message from the operator. Follow it before anything else:\n\n" + "\n\n".join(messages)


def cut_off(record: Iteration) -> str | None:
    """What the next prompt says of an iteration that something ended before it ended itself; None where nothing did.

    Not told is an abort that a person ordered: they know why.
    """
    if record["outcome"] not in ("timeout", "crashed") and record.get("errorKind") != "context":
        return None
    why = _one_line(record.get("error") or "no reason is known", 300)
    calls = [f"`{_one_line(call, 220)}`" for call in record.get("cutOff", [])]
    if not calls:
        return f"The last iteration was cut off: {why}."
    were = f"{calls[0]} was" if len(calls) == 1 else f"{', '.join(calls[:-1])} and {calls[-1]} were"
    return (
        f"The last iteration was cut off: {why}. {were} running then. If that waits for input or never ends, do it "
        "another way: without a question, an editor or a pager, with a time limit."
    )


def _one_line(text: str, longest: int) -> str:
    return inert(" ".join(text.split()), keep_newlines=False)[:longest].rstrip(".").replace("`", "'")


def completion_rule(what: str, marker: str, verify: str | None) -> str:
    """How the agent claims that the task or the ticket (`what`) is done."""
    check = f" When you write it, your work is checked with `{verify}`." if verify else ""
    return (
        f"- Only when the whole {what} is done and checked, end your last message with this line on its own:\n\n"
        f"{marker}\n\n"
        f"Otherwise, do not write that line.{check}"
    )
