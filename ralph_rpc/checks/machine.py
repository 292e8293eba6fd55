"""This machine: Python, pi, node, npm, git, the limits of the file watcher, room on disk."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from ralph_rpc import git, options, pi_install
from ralph_rpc.checks.finding import Finding, Findings, Place
from ralph_rpc.errors import RalphError
from ralph_rpc.files.paths import registry_dir

OLDEST_PYTHON = (3, 11)
LOW_DISK = 1 << 30
FULL_DISK = 100 << 20
INOTIFY = Path("/proc/sys/fs/inotify")
NEARLY = 0.9
"""Of a limit: then the next loop may not get its share."""


def python(_: Place) -> Findings:
    version = ".".join(str(number) for number in sys.version_info[:3])
    if sys.version_info[:2] < OLDEST_PYTHON:
        yield Finding("python", "fail", f"{version} ({sys.executable})", "install Python 3.11 or newer")
    else:
        yield Finding("python", "ok", f"{version} ({sys.executable})")


def pi(place: Place) -> Findings:
    try:
        wanted = options.resolve({}, place.project, os.environ).config["pi"]
        found = pi_install.find_pi(wanted[0] if wanted else None)
        pi_install.check_version(found)
    except RalphError as error:
        yield Finding("pi", "fail", error.message, error.hint)
        return
    command = " ".join(found.command)
    answered = pi_install.probe_version(found)
    if answered is None:
        yield Finding("pi", "fail", f"`{command} --version` gives no version", "run it to see why")
        return
    try:
        pi_install.check_version(pi_install.Pi(found.command, answered, found.source))
    except RalphError as error:
        yield Finding("pi", "fail", error.message, error.hint)
        return
    newest = max((version for _, version in pi_install.PINNED), key=pi_install.numbers)
    if pi_install.numbers(answered) > pi_install.numbers(newest):
        hint = f"tested up to {newest}; should work, watch the first iteration"
        yield Finding("pi", "warn", f"{answered} ({command})", hint)
    else:
        yield Finding("pi", "ok", f"{answered} ({command})")


def node(_: Place) -> Findings:
    # Whether it fits pi is judged with pi: pi may bring or find another one.
    program = shutil.which("node")
    if program is None:
        yield Finding("node", "warn", "not on PATH", "needed unless pi is a program of its own")
        return
    try:
        done = subprocess.run([program, "--version"], check=False, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired) as error:
        yield Finding("node", "warn", f"{program} does not run: {error}", "install it anew")
        return
    yield Finding("node", "ok", f"{done.stdout.strip()} ({program})")


def npm(_: Place) -> Findings:
    program = shutil.which("npm")
    if program is None:
        yield Finding("npm", "warn", "not on PATH", "needed only to install or update pi")
    else:
        yield Finding("npm", "ok", program)


def git_program(_: Place) -> Findings:
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


def inotify(_: Place) -> Findings:
    if not INOTIFY.is_dir():
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
        limit = int((INOTIFY / name).read_text())
        text = f"{used} of {limit} {name.removeprefix('max_user_')} used"
        if used >= limit * NEARLY:
            hint = f"commands are noticed a little later; raise it: sysctl fs.inotify.{name}={limit * 4}"
            yield Finding("inotify", "warn", text, hint)
        else:
            yield Finding("inotify", "ok", text)


def disk(place: Place) -> Findings:
    wanted = {"project": place.project / ".ralph", "tmp": Path(tempfile.gettempdir()), "registry": registry_dir()}
    for name, path in wanted.items():
        there = next(folder for folder in (path, *path.parents) if folder.exists())
        free = shutil.disk_usage(there).free
        text = f"{free / (1 << 30):.1f} GiB free for {name} ({there})"
        if free < FULL_DISK:
            yield Finding("disk", "fail", text, "free some space: a loop waits where it cannot write")
        elif free < LOW_DISK:
            yield Finding("disk", "warn", text, "free some space, or clean ended loops: ralph-rpc clean")
        else:
            yield Finding("disk", "ok", text)
