"""What `--worktree-setup` changed in a ticket's worktree: it is not the ticket's work, and stays as it is.

A setup may rewrite a lock file or make files that git does not ignore. They are noted in the worktree's git_dir when the
setup has succeeded, with what they held. As long as one still holds that, it is not committed, not dropped after a
verification, and no reason to keep the worktree. What the agent changes in it afterwards is work like any other. If the
machine dies before the note, the setup runs again.
"""

import hashlib
import json
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ralph_rpc.git.calls import CHECKOUT_TIMEOUT_S, head, run
from ralph_rpc.git.repository import common_dir, git_dir, marked, run_past_locks
from ralph_rpc.git.status import status_of

CHANGED = "ralph-set-up-changed"
GONE = ""


def note_changes(worktree: Path) -> None:
    """All that differs from the commit in this worktree was made by its setup."""
    folder = git_dir(worktree)
    if folder is None:
        return
    _write(folder, worktree, [entry.path for entry in status_of(worktree).entries if entry.is_work(folder)], {})


def note_again(worktree: Path, paths: list[str]) -> None:
    """These paths differ from the commit as well by now, and that is no work of the ticket's."""
    folder = git_dir(worktree)
    if paths and folder is not None:
        _write(folder, worktree, paths, _noted(worktree))


def _write(folder: Path, worktree: Path, paths: list[str], known: dict[str, str]) -> None:
    draft = folder / f"{CHANGED}.new"
    draft.write_text(json.dumps({**known, **dict(zip(paths, _objects(worktree, paths), strict=True))}))
    draft.replace(folder / CHANGED)


def has_changed(worktree: Path) -> bool:
    """Whether the setup has changed anything that is not ignored."""
    return bool(_noted(worktree))


def left_by_setup(worktree: Path) -> frozenset[str]:
    """The files that are still as the setup left them."""
    noted = _noted(worktree)
    now = _objects(worktree, noted)
    return frozenset(path for path, object in zip(noted, now, strict=True) if object == noted[path])


@contextmanager
def kept(worktree: Path) -> Iterator[None]:
    """Around a reset of the worktree: what the setup had changed is put back, unless the commit has changed it, too."""
    held = [(path, _content(worktree / path), _in_commit(worktree, path)) for path in sorted(left_by_setup(worktree))]
    yield
    for path, content, committed in held:
        if _in_commit(worktree, path) == committed:
            _put_back(worktree / path, content)


def leave_out(worktree: Path, fork: str, message: str) -> bool:
    """Takes back what the agent has committed of the setup's changes, in a commit of its own; tell whether there was any."""
    lines = []
    for path, object in _noted(worktree).items():
        mode, before = _in_commit(worktree, path, fork)
        if before != object == _in_commit(worktree, path)[1]:
            lines.append(f"{mode} {before}\t{path}" if before else f"0 {'0' * len(object)}\t{path}")
    if not lines:
        return False
    given = b"".join(os.fsencode(line) + b"\0" for line in lines)
    _change(worktree, ["update-index", "-z", "--index-info"], given)
    _change(worktree, ["commit", "--quiet", "--cleanup=whitespace", "-F", "-"], message.encode())
    return True


def _noted(worktree: Path) -> dict[str, str]:
    folder = git_dir(worktree)
    with suppress(OSError, ValueError):
        found = json.loads((folder / CHANGED).read_bytes()) if folder is not None else {}
        return {str(path): str(object) for path, object in found.items()}
    return {}


def _objects(worktree: Path, paths: Iterable[str]) -> list[str]:
    """What git would store of each file as it is now; GONE where there is none."""
    found = []
    for path in paths:
        here = worktree / path
        if here.is_symlink():
            found.append(run(["hash-object", "--stdin"], worktree, stdin=os.fsencode(here.readlink())).line)
        elif (here / ".git").exists():
            found.append(_of_submodule(here))
        elif here.is_file():
            found.append(run(["hash-object", "--", path], worktree).line)
        else:
            found.append(GONE)
    return found


def _of_submodule(place: Path) -> str:
    """Its commit, and what differs from that."""
    status = run(["status", "--porcelain", "-z"], place, CHECKOUT_TIMEOUT_S).out
    return f"{head(place)}:{hashlib.sha256(status).hexdigest()}"


def _in_commit(worktree: Path, path: str, commit: str = "HEAD") -> tuple[str, str]:
    """Mode and object of a file in a commit; empty where it has none."""
    found = run(
        ["ls-tree", "-z", "--full-tree", commit, "--", f":(literal){path}"], worktree, CHECKOUT_TIMEOUT_S
    ).fields
    if not found:
        return "", GONE
    mode, _, object = found[0].partition("\t")[0].split(" ")
    return mode, object


def _content(path: Path) -> tuple[bytes, int] | str | None:
    if path.is_symlink():
        return str(path.readlink())
    return (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) if path.is_file() else None


def _put_back(path: Path, content: tuple[bytes, int] | str | None) -> None:
    if path.is_dir() and not path.is_symlink():
        return  # a submodule, which no reset touches
    path.unlink(missing_ok=True)
    if content is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, str):
        path.symlink_to(content)
    else:
        path.write_bytes(content[0])
        path.chmod(content[1])


def _change(worktree: Path, args: list[str], stdin: bytes) -> None:
    run_past_locks(args, worktree, common_dir(worktree), CHECKOUT_TIMEOUT_S, marked(worktree), stdin=stdin)
