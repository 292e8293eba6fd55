"""`ralph-rpc doctor`: looks at what a loop needs and at what dead ones left, and says what to do about it.

Without --fix it changes nothing. With it, it mends only what cannot harm a living loop: modes of our own
files, registry entries of loops that are gone, processes and temporary folders of dead runners. It can be
ended at any moment and run again.
"""

import json
import os
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import click

from ralph_rpc import git, leftovers, options, pi_install
from ralph_rpc.errors import ENDED_IN_ERROR, OK, RalphError
from ralph_rpc.files.paths import LoopPaths, registry_dir
from ralph_rpc.loops import find_project, loop_status, loops_of
from ralph_rpc.text import Style, inert, inert_json, pad, paint, wants_colour

OLDEST_PYTHON = (3, 11)
LOW_DISK = 1 << 30
FULL_DISK = 100 << 20
NEARLY = 0.9
"""Of a limit: then the next loop may not get its share."""

Level = Literal["ok", "warn", "fail"]
STYLES: dict[str, Style] = {"ok": "green", "warn": "yellow", "fail": "red"}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; `hint` says what to do unless it is ok."""

    check: str
    level: Level
    message: str
    hint: str = ""
    fixed: bool = False
    """It was not ok before --fix."""


Findings = Iterator[Finding]


@click.command()
@click.option("--fix", is_flag=True, help="Mend what can be mended safely.")
@click.option("--json", "as_json", is_flag=True, help="As a JSON array.")
@click.option("--project", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Look there.")
@click.pass_context
def doctor(ctx: click.Context, fix: bool, as_json: bool, project: Path | None) -> None:
    """Check this machine, this project and its loops. Exit code 1 if something is wrong."""
    place = project.resolve() if project is not None else find_project(Path.cwd()) or Path.cwd()
    loops = loops_of(place)
    checks: list[Callable[[], Findings]] = [
        _python,
        lambda: _pi(place),
        _node,
        _npm,
        _git,
        _inotify,
        lambda: _disk(place),
        _registry_folder,
        lambda: _permissions(place, loops, fix),
        lambda: _orphans(place, fix),
        lambda: _registry(fix),
        lambda: _loops(loops, fix),
    ]
    found = []
    for check in checks:
        for finding in check():
            found.append(finding)
            if not as_json:
                _show(finding)
    if as_json:
        click.echo(
            inert_json(json.dumps([asdict(finding) for finding in found], ensure_ascii=False, indent=2))
        )
    ctx.exit(ENDED_IN_ERROR if any(finding.level == "fail" for finding in found) else OK)


def _show(finding: Finding) -> None:
    colour = wants_colour(sys.stdout)
    level = paint(pad(finding.level, 4), STYLES[finding.level], colour)
    click.echo(
        f"{level}  {pad(finding.check, 11)}  {inert(finding.message, keep_newlines=False)}", color=colour
    )
    if finding.hint:
        click.echo(f"{' ' * 19}{inert(finding.hint, keep_newlines=False)}")


# The machine


def _python() -> Findings:
    version = ".".join(str(number) for number in sys.version_info[:3])
    if sys.version_info[:2] < OLDEST_PYTHON:
        yield Finding("python", "fail", f"{version} ({sys.executable})", "install Python 3.11 or newer")
    else:
        yield Finding("python", "ok", f"{version} ({sys.executable})")


def _pi(project: Path) -> Findings:
    try:
        wanted = options.resolve({}, project, os.environ).config["pi"]
        pi = pi_install.find_pi(wanted[0] if wanted else None)
        pi_install.check_version(pi)
    except RalphError as error:
        yield Finding("pi", "fail", error.message, error.hint)
        return
    command = " ".join(pi.command)
    answered = pi_install.probe_version(pi)
    if answered is None:
        yield Finding("pi", "fail", f"`{command} --version` gives no version", "run it to see why")
        return
    try:
        pi_install.check_version(pi_install.Pi(pi.command, answered, pi.source))
    except RalphError as error:
        yield Finding("pi", "fail", error.message, error.hint)
        return
    newest = max((version for _, version in pi_install.PINNED), key=pi_install.numbers)
    if pi_install.numbers(answered) > pi_install.numbers(newest):
        hint = f"tested up to {newest}; should work, watch the first iteration"
        yield Finding("pi", "warn", f"{answered} ({command})", hint)
    else:
        yield Finding("pi", "ok", f"{answered} ({command})")


def _node() -> Findings:
    # Whether it fits pi is judged with pi: pi may bring or find another one.
    node = shutil.which("node")
    if node is None:
        yield Finding("node", "warn", "not on PATH", "needed unless pi is a program of its own")
        return
    try:
        done = subprocess.run([node, "--version"], check=False, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired) as error:
        yield Finding("node", "warn", f"{node} does not run: {error}", "install it anew")
        return
    yield Finding("node", "ok", f"{done.stdout.strip()} ({node})")


def _npm() -> Findings:
    npm = shutil.which("npm")
    if npm is None:
        yield Finding("npm", "warn", "not on PATH", "needed only to install or update pi")
    else:
        yield Finding("npm", "ok", npm)


def _git() -> Findings:
    try:
        version = git.version()
    except RalphError as error:
        yield Finding(
            "git", "warn", error.message, error.hint or "needed for --worktree and to see what changed"
        )
        return
    text = ".".join(str(number) for number in version)
    if version < git.OLDEST:
        yield Finding("git", "warn", text, "--worktree needs 2.38 or newer")
    else:
        yield Finding("git", "ok", text)


def _inotify() -> Findings:
    limits = Path("/proc/sys/fs/inotify")
    if not limits.is_dir():
        return
    instances = watches = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if process.stat().st_uid != os.geteuid():
                continue
            for fd in (process / "fd").iterdir():
                if os.readlink(fd) == "anon_inode:inotify":  # noqa: PTH115 - Path would add a ./
                    instances += 1
                    watches += (process / "fdinfo" / fd.name).read_text().count("inotify wd:")
        except OSError:  # gone, or not to be looked into
            continue
    for name, used in (("max_user_instances", instances), ("max_user_watches", watches)):
        limit = int((limits / name).read_text())
        text = f"{used} of {limit} {name.removeprefix('max_user_')} used"
        if used >= limit * NEARLY:
            hint = f"commands are noticed a little later; raise it: sysctl fs.inotify.{name}={limit * 4}"
            yield Finding("inotify", "warn", text, hint)
        else:
            yield Finding("inotify", "ok", text)


def _disk(project: Path) -> Findings:
    places = {"project": project / ".ralph", "tmp": Path(tempfile.gettempdir()), "registry": registry_dir()}
    for name, place in places.items():
        there = next(folder for folder in (place, *place.parents) if folder.exists())
        free = shutil.disk_usage(there).free
        text = f"{free / (1 << 30):.1f} GiB free for {name} ({there})"
        if free < FULL_DISK:
            yield Finding("disk", "fail", text, "free some space: a loop waits where it cannot write")
        elif free < LOW_DISK:
            yield Finding("disk", "warn", text, "free some space, or clean ended loops: ralph-rpc clean")
        else:
            yield Finding("disk", "ok", text)


# The files


def _registry_folder() -> Findings:
    folder = registry_dir()
    there = next(place for place in (folder, *folder.parents) if place.exists())
    if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
        yield Finding(
            "registry", "ok", f"{folder} {'is' if there == folder else 'can be made and is'} writable"
        )
    else:
        yield Finding("registry", "fail", f"{there} cannot be written", "make it yours, or set RALPH_HOME")


def _permissions(project: Path, loops: list[LoopPaths], fix: bool) -> Findings:
    """Prompts and answers are nobody else's business, and who writes to an inbox runs code as you."""
    folders = [project / ".ralph"] if (project / ".ralph").is_dir() else []
    files: list[Path] = []
    for loop in loops:
        folders += [loop.dir, loop.inbox, loop.rejected, loop.iterations, loop.sessions]
        logs = [*loop.dir.glob("events.jsonl*"), *loop.dir.glob("runner.log*")]
        files += [loop.config, loop.state, loop.pid, loop.commands, loop.runner_lock, loop.tree_lock, *logs]
    open_ones = [path for path in (*folders, *files) if _is_open(path)]
    for path in open_ones:
        mode = stat.S_IMODE(path.stat().st_mode)
        text = f"{path} is open to others (mode {mode:04o})"
        if fix:
            path.chmod(mode & 0o700)
            yield Finding("permissions", "ok", f"{text}: closed", fixed=True)
        else:
            yield Finding("permissions", "fail", text, f"chmod go= {shlex.quote(str(path))}, or doctor --fix")
    if folders and not open_ones:
        yield Finding("permissions", "ok", f"{project / '.ralph'} is yours alone")


