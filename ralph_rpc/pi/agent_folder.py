"""What pi's own files say before pi is started: whether it has a login, and whether it will ignore a project's `.pi/`.

Called by `start`, `resume` and `doctor`. Only reads files and the environment, asks no provider and starts nothing.
What cannot be read says nothing, so no complaint is made of it: pi itself has the last word when it starts.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ralph_rpc.model.config import Config
from ralph_rpc.pi.find import numbers, read_json

TRUST_SINCE = "0.79.0"
"""The first pi that reads a project's own settings only where the project is trusted."""

_GUARDED = ("settings.json", "mcp.json", "extensions", "skills", "prompts", "themes", "SYSTEM.md", "APPEND_SYSTEM.md")
_KEYS = (
    "ANTHROPIC_AUTH_TOKEN",
    "ANTHROPIC_OAUTH_TOKEN",
    "COPILOT_GITHUB_TOKEN",
    "GH_TOKEN",
    "GITHUB_TOKEN",
    "HF_TOKEN",
    "AWS_PROFILE",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_BEARER_TOKEN_BEDROCK",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "GOOGLE_APPLICATION_CREDENTIALS",
)
"""Variables that log pi in to some provider, beside all that end in _API_KEY."""


def agent_folder(env: Mapping[str, str]) -> Path:
    """Where pi keeps its settings and logins."""
    return Path(env.get("PI_CODING_AGENT_DIR") or "~/.pi/agent").expanduser()


def has_login(env: Mapping[str, str]) -> bool:
    """Whether pi can have a model: a login, a provider of the user's own, a key, or an extension that may bring one."""
    folder = agent_folder(env)
    return any(env.get(name) for name in env if name in _KEYS or name.endswith("_API_KEY")) or any(_of_files(folder))


def _of_files(folder: Path) -> Iterator[bool]:
    yield bool(read_json(folder / "auth.json"))
    yield bool((read_json(folder / "models.json") or {}).get("providers"))
    settings = read_json(folder / "settings.json") or {}
    yield bool(settings.get("packages") or settings.get("extensions"))
    yield _has_entries(folder / "extensions")
    yield Path("~/.config/gcloud/application_default_credentials.json").expanduser().is_file()


def ignored_settings(project: Path, config: Config, env: Mapping[str, str]) -> list[str]:
    """The files and folders in the project's `.pi/` that pi will ignore, because nobody has said that it may use them."""
    version = config["piVersion"]
    if config["approve"] is not None or version is None or numbers(version) < numbers(TRUST_SINCE):
        return []
    if {"-a", "--approve", "-na", "--no-approve"} & set(config["piArgs"]):
        return []
    there = [f".pi/{name}" for name in _GUARDED if (project / ".pi" / name).exists()]
    if not there or _is_trusted(project, agent_folder(env)):
        return []
    return there


def _is_trusted(project: Path, folder: Path) -> bool:
    """By what the user has told pi of the project or of a folder above it; the nearest word counts."""
    told = read_json(folder / "trust.json") or {}
    here = project.resolve()
    for place in (here, *here.parents):
        decision: Any = told.get(str(place))
        if isinstance(decision, bool):
            return decision
    return (read_json(folder / "settings.json") or {}).get("defaultProjectTrust") == "always"


def _has_entries(folder: Path) -> bool:
    try:
        return any(folder.iterdir())
    except OSError:
        return False
