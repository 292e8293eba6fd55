"""The log that an internal bug leaves, for a person to read and to attach to a report.

Called by `cli/main.py` alone, once, on the way out. The file is the user's own whatever the umask: mode 0600, in a folder of
mode 0700, always new; a link in its place is not followed, and a folder of another user's is not used.
It holds versions and the traceback; nothing of the environment and none of the command's arguments. If the machine dies
here, a part of the log is there, or none.
"""

import errno
import os
import platform
import re
import stat
import sys
import tempfile
import time
import traceback
from importlib import metadata
from pathlib import Path

import platformdirs

from ralph_rpc import __version__
from ralph_rpc.files.atomic import make_private_dir, write_all

_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def write_crash_log(error: BaseException) -> Path:
    """Writes it to the user's log folder, or to a new temporary one where that cannot be; raises OSError if neither can."""
    text = "".join([*_versions(), "\n", *traceback.format_exception(error)])
    data = text.encode(errors="backslashreplace")
    name = f"crash-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    try:
        folder = Path(platformdirs.user_log_dir("ralph-rpc"))
        make_private_dir(folder)
        return _write_in(folder, name, data)
    except OSError:
        return _write_in(Path(tempfile.mkdtemp(prefix="ralph-rpc-")), name, data)


def _write_in(folder: Path, name: str, data: bytes) -> Path:
    at = os.open(folder, _FOLDER_FLAGS)
    try:
        found = os.fstat(at)
        if found.st_uid != os.geteuid():
            raise PermissionError(errno.EPERM, "it belongs to another user", str(folder))
        if stat.S_IMODE(found.st_mode) != 0o700:
            os.fchmod(at, 0o700)
        fd = os.open(name, _FILE_FLAGS, 0o600, dir_fd=at)
        try:
            os.fchmod(fd, 0o600)  # a umask may have taken the owner's own bits away
            write_all(fd, data)
        finally:
            os.close(fd)
    finally:
        os.close(at)
    return folder / name


def _versions() -> list[str]:
    """A line for each thing whose version matters."""
    lines = [f"ralph-rpc {__version__}", f"Python {sys.version}", platform.platform()]
    try:
        needed = metadata.requires("ralph-rpc") or []
    except metadata.PackageNotFoundError:  # run from a checkout that is not installed
        needed = []
    for requirement in needed:
        if "extra ==" not in requirement:
            name = re.split(r"[^\w.-]", requirement)[0]
            try:
                lines.append(f"{name} {metadata.version(name)}")
            except metadata.PackageNotFoundError:
                lines.append(f"{name} missing")
    return [f"{' '.join(line.split())}\n" for line in lines]
