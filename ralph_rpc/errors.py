"""Failures that a person can act on, and the exit codes of the program.

Raised anywhere, caught once: `cli/main.py` prints `ralph-rpc: <message>. <hint>` as one line on stderr
and exits with `code`. Anything else that escapes is a bug, exits with `INTERNAL_ERROR` and leaves a crash log.
"""

OK = 0
ENDED_IN_ERROR = 1
USAGE = 2
NO_SUCH_LOOP = 3
ALREADY_RUNNING = 4
PI_UNUSABLE = 5
NOT_RUNNING = 6
STOPPED = 10
NOT_ALL_DONE = 11
"""A ticket loop has done what it could: tickets are left that cannot be read, or are set aside."""
INTERNAL_ERROR = 70
"""EX_SOFTWARE of sysexits.h: a bug of ours."""
TIMED_OUT = 124
"""As timeout(1) has it."""
INTERRUPTED = 130


class RalphError(Exception):
    """What went wrong (`message`), what to do about it (`hint`), and the exit code.

    Both texts are one line without a closing full stop.
    """

    def __init__(self, message: str, hint: str = "", code: int = ENDED_IN_ERROR) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code


class UsageError(RalphError):
    """A wrong option, name, path or config key: nothing was started."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint, USAGE)


class NoSuchLoop(RalphError):
    """No loop of that name here or in the registry, or several of them."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint, NO_SUCH_LOOP)


class NotRunning(RalphError):
    """No runner is there that could do what is asked."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint, NOT_RUNNING)


class AlreadyRunning(RalphError):
    """A living runner holds the loop."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint, ALREADY_RUNNING)


class PiUnusable(RalphError):
    """pi is missing, too old, has no model or no key, or ended before its first answer."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint, PI_UNUSABLE)