def _is_open(path: Path) -> bool:
    try:
        status = path.lstat()
    except OSError:
        return False
    return not stat.S_ISLNK(status.st_mode) and status.st_uid == os.geteuid() and bool(status.st_mode & 0o077)


# What dead runners left


def _orphans(project: Path, fix: bool) -> Findings:
    found = leftovers.orphans({project})
    left = found
    rounds = 0
    while fix and left and rounds < 5:  # more than once: they may have started others meanwhile
        leftovers.end(left)
        left = leftovers.orphans({project})
        rounds += 1
    for orphan in found if not fix else left:
        text = f"pid {orphan.pid} of loop {orphan.loop.name}, whose runner is dead: {orphan.command[:80]}"
        hint = "it does not die" if fix else "it may still change files; doctor --fix ends it"
        yield Finding("orphans", "fail", text, hint)
    if fix and found and not left:
        pids = ", ".join(str(orphan.pid) for orphan in found)
        yield Finding("orphans", "ok", f"ended processes of dead runners: {pids}", fixed=True)
    elif not found:
        yield Finding("orphans", "ok", "no process without its runner")


def _registry(fix: bool) -> Findings:
    # Entries of crashed and failed loops are needed until `resume` or `clean`.
    stale = [entry for entry in leftovers.dead_entries() if not entry.resumable]
    for entry in stale:
        text = f"stale entry {entry.what}: {entry.reason}"
        if fix and leftovers.forget(entry):
            yield Finding("registry", "ok", f"{text}: removed", fixed=True)
        else:
            yield Finding("registry", "warn", text, "doctor --fix or clean removes it")
    if not stale:
        yield Finding("registry", "ok", "no stale entry")


