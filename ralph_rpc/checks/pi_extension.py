"""pi's extension: whether pi loads it, once, from a place that is there, and of this version."""

import os

from ralph_rpc.checks.finding import Finding, Findings, Place
from ralph_rpc.pi import extension


def pi_extension(place: Place) -> Findings:
    """Nothing where it is not installed: nobody needs it."""
    places = extension.installed(os.environ, place.project)
    found = list(extension.troubles(places))
    for trouble in found:
        yield Finding("extension", "fail" if trouble.fatal else "warn", trouble.message, trouble.hint)
    if places and not found:
        yield Finding("extension", "ok", f"pi loads it from {places[0].path}")
