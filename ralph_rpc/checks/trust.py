"""What this project's config.toml would run, and whether you have agreed to it. Nothing of it is run here."""

import os

from ralph_rpc.checks.finding import Finding, Findings, Place
from ralph_rpc.errors import RalphError
from ralph_rpc.loops.consent import is_agreed
from ralph_rpc.options.resolve import resolve


def consent(place: Place) -> Findings:
    try:
        resolved = resolve({}, place.project, os.environ, tickets=True)
    except RalphError:
        return  # said by the check of pi
    try:
        agreed = is_agreed(place.project, resolved)
    except RalphError as error:
        yield Finding("trust", "fail", error.message, error.hint)
        return
    if not resolved.guarded:
        return
    origins = dict.fromkeys(one.origin.partition(" ")[0] for one in resolved.guarded)
    files = " and ".join(str(place.project / origin) for origin in origins)
    what = f"{files} sets {', '.join(one.name for one in resolved.guarded)}"
    if agreed:
        yield Finding("trust", "ok", f"{what}; you have agreed to it")
    else:
        yield Finding("trust", "warn", f"{what}; none of it runs before you agree", "look at it: ralph-rpc trust")
