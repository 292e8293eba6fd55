"""The user's word before a project's files run or loosen anything: asked of `start` and `resume`, given by `trust`.

Two things need it: what `.ralph/config.toml`, or `.tf/config/settings.json` for a ticket loop, sets beyond what any
project may set, and a loop's config.json that this user's program did not write here. A word counts for one content at
one place, and is kept outside of the project (`files/trust.py`). Nothing is run here. If the machine dies between the
word and the start, the word stands.
"""

import os
import shlex
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ralph_rpc.errors import UsageError
from ralph_rpc.files import records, trust
from ralph_rpc.files.atomic import Unreadable
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.loops.find import find_project, loops_of
from ralph_rpc.loops.status import loop_status
from ralph_rpc.model.config import Config
from ralph_rpc.options.consent import Guarded
from ralph_rpc.options.resolve import Resolved, guarded_of, project_config_file, resolve
from ralph_rpc.options.settings import SETTINGS


class Subject(NamedTuple):
    """What the user is asked about."""

    path: Path
    """The file."""
    sha256: str
    """Of its content now."""
    lines: tuple[Guarded, ...]
    """What in it is run or loosened."""
    project: Path
    loop: LoopPaths | None = None
    """The loop whose options it holds; None for a file of the project's."""


class Untrusted(UsageError):
    """The user has not agreed to this yet. Nothing was run."""

    def __init__(self, subject: Subject) -> None:
        names = ", ".join(dict.fromkeys(one.name for one in subject.lines))
        if subject.loop is None:
            what = f"{subject.path} sets {names}, and you have not agreed to what it says now"
        else:
            what = f"loop {subject.loop.name!r} was not started here by you, or its config.json has changed since"
        here = find_project(Path.cwd()) or Path.cwd()
        where = "" if here == subject.project else f" --project {shlex.quote(str(subject.project))}"
        super().__init__(what, f"to see it and agree: ralph-rpc trust{where}")
        self.subject = subject


def require(project: Path, resolved: Resolved) -> None:
    """Raises Untrusted where a file of the project's says something that the user has not agreed to."""
    for subject in _of_project(project, resolved):
        if not trust.is_trusted(subject.path, subject.sha256):
            raise Untrusted(subject)


def require_loop(paths: LoopPaths, config: Config) -> None:
    """Raises Untrusted where neither this user's program wrote these options there, nor the user has agreed to them."""
    subject = _of_loop(paths, config)
    if not trust.was_made_here(paths, config) and not trust.is_trusted(subject.path, subject.sha256):
        raise Untrusted(subject)


def made_here(paths: LoopPaths) -> bool:
    """Whether this user's program started the loop there with the options it has.

    Of another one, what its files say of places and processes elsewhere is not acted on: they may name anybody's.
    """
    with suppress(Unreadable, OSError):
        config = records.read_config(paths)
        return config is not None and trust.was_made_here(paths, config)
    return False


def agree(subject: Subject) -> None:
    """Remembers the user's word. UsageError where an agent gives it."""
    if os.environ.get("RALPH_LOOP_DIR"):
        raise UsageError(
            "this is said inside a loop, where only its agent can say it", "agree in a terminal of your own"
        )
    trust.trust(subject.path, subject.sha256)


def subjects(project: Path, given: LoopPaths | None = None) -> list[tuple[Subject, bool]]:
    """All that needs the user's word in a project, or for one loop of it, and whether it has been given.

    A loop that was made here needs none, nor does one that is completed and cannot be resumed.
    """
    found: list[tuple[Subject, bool]] = []
    if given is None:
        ours = _of_project(project, resolve({}, project, {}, tickets=True))
        found += [(subject, trust.is_trusted(subject.path, subject.sha256)) for subject in ours]
    for paths in loops_of(project) if given is None else [given]:
        try:
            config = records.read_config(paths)
        except Unreadable:
            continue  # it cannot be resumed, and `status` says why
        done = given is None and loop_status(paths).shown == "completed"
        if config is not None and not done and not trust.was_made_here(paths, config):
            subject = _of_loop(paths, config)
            found.append((subject, trust.is_trusted(subject.path, subject.sha256)))
    return found


def is_agreed(project: Path, resolved: Resolved) -> bool:
    """Whether everything in the project's files counts."""
    return all(trust.is_trusted(subject.path, subject.sha256) for subject in _of_project(project, resolved))


def names_program(resolved: Resolved) -> bool:
    """Whether the project's file names the pi: who only looks does not run it."""
    return any(one.name == "pi" for one in resolved.guarded)


def _of_project(project: Path, resolved: Resolved) -> list[Subject]:
    settings = tuple(one for one in resolved.guarded if one.origin.startswith(SETTINGS))
    config = tuple(one for one in resolved.guarded if one not in settings)
    found: list[Subject] = []
    if config:
        found.append(Subject(project_config_file(project), trust.digest(*resolved.content), config, project))
    if settings:
        found.append(Subject(project / SETTINGS, trust.digest(resolved.settings), settings, project))
    return found


def _of_loop(paths: LoopPaths, config: Config) -> Subject:
    return Subject(paths.config, trust.config_digest(config), guarded_of(config), paths.project, paths)
