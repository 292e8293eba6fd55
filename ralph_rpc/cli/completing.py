"""What the shell offers when Tab is pressed behind an option: tickets, models that pi knows, names of schemas.

click calls these only while it completes, so what they need is imported in them. Whatever is missing or broken, nothing is
offered and nothing is said: there is no place where a complaint could be read. They write nothing, and run nothing
that a project names.
"""

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import click

from ralph_rpc.errors import RalphError
from ralph_rpc.machine import nofollow

MODELS_S = 10
"""Longest wait for pi's list of models; it takes about half a second."""


def complete_tickets(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Tickets of the project that are not closed, and those that its loops have worked on."""
    from ralph_rpc.loops.find import find_project, loops_of, project_of
    from ralph_rpc.tickets.sources.opening import find_source, open_source

    start = ctx.params.get("project") or Path.cwd()
    found: set[str] = set()
    where = find_project(start)
    for paths in loops_of(where) if where is not None else ():
        # A record whose ticket has an odd id has a name of its own, with a plus.
        records = (file for file in nofollow.entries(paths.tickets) if file.suffix == ".json")
        found |= {file.stem for file in records if "+" not in file.stem}
    with suppress(RalphError, OSError):
        project = project_of(start)
        backlog = open_source(project, find_source(project, ctx.params.get("tickets") or "")).scan()
        found |= {ticket.id for ticket in backlog.tickets.values() if ticket.status != "closed"}
    return _offered(found, incomplete)


def complete_providers(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Providers of the models that pi can use here."""
    return _offered({provider for provider, _ in _models(ctx)}, incomplete)


def complete_models(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Ids of the models that pi can use here; only the provider's, where one was given."""
    wanted = ctx.params.get("provider")
    return _offered({model for provider, model in _models(ctx) if wanted in (None, provider)}, incomplete)


def complete_fallbacks(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The same as PROVIDER/ID."""
    return _offered({f"{provider}/{model}" for provider, model in _models(ctx)}, incomplete)


def complete_thinking(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Thinking levels, in their order."""
    from typing import get_args

    from ralph_rpc.model.config import Thinking

    return [level for level in get_args(Thinking) if level.startswith(incomplete)]


def complete_schemas(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Names of schemas."""
    from ralph_rpc.model.schemas import SHAPES

    return _offered(SHAPES, incomplete)


VALUES = {
    "model": complete_models,
    "provider": complete_providers,
    "fallback-model": complete_fallbacks,
    "thinking": complete_thinking,
    "only": complete_tickets,
}
"""Option of the table -> what it is completed with; paths and files are the shell's own."""


_PLAIN = re.compile(r"[\w@.][\w@%+=:.,/~-]*")
"""What means nothing but itself to any shell, and is no option. bash puts a completion into the line as it is."""


def _offered(words: Iterable[str], incomplete: str) -> list[str]:
    return sorted(word for word in words if word.startswith(incomplete) and _PLAIN.fullmatch(word))


def _models(ctx: click.Context) -> list[tuple[str, str]]:
    """Provider and id of every model, as pi lists them."""
    import subprocess

    from ralph_rpc.pi.find import find_pi

    try:
        pi = find_pi(ctx.params.get("pi") or os.environ.get("RALPH_PI") or None)
        done = subprocess.run(
            [*pi.command, "--list-models"],
            # Not in the project, whose own extensions are not to be run for a list.
            cwd=Path.home(),
            env={"PI_OFFLINE": "1", "PI_SKIP_VERSION_CHECK": "1", **os.environ},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=MODELS_S,
            check=False,
        )
    except (RalphError, OSError, subprocess.TimeoutExpired, RuntimeError):
        return []
    # 0.73.1 prints it on stderr. Below the titles, a row for each.
    rows = [line.split() for line in f"{done.stdout}\n{done.stderr}".splitlines()]
    titles = next((number for number, row in enumerate(rows) if row[:2] == ["provider", "model"]), len(rows))
    return [(row[0], row[1]) for row in rows[titles + 1 :] if len(row) > 2]
