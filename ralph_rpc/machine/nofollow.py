"""Files below a project's `.ralph`, `.tickets` and `.tf`: no link is followed there, and only what is this user's counts.

A cloned repository or another user may have put anything there. So everything of ours that touches these folders goes
through here: the folder that holds one of them is opened as the user named it, and every name from there on through
the descriptor of the folder above it, with O_NOFOLLOW, so that nothing can be exchanged between a look and the deed.
A link gives `Linked`, and so does writing to a file that has another name elsewhere (a hard link); a folder or file of
another user gives `Foreign`. Both are OSErrors with a reason for a person. Only plain files are written to.
Paths without such a folder are opened as they are. The registry is the user's own, and `~/.ralph` itself may be a link.

Called by every command and by the runner. Each function does one thing to one name, and a machine that dies here
leaves it done or not.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

GUARDED = (".ralph", ".tickets", ".tf")

_ANYBODYS = -1
"""Instead of a user, where the first guarded folder still has to tell."""
_THROUGH = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
"""To pass through a folder takes no leave to list it."""
_LISTED = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_TOP = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC


class Linked(OSError):
    """A link stands where one of our files or folders would be."""


class Foreign(PermissionError):
    """A file or folder belongs to another user."""


def ralph_home() -> str:
    """$RALPH_HOME, by default ~/.ralph: this user's own, outside of every project."""
    return os.environ.get("RALPH_HOME") or os.path.expanduser("~/.ralph")  # noqa: PTH111 - called for every file


def open_fd(path: Path | str, flags: int, mode: int = 0o600, foreign: bool = False) -> int:
    """Open a file or folder. With `foreign` the caller looks at the owner of the last name itself."""
    writes = flags & (os.O_WRONLY | os.O_RDWR)
    with _above(path) as (folder, name, uid):
        try:
            links = 0 if uid is None else os.O_NOFOLLOW
            # Nobody may read from a pipe of that name; and what is cut off is looked at before.
            how = (flags & ~os.O_TRUNC) | (os.O_NONBLOCK if writes else 0)
            fd = os.open(name, how | links | os.O_CLOEXEC, mode, dir_fd=folder)
        except OSError as error:
            raise _explained(error, folder, name, path) from None
        try:
            if uid is not None:
                _give_to_owner(fd, folder, flags)
            if uid is not None and not foreign:
                _check_owner(fd, uid, path)
            if writes:
                _check_written(fd, path)
            if flags & os.O_TRUNC:
                os.ftruncate(fd, 0)
        except BaseException:
            os.close(fd)
            raise
        return fd


def lstat(path: Path | str) -> os.stat_result:
    """What is there, a link as a link. Raises OSError."""
    with _above(path) as (folder, name, _):
        return os.stat(name, dir_fd=folder, follow_symlinks=False)


def exists(path: Path | str) -> bool:
    """Whether anything is there, a link included; False behind a link that must not be followed, or at another user's."""
    return _mode(path) != 0


def is_file(path: Path | str) -> bool:
    """Whether a plain file is there, and not a link to one."""
    return stat.S_ISREG(_mode(path))


def is_folder(path: Path | str) -> bool:
    """Whether a folder is there, and not a link to one."""
    return stat.S_ISDIR(_mode(path))


