"""Where a loop's task comes from: a file, stdin, a text, the loop's own task.md, or the editor.

Called by `start` before anything is made. Only `keep` writes: what a person typed into the editor is not lost when
the start fails afterwards.
"""

import sys
import tempfile
from pathlib import Path

import click

from ralph_rpc.errors import RalphError, UsageError
from ralph_rpc.files.atomic import ensure_ralph_dir, make_private_dir, write_atomic
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.files.text import LARGEST_FILE, decode_text, read_own_text, read_text
from ralph_rpc.machine import nofollow
from ralph_rpc.machine.programs import found_there
from ralph_rpc.prompts.task import TASK_TEMPLATE


def task_text(paths: LoopPaths, file: str | None, message: str | None) -> str | None:
    """The task to be written into task.md; None where the loop's own task.md is already the one.

    Raises UsageError for a task that is missing, empty, not UTF-8 or larger than 1 MiB.
    """
    if file is not None and message is not None:
        raise UsageError("--task and --message exclude each other", "give one of them")
    if message is not None:
        return decode_text(message.encode("utf-8", "surrogateescape"), "the text of --message")
    if file == "-":
        return decode_text(sys.stdin.buffer.read(LARGEST_FILE + 1), "the task on stdin")
    if file is not None:
        path = Path(file).expanduser()
        text = _from_file(path, f"--task {file}")
        return None if nofollow.is_file(paths.task) and path.samefile(paths.task) else text
    if nofollow.exists(paths.task):
        _own(paths.task)
        return None
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("there is no task", f"give one with -m TEXT, --task FILE, --task -, or write {paths.task}")
    return _from_editor()


def keep(paths: LoopPaths, text: str) -> Path:
    """Saves a typed task whose loop could not be started: where the next start finds it, or else beside."""
    try:
        if not nofollow.exists(paths.dir):
            ensure_ralph_dir(paths.project)
            make_private_dir(paths.dir)
            write_atomic(paths.task, text.encode())
        if read_own_text(paths.task) == text:
            return paths.task
    except (OSError, UsageError):
        pass  # a full disk, perhaps only here
    with tempfile.NamedTemporaryFile("w", prefix=f"ralph-{paths.name}-", suffix=".md", delete=False) as file:
        file.write(text)
    return Path(file.name)


def _from_file(path: Path, origin: str) -> str:
    try:
        return read_text(path)
    except UsageError as error:
        raise UsageError(f"{origin}: {error.message}", "the task is a text that says what to do") from None


def _own(path: Path) -> str:
    try:
        return read_own_text(path)
    except UsageError as error:
        raise UsageError(f"the task: {error.message}", "the task is a text that says what to do") from None


def _from_editor() -> str:
    """What the person made of the template."""
    try:
        with found_there():
            text = click.edit(TASK_TEMPLATE, extension=".md", require_save=False)
    except click.ClickException as error:
        raise RalphError(f"the editor failed: {error.message}", "set $EDITOR, or use -m TEXT or --task FILE") from None
    if text is None or not text.strip() or text.strip() == TASK_TEMPLATE.strip():
        raise RalphError(
            "the template was not edited, so nothing was started", "edit it, or use -m TEXT or --task FILE"
        )
    return decode_text(text.encode("utf-8", "surrogateescape"), "the task")