def _loops(loops: list[LoopPaths], fix: bool) -> Findings:
    for loop in loops:
        status = loop_status(loop)
        if status.shown == "stale":
            hint = f"ralph-rpc kill {loop.name}, then ralph-rpc resume {loop.name}"
            yield Finding("loops", "warn", f"the runner of {loop.name} lives but does not answer", hint)
        if status.runner != "dead" or leftovers.is_busy(loop):
            continue
        if status.shown == "crashed":
            hint = f"ralph-rpc resume {loop.name}, or ralph-rpc clean {loop.name}"
            yield Finding("loops", "warn", f"{loop.name} has crashed: its runner is gone", hint)
        for log in (loop.events, loop.commands):
            if _is_torn(log):
                text = f"the last line of {log} was cut off by a crash"
                yield Finding("logs", "warn", text, "the next start or resume of the loop mends it")
        temp = leftovers.temp_dir(loop)
        if temp is not None and fix:
            leftovers.remove_tree(temp)
            yield Finding("temp", "ok", f"removed {temp}, left by {loop.name}", fixed=True)
        elif temp is not None:
            yield Finding("temp", "warn", f"{temp} was left by {loop.name}", "doctor --fix removes it")


def _is_torn(log: Path) -> bool:
    try:
        with log.open("rb") as file:
            if file.seek(0, os.SEEK_END) == 0:
                return False
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"
    except OSError:
        return False
