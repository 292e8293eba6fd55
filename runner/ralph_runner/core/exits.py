"""How pi ended, in words. Pure."""

from ralph_runner.core.inputs import PiExited


def exit_text(event: PiExited) -> str:
    """How pi ended and the most telling line of its stderr, as one line."""
    code = event.code
    how = "killed" if code is None else f"signal {-code}" if code < 0 else f"exit code {code}"
    told = last_words(event.stderr_tail)
    return f"{how}: {told}" if told else how


def last_words(stderr: str) -> str:
    """The most telling line of it, at most 300 characters."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    told = next((line for line in reversed(lines) if "error" in line.lower()), lines[-1] if lines else "")
    return told[:300]
