"""A folder of tickets in the very format of `tk create`."""

from collections.abc import Sequence
from pathlib import Path


def ticket_text(
    id: str,
    title: str = "Do it",
    deps: Sequence[str] = (),
    tags: Sequence[str] = (),
    status: str = "open",
    priority: int = 2,
) -> str:
    tagged = f"tags: [{', '.join(tags)}]\n" if tags else ""
    return (
        f"---\nid: {id}\nstatus: {status}\ndeps: [{', '.join(deps)}]\nlinks: []\ncreated: 2026-02-06T17:50:00Z\n"
        f"type: task\npriority: {priority}\nassignee: Test Person\n{tagged}---\n# {title}\n\nThe text of {id}.\n\n"
    )


def write(folder: Path, id: str, title: str = "Do it", **fields: object) -> Path:
    """Writes `<id>.md` and returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{id}.md"
    path.write_text(ticket_text(id, title, **fields))  # type: ignore[arg-type]
    return path
