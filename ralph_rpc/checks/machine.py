"""This machine: Python, pi, node, npm, git, the limits of the file watcher, free disk space."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from ralph_rpc import git
from ralph_rpc.checks.finding import Finding, Findings, Place
from ralph_rpc.errors import RalphError
from ralph_rpc.files.paths import registry_dir
from ralph_rpc.git.target import check_identity
from ralph_rpc.loops.consent import names_program
from ralph_rpc.loops.preflight import warnings
from ralph_rpc.loops.which_pi import with_pi
from ralph_rpc.machine.programs import on_path
from ralph_rpc.options.resolve import resolve
from ralph_rpc.pi.agent_folder import agent_folder, has_login
from ralph_rpc.pi.find import Pi, aside, check_version, find_pi, numbers, probe_version
from ralph_rpc.pi.install import PINNED
from ralph_rpc.tickets.sources.opening import find_source

OLDEST_PYTHON = (3, 11)
LOW_DISK = 1 << 30
FULL_DISK = 100 << 20
FEW_INODES = 1000
INOTIFY = Path("/proc/sys/fs/inotify")
NEARLY = 0.9
"""Share of a limit from which the next loop may not get what it needs."""


def python(_: Place) -> Findings:
    version = ".".join(str(number) for number in sys.version_info[:3])
    if sys.version_info[:2] < OLDEST_PYTHON:
        yield Finding("python", "fail", f"{version} ({sys.executable})", "install Python 3.11 or newer")
    else:
        yield Finding("python", "ok", f"{version} ({sys.executable})")


def pi(place: Place) -> Findings:
    try:
        resolved = resolve({}, place.project, os.environ)
        wanted = resolved.config["pi"]
        found = find_pi(wanted[0] if wanted else None)
        check_version(found)
    except RalphError as error:
        yield Finding("pi", "fail", error.message, error.hint)
        return
    command = " ".join(found.command)
    if names_program(resolved):
        origin = resolved.origins["pi"]
        yield Finding("pi", "warn", f"{command}, by {origin}; not run here", "doctor runs nothing that a project names")
        return
    answered = probe_version(found)
    if answered is None:
        yield Finding("pi", "fail", f"`{command} --version` gives no version", "run it yourself to see why")
        return
    try:
        check_version(Pi(found.command, answered, found.source))
    except RalphError as error:
        yield Finding("pi", "fail", error.message, error.hint)
        return
    newest = max((version for _, version in PINNED), key=numbers)
    if numbers(answered) > numbers(newest):
        hint = f"tested up to {newest}; it should work, but watch the first iteration"
        yield Finding("pi", "warn", f"{answered} ({command})", hint)
    else:
        yield Finding("pi", "ok", f"{answered} ({command})")


def login(_: Place) -> Findings:
    if has_login(os.environ):
        yield Finding("login", "ok", "pi has a login or a key")
    else:
        text = f"pi has neither a login nor a key: nothing in {agent_folder(os.environ)}, no *_API_KEY is set"
        yield Finding("login", "warn", text, "log in with `ralph-rpc pi` (/login), or set the API key of a provider")


def project_settings(place: Place) -> Findings:
    try:
        resolved = resolve({}, place.project, os.environ)
        config = with_pi(resolved.config, ask=not names_program(resolved))
    except RalphError:
        return  # said by the check of pi
    for warning in warnings(place.project, config):
        yield Finding("settings", "warn", warning, "the option can also stand in .ralph/config.toml")


def identity(place: Place) -> Findings:
    """Only where there are tickets: their loops commit."""
    try:
        find_source(place.project)
    except RalphError:
        return
    if not git.is_repo(place.project):
        return
    try:
        check_identity(place.project)
    except RalphError as error:
        yield Finding("identity", "warn", f"{error.message}, which ticket loops make", error.hint)
    else:
        yield Finding("identity", "ok", "git knows whose commits a ticket loop makes")


def node(_: Place) -> Findings:
    # Whether it suits pi is checked with pi, which may bring or find another one.
    program = on_path("node")
    if program is None:
        yield Finding("node", "warn", "not on PATH", "needed unless pi is a standalone program")
        return
    try:
        done = subprocess.run(
            [program, "--version"], check=False, cwd=aside(), capture_output=True, text=True, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        yield Finding("node", "warn", f"{program} does not run: {error}", "reinstall it")
        return
    yield Finding("node", "ok", f"{done.stdout.strip()} ({program})")


def npm(_: Place) -> Findings:
    program = on_path("npm")
    if program is None:
        yield Finding("npm", "warn", "not on PATH", "needed only to install or update pi")
    else:
        yield Finding("npm", "ok", program)


def git_program(_: Place) -> Findings:
    try:
        version = git.version()
    except RalphError as error:
        yield Finding(
            "git", "warn", error.message, error.hint or "needed for --worktree, and to see what an iteration changed"
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
        except OSError:  # gone, or not ours to look into
            continue
    for name, used in (("max_user_instances", instances), ("max_user_watches", watches)):
        limit = int((INOTIFY / name).read_text())
        text = f"{used} of {limit} {name.removeprefix('max_user_')} used"
        if used >= limit * NEARLY:
            hint = f"commands will be noticed a little later; raise the limit: sysctl fs.inotify.{name}={limit * 4}"
            yield Finding("inotify", "warn", text, hint)
        else:
            yield Finding("inotify", "ok", text)


def disk(place: Place) -> Findings:
    wanted = {"project": place.project / ".ralph", "tmp": Path(tempfile.gettempdir()), "registry": registry_dir()}
    for name, path in wanted.items():
        there = next(folder for folder in (path, *path.parents) if folder.exists())
        found = os.statvfs(there)
        if found.f_files and found.f_favail < FEW_INODES:
            text = f"{found.f_favail} inodes free for {name} ({there})"
            yield Finding("disk", "warn" if found.f_favail else "fail", text, "remove some files: df -i counts them")
        free = shutil.disk_usage(there).free
        text = f"{free / (1 << 30):.1f} GiB free for {name} ({there})"
        if free < FULL_DISK:
            yield Finding("disk", "fail", text, "free some space: a loop waits where it cannot write")
        elif free < LOW_DISK:
            yield Finding("disk", "warn", text, "free some space, or clean ended loops: ralph-rpc clean")
        else:
            yield Finding("disk", "ok", text)
