"""An inbox as its tests handle it."""

from pathlib import Path

from ralph_rpc.files.inbox import Claimed, Inbox, Rejected


def messages(commands: list[Claimed]) -> list[str]:
    return [c.body.get("message", c.verb) for c in commands]


def settle(inbox: Inbox) -> tuple[list[Claimed], list[Rejected]]:
    """Everything that comes when nothing changes any more; the clock is the test's."""
    commands: list[Claimed] = []
    rejected: list[Rejected] = []
    now = 0.0
    for _ in range(1000):
        scan = inbox.scan(now)
        commands += scan.commands
        rejected += scan.rejected
        for command in scan.commands:
            inbox.done(command)
        if not (scan.retry or scan.commands or scan.rejected):
            return commands, rejected
        now += 0.5
    raise AssertionError("the inbox never came to rest")


def left(box: Path) -> list[str]:
    return sorted(file.name for file in box.iterdir() if file.name != "rejected")
