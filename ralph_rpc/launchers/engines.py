"""The text of `--engine`: what runs a job for each ticket, and how its jobs are asked for.

Read by the options (`parse`), by `start`, which looks whether it can be used from here (`lacks`), by the runner and by whoever
calls off what a dead runner has left (`helper`). Only looks.
"""

import importlib.util
import re
import shlex
import shutil
import sys
from collections.abc import Mapping
from typing import Literal, NamedTuple, cast, get_args

Kind = Literal["local", "slurm", "pbs", "lsf", "flux", "kubernetes"]
KINDS = get_args(Kind)
EXTRA = "pip install 'ralph-rpc[cluster]'"
_PROGRAMS: dict[Kind, tuple[str, str]] = {
    "slurm": ("sbatch", "slurm-client"),
    "pbs": ("qsub", ""),
    "lsf": ("bsub", ""),
    "kubernetes": ("kubectl", ""),
}
KUBERNETES_WORDS = ("namespace", "context", "secret", "cpu", "memory", "limit")
_KEY = re.compile(r"[A-Za-z][A-Za-z0-9._-]*")


class Engine(NamedTuple):
    """An engine, understood."""

    kind: Kind
    image: str
    """Kubernetes: what its pods run."""
    words: Mapping[str, str]
    """What is said to it of each job."""


def parse(text: str) -> Engine:
    """Raises ValueError with a reason that names no option."""
    name, _, rest = text.strip().partition(":")
    if name not in KINDS:
        raise ValueError(f"expected {', '.join(KINDS)}, or one of them with :KEY=VALUE …, not {text!r}")
    kind = cast(Kind, name)
    try:
        words = shlex.split(rest)
    except ValueError as error:
        raise ValueError(f"{error}: {text!r}") from None
    image = ""
    if kind == "kubernetes":
        if not words or "=" in words[0]:
            raise ValueError("kubernetes needs an image, which holds ralph-rpc, pi and git: kubernetes:IMAGE")
        image = words.pop(0)
    pairs = [word.partition("=") for word in words]
    for key, equals, value in pairs:
        if not equals or not value or not _KEY.fullmatch(key):
            raise ValueError(f"expected KEY=VALUE as in slurm:partition=cpu, not {key + equals + value!r}")
        if key in ("duration", "limit"):
            seconds(value)
        if kind == "kubernetes" and key not in KUBERNETES_WORDS:
            raise ValueError(f"kubernetes knows {', '.join(KUBERNETES_WORDS)}, not {key!r}")
    return Engine(kind, image, {key: value for key, _, value in pairs})


def seconds(text: str) -> int:
    """A time such as 30m, 8h or 1d. Raises ValueError."""
    found = re.fullmatch(r"([1-9][0-9]{0,8})([smhd])", text)
    if found is None:
        raise ValueError(f"expected a time such as 30m or 8h, not {text!r}")
    return int(found[1]) * {"s": 1, "m": 60, "h": 3_600, "d": 86_400}[found[2]]


def lacks(engine: Engine) -> tuple[str, str] | None:
    """What is missing here to use it, and what to do; None: nothing."""
    if engine.kind != "kubernetes" and importlib.util.find_spec("psij") is None:
        return "the engine needs PSI/J, which is not installed", EXTRA
    if engine.kind == "flux" and importlib.util.find_spec("flux") is None:
        return "there is no Python module flux here", "run ralph-rpc with the Python that Flux comes with"
    program, package = _PROGRAMS.get(engine.kind, ("", ""))
    if program and shutil.which(program) is None:
        where = f"apt install {package}" if package else "start where jobs are submitted, such as a login node"
        return f"there is no program {program!r} here", where
    return None


def helper(engine: Engine) -> list[str]:
    """The command of the process that speaks with the engine; see `jobs_by_psij` for its language."""
    module = "jobs_by_kubectl" if engine.kind == "kubernetes" else "jobs_by_psij"
    return [sys.executable, "-P", "-m", f"ralph_rpc.launchers.{module}", text(engine)]


def text(engine: Engine) -> str:
    """As `parse` takes it."""
    words = [*([engine.image] if engine.image else []), *(f"{key}={value}" for key, value in engine.words.items())]
    return f"{engine.kind}:{shlex.join(words)}" if words else engine.kind
