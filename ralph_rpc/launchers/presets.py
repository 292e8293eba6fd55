"""What stands before pi's words: the text of `--launcher` as a kind and its words, and the command line of each kind.

Read by the options (`parse`), the runner (`command`), and by whoever ends what a dead runner left elsewhere (`clean_up`).
Pure but for the look at the folders that a box has to show. A job's name is made of its loop and ticket, so whoever knows
these can end it.
"""

import hashlib
import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple, cast, get_args

from ralph_rpc.launchers import boxes
from ralph_rpc.launchers.boxes import Box

Kind = Literal["srun", "ssh", "bwrap", "podman", "docker", "kubectl", "prefix"]
PRESETS = tuple(kind for kind in get_args(Kind) if kind != "prefix")
_NEEDS = {"ssh": "a host: ssh:HOST", **{box: f"an image: {box}:IMAGE" for box in ("podman", "docker", "kubectl")}}
HERE: frozenset[Kind] = frozenset({"bwrap"})
"""What runs on this machine, with its folders: pi is looked for here."""
CERTAIN: frozenset[Kind] = frozenset({"bwrap", "podman", "docker"})
"""Of these it is known that nothing is left once the clean-up has succeeded: no lease has to run out."""
_PLACES = ("-n", "--namespace", "--context")
"""Words of kubectl's that say where a pod is; the clean-up needs them as well."""
SSH_SILENCES = 3
"""Of a quarter of the lease each, after which ssh gives a connection up."""


class Launcher(NamedTuple):
    """A launcher, understood."""

    kind: Kind
    words: tuple[str, ...]
    """What the user gave: a preset's own words, or the whole prefix."""

    @property
    def program(self) -> str:
        return self.words[0] if self.kind == "prefix" else self.kind

    @property
    def shown(self) -> str:
        """Its name for people: what was given up to the first space."""
        if self.kind == "ssh":
            return f"ssh:{self.words[-1]}"
        return self.program


class Job(NamedTuple):
    """What is started elsewhere."""

    loop: Path
    """The loop's folder."""
    ticket: str | None
    box: Box
    lease_s: float

    @property
    def name(self) -> str:
        return job_name(self.loop, self.ticket)


def job_name(loop: Path, ticket: str | None) -> str:
    """By which the job is known there: fit for Slurm, containers and Kubernetes, and no other loop's."""
    told = f"{loop.name}-{ticket}" if ticket else loop.name
    slug = re.sub(r"[^a-z0-9]+", "-", told.lower()).strip("-")[:32].strip("-")
    whole = hashlib.sha256(f"{loop}\0{ticket or ''}".encode(errors="surrogateescape")).hexdigest()[:10]
    return f"ralph-{slug}-{whole}" if slug else f"ralph-{whole}"


def parse(text: str) -> Launcher:
    """Raises ValueError with a reason that names no option."""
    preset = re.fullmatch(rf"({'|'.join(PRESETS)})(?::(.*))?", text.strip(), re.DOTALL)
    try:
        words = tuple(map(_home, shlex.split(preset[2] or "" if preset else text)))
    except ValueError as error:
        raise ValueError(f"{error}: {text!r}") from None
    if preset is not None:
        kind = cast(Kind, preset[1])
        if kind in _NEEDS and not words:
            raise ValueError(f"{text!r} needs {_NEEDS[kind]}")
        return Launcher(kind, words)
    if not words:
        raise ValueError("must not be empty")
    # They need what their presets do: the one its job's name, the other every word quoted.
    if words[0] in ("srun", "ssh"):
        return Launcher(cast(Kind, words[0]), words[1:])
    return Launcher("prefix", words)


def _home(word: str) -> str:
    return str(Path(word).expanduser()) if word.startswith("~/") else word


def command(launcher: Launcher, job: Job, inner: Sequence[str]) -> list[str]:
    """The whole command line; `inner` is python and the far guard, then pi."""
    kind, words, box = launcher.kind, launcher.words, job.box
    match kind:
        case "srun":
            return ["srun", "--ntasks=1", f"--job-name={job.name}", *words, *inner]
        case "ssh":
            silence = max(1, int(job.lease_s / (SSH_SILENCES + 1)))
            options = (
                "BatchMode=yes",
                f"ServerAliveInterval={silence}",
                f"ServerAliveCountMax={SSH_SILENCES}",
                "ControlMaster=no",
                "ControlPath=none",
            )
            # The shell over there parses this once more.
            given = [word for option in options for word in ("-o", option)]
            return ["ssh", "-T", *given, *words, f"exec {shlex.join(inner)}"]
        case "bwrap":
            return ["bwrap", *boxes.bwrap(box), *words, *boxes.bwrap_end(box), "--", *inner]
        case "podman" | "docker":
            own = (*boxes.container(box), *(boxes.docker() if kind == "docker" else ()))
            return [kind, "run", "--rm", "-i", "--name", job.name, *own, *words, *inner]
        case "kubectl":
            own = ("-i", "--rm", "--restart=Never", "--quiet", "--image", words[0])
            return ["kubectl", "run", job.name, *own, *words[1:], "--command", "--", *inner]
        case "prefix":
            return [*(_filled(word, job) for word in words), *inner]


def _filled(word: str, job: Job) -> str:
    values = {"{name}": job.loop.name, "{ticket}": job.ticket or "", "{cwd}": str(job.box.cwd), "{job}": job.name}
    return re.sub("|".join(map(re.escape, values)), lambda found: values[found[0]], word)


def clean_up(launcher: Launcher, name: str) -> list[str] | None:
    """The command that ends the job of that name wherever it is, queued or running; None: there is none."""
    match launcher.kind:
        case "srun":
            return ["scancel", "--quiet", f"--user={os.geteuid()}", f"--name={name}"]
        case "podman":
            return ["podman", "rm", "--force", "--ignore", "--time=1", name]
        case "docker":
            return ["docker", "rm", "--force", name]
        case "kubectl":
            return ["kubectl", "delete", "pod", name, "--ignore-not-found", "--grace-period=5", *_where(launcher.words)]
        case _:
            return None


def _where(words: Sequence[str]) -> list[str]:
    found = []
    for at, word in enumerate(words):
        if word in _PLACES:
            found += [word, *words[at + 1 : at + 2]]
        elif word.startswith(("--namespace=", "--context=")):
            found.append(word)
    return found
