"""Asking a person on a terminal to agree to what a project's files would run. Called by `start` and `resume`.

Without a terminal nobody is asked, and the error says how to agree.
"""

import sys
from collections.abc import Callable, Iterator
from typing import TypeVar

import click
import orjson

from ralph_rpc.errors import UsageError
from ralph_rpc.loops.consent import Subject, Untrusted, agree
from ralph_rpc.terminal.inert import inert

Done = TypeVar("Done")


def asking(act: Callable[[], Done]) -> Done:
    """The result of `act`, after the person has agreed to all that it raises Untrusted for."""
    while True:
        try:
            return act()
        except Untrusted as untrusted:
            if not (sys.stdin.isatty() and sys.stderr.isatty()):
                raise
            _ask(untrusted)


def described(subject: Subject) -> Iterator[str]:
    """What a person agrees to, as inert lines."""
    yield inert(str(subject.path), keep_newlines=False)
    width = max((len(one.name) for one in subject.lines), default=0)
    for one in subject.lines:
        value = inert(orjson.dumps(one.value).decode(), keep_newlines=False)
        place = one.origin.partition(" ")[2]
        where = f"{place}: " if place else ""
        yield f"  {where}{one.name:{width}} = {value}   {one.why}"
    if subject.loop is not None:
        yield "  and all else that this loop was told: its task, its messages"


def _ask(untrusted: Untrusted) -> None:
    click.echo(inert(f"{untrusted.message}:", keep_newlines=False), err=True)
    for line in described(untrusted.subject):
        click.echo(line, err=True)
    if not click.confirm("Do you agree to this? It will run with your rights", err=True):
        raise UsageError("you have not agreed, so nothing was started")
    agree(untrusted.subject)