def names(path: Path | str) -> list[str]:
    """The names in a folder, sorted. Raises OSError."""
    fd = open_fd(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return sorted(os.listdir(fd))  # noqa: PTH208 - of a descriptor
    finally:
        os.close(fd)


@contextmanager
def scan(path: Path | str) -> Iterator[Iterator[os.DirEntry[str]]]:
    """`os.scandir` of a folder. Raises OSError."""
    fd = open_fd(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with os.scandir(fd) as found:
            yield found
    finally:
        os.close(fd)


def entries(path: Path) -> list[Path]:
    """The paths in a folder, sorted; none where there is no folder of ours."""
    try:
        return [path / name for name in names(path)]
    except OSError:
        return []


def files_below(path: Path, suffix: str) -> list[Path]:
    """The plain files in a folder and all folders below it whose names end so, sorted; none where there is no folder."""
    try:
        top = open_fd(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return []
    found: list[Path] = []
    for folder, fd in _walk(path, top):
        with os.scandir(fd) as there:
            found += [
                folder / one.name for one in there if one.name.endswith(suffix) and one.is_file(follow_symlinks=False)
            ]
    return sorted(found)


def make_folder(path: Path | str, mode: int = 0o700) -> None:
    """Make a folder of this mode under any umask, of root's for the owner of the folder above. Raises OSError."""
    with _above(path) as (folder, name, uid):
        try:
            os.mkdir(name, mode, dir_fd=folder)
        except FileExistsError as error:
            raise error if uid is None else _explained(error, folder, name, path) from None
        os.chmod(name, mode, dir_fd=folder)  # a umask can only have taken bits away
        if os.geteuid() == 0 and (owner := os.fstat(folder)).st_uid != 0:
            os.chown(name, owner.st_uid, owner.st_gid, dir_fd=folder, follow_symlinks=False)


def set_mode(path: Path | str, mode: int) -> None:
    """Change the mode of a file or folder; `Linked` for a link. Raises OSError."""
    with _above(path) as (folder, name, _):
        if stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            raise Linked(errno.ELOOP, f"{name} is a link, and links are not followed", os.fspath(path))
        os.chmod(name, mode, dir_fd=folder)


def touch(path: Path | str) -> None:
    """Set the time of a file that is there to now. Raises OSError."""
    with _above(path) as (folder, name, _):
        os.utime(name, dir_fd=folder, follow_symlinks=False)


def unlink(path: Path | str, missing_ok: bool = False) -> None:
    """Remove a name that is no folder; of a link the link. Raises OSError."""
    try:
        with _above(path) as (folder, name, _):
            os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        if not missing_ok:
            raise


def remove_folder(path: Path | str) -> None:
    """Remove an empty folder. Raises OSError."""
    with _above(path) as (folder, name, _):
        os.rmdir(name, dir_fd=folder)


def rename(source: Path | str, target: Path | str) -> None:
    """Give something another name, in place of what has that. Raises OSError."""
    with _above(source) as (old_folder, old, _), _above(target) as (new_folder, new, _):
        os.rename(old, new, src_dir_fd=old_folder, dst_dir_fd=new_folder)


def remove_tree(path: Path | str) -> None:
    """Remove a folder and all below it, folders without permissions included. Raises OSError."""
    import shutil  # here: a start mostly finds nothing to remove, and pi waits for every import

    with _above(path) as (folder, name, _):
        _unlock(name, folder)
        for _, fd in _walk(Path(path), os.open(name, _LISTED, dir_fd=folder)):
            with os.scandir(fd) as there:
                for one in there:  # before the walk enters it
                    if one.is_dir(follow_symlinks=False):
                        _unlock(one.name, fd)
        shutil.rmtree(name, dir_fd=folder)


def _walk(path: Path, fd: int) -> Iterator[tuple[Path, int]]:
    """The folder `fd`, which is closed here, and all below it. `os.fwalk` opens a link before it sees that it is one."""
    try:
        yield path, fd
        with os.scandir(fd) as there:
            below = [one.name for one in there if one.is_dir(follow_symlinks=False)]
        for name in below:
            with suppress(FileNotFoundError, NotADirectoryError):  # somebody tidies up just now
                yield from _walk(path / name, os.open(name, _LISTED, dir_fd=fd))
    finally:
        os.close(fd)


def _unlock(name: str, folder: int) -> None:
    mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
    if stat.S_ISDIR(mode) and mode & 0o700 != 0o700:
        os.chmod(name, stat.S_IMODE(mode) | 0o700, dir_fd=folder)


def _mode(path: Path | str) -> int:
    try:
        with _above(path) as (folder, name, uid):
            return os.stat(name, dir_fd=folder, follow_symlinks=uid is None).st_mode
    except (OSError, ValueError):  # ValueError: a NUL in a name that somebody wrote into a file
        return 0


@contextmanager
def _above(path: Path | str) -> Iterator[tuple[int, str, int | None]]:
    """The folder of `path`, opened; its last name; and whose all of it has to be, None where nothing is guarded."""
    top, below = _parts(os.fspath(path))
    uid = _ANYBODYS if below[0] in GUARDED else None
    fd = os.open(top, _TOP)
    try:
        for name in below[:-1]:
            try:
                inner = os.open(name, _THROUGH, dir_fd=fd)
            except OSError as error:
                raise _explained(error, fd, name, path) from None
            os.close(fd)
            fd = inner
            if uid is not None:
                uid = _check_owner(fd, uid, path)
        yield fd, below[-1], uid
    finally:
        os.close(fd)


def _parts(path: str) -> tuple[str, list[str]]:
    """The folder that is reached in any way, and the names from there on, of which none may be a link."""
    parts = path.split("/")
    own = f"{ralph_home()}/registry"
    if path.startswith(own) and path.removeprefix(own)[:1] in ("", "/"):
        return os.path.split(path)[0], parts[-1:]
    at = next((n for n, part in enumerate(parts) if part in GUARDED), len(parts) - 1)
    below = [part for part in parts[at:] if part not in ("", ".")]
    if ".." in below or not below:
        raise OSError(errno.EINVAL, "not a path of ours", path)
    return ("/".join(parts[:at]) or "/") if at else ".", below


def _give_to_owner(fd: int, folder: int, flags: int) -> None:
    """What root makes in a user's loop, as under sudo, is the user's: their runner has to read and replace it."""
    if not flags & os.O_CREAT or os.geteuid() != 0:
        return
    owner = os.fstat(folder)
    if owner.st_uid != 0 and os.fstat(fd).st_uid == 0:
        os.fchown(fd, owner.st_uid, owner.st_gid)


def _check_owner(fd: int, uid: int, path: Path | str) -> int:
    """Whose all that follows has to be. Raises Foreign."""
    found, user = os.fstat(fd), os.geteuid()
    # Root comes to the loops of others only on purpose, and there all has one owner.
    allowed = {user, found.st_uid if uid == _ANYBODYS and user == 0 else uid}
    if not stat.S_ISDIR(found.st_mode):
        allowed.add(0)  # root could do anything anyway, and the agent may be root in a container
    if found.st_uid not in allowed:
        raise Foreign(errno.EACCES, f"it belongs to another user ({found.st_uid})", os.fspath(path))
    return found.st_uid if uid == _ANYBODYS else uid


def _check_written(fd: int, path: Path | str) -> None:
    """Whether what is written here is a file, and no other one as well. Raises Linked, OSError."""
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file", os.fspath(path))
    if found.st_nlink > 1:
        why = "it has another name elsewhere (a hard link), and would be changed there, too"
        raise Linked(errno.EMLINK, why, os.fspath(path))


def _explained(error: OSError, folder: int, name: str, path: Path | str) -> OSError:
    """Systems differ in what they say of a link where a folder is wanted."""
    if error.errno not in (errno.ELOOP, errno.ENOTDIR, errno.EMLINK, errno.EEXIST):
        error.filename = os.fspath(path)
        return error
    try:
        is_link = stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except OSError:
        is_link = False
    if is_link:
        return Linked(errno.ELOOP, f"{name} is a link, and links are not followed", os.fspath(path))
    error.filename = os.fspath(path)
    return error
