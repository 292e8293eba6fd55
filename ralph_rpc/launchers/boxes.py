"""What a box on this machine shows of it: the words of bubblewrap and of containers. Only looks at folders.

The project (or the ticket's worktree) and the loop's own folder can be written, and so can pi's own folder, where it keeps
its login. bubblewrap shows the rest of the machine read-only, except for the home and what other programs listen on;
a container shows its image. The README says what each keeps out, and tests/launchers shows it line by line.
"""

import os
import sys
from pathlib import Path
from typing import NamedTuple


class Box(NamedTuple):
    """What a box is made of."""

    cwd: Path
    """Where pi works: the project, or a worktree."""
    project: Path
    loop: Path
    tmp: Path
    pi: tuple[str, ...]
    """pi's command line: what of it lies in the home has to be shown."""
    home: Path
    agent: Path
    """pi's own folder."""


def hides_home(project: Path, home: Path) -> bool:
    """False where the home is the project itself, or a part of it."""
    return not home.is_relative_to(project)


def bwrap(box: Box) -> list[str]:
    """The words of bubblewrap, as far as they are ours."""
    words = ["--die-with-parent", "--unshare-pid", "--unshare-ipc", "--cap-drop", "ALL"]
    words += ["--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"]
    # In /run are the sockets of the user's session and of container engines, which would start anything outside.
    words += ["--tmpfs", "/tmp", "--tmpfs", "/run"]
    for shown in ("/run/systemd/resolve", "/run/current-system", "/run/opengl-driver"):
        words += ["--ro-bind-try", shown, shown]
    if _hidden(box):
        words += ["--tmpfs", str(box.home)]
    for path in _to_be_read(box):
        words += ["--ro-bind-try", str(path), str(path)]
    words += ["--bind-try", str(box.agent), str(box.agent), "--bind-try", str(box.tmp), str(box.tmp)]
    return words + _work(box)


def bwrap_end(box: Box) -> list[str]:
    """What comes after the user's own words: the home, empty but for what all these have shown, cannot be written."""
    return ["--remount-ro", str(box.home)] if _hidden(box) else []


def _hidden(box: Box) -> bool:
    return box.home.is_dir() and box.home != Path("/") and hides_home(box.project, box.home)


def _work(box: Box) -> list[str]:
    """What the agent is to change, without what the user's own programs would run later: hooks, git's and our settings."""
    in_project = box.cwd == box.project or box.project in box.cwd.parents and box.loop not in box.cwd.parents
    words = ["--bind" if in_project else "--ro-bind", str(box.project), str(box.project)]
    words += ["--ro-bind-try", str(box.project / ".ralph"), str(box.project / ".ralph")]
    words += ["--bind", str(box.loop), str(box.loop)]
    words += ["--ro-bind-try", str(box.loop / "config.json"), str(box.loop / "config.json")]
    if box.cwd != box.project:
        words += ["--bind", str(box.cwd), str(box.cwd)]
    git = git_folder(box.cwd)
    if git is not None:
        words += ["--bind", str(git), str(git)]
        hooks = git / "hooks"
        words += ["--ro-bind", str(hooks), str(hooks)] if hooks.is_dir() else ["--tmpfs", str(hooks)]
        words += ["--ro-bind-try", str(git / "config"), str(git / "config")]
    return words


def _to_be_read(box: Box) -> list[Path]:
    """What would be hidden with the home or /tmp, and is needed: python, pi and node, extensions, who commits."""
    needed = [Path(sys.base_prefix), box.home / ".gitconfig", box.home / ".config" / "git" / "config"]
    for word in box.pi:
        path = Path(word)
        if path.is_absolute() and path.exists():
            needed.append(_whole(path))
            needed.append(_whole(path.resolve()))
    return list(dict.fromkeys(path for path in needed if path.is_relative_to(box.home) or path.is_relative_to("/tmp")))


def _whole(path: Path) -> Path:
    """What has to be there for this file to work: the folder above a package, a prefix with its libraries, or itself."""
    for folder in path.parents:
        if folder.name == "node_modules":
            return folder
    return path.parent.parent if path.parent.name == "bin" and path.name == "node" else path


def container(box: Box) -> list[str]:
    """The words of podman and docker: a machine without rights of its own, that keeps nothing, and whose output nobody logs."""
    words = ["--log-driver", "none", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
    shown = [box.cwd, box.loop, git_folder(box.cwd), box.agent]
    for path in dict.fromkeys(path for path in shown if path is not None and path.exists()):
        words += ["--volume", f"{path}:{path}"]
    return words


def docker() -> list[str]:
    """docker's own: its root would be root here, too, and /tmp has to be asked for."""
    return ["--tmpfs", "/tmp", "--user", f"{os.geteuid()}:{os.getegid()}"]


def git_folder(cwd: Path) -> Path | None:
    """The folder of the repository that holds objects and refs, for its checkout or a worktree; None: no repository."""
    for folder in (cwd, *cwd.parents):
        git = folder / ".git"
        if git.is_dir():
            return git
        if git.is_file():
            return _common(git)
    return None


def _common(file: Path) -> Path | None:
    """Of a worktree, from its .git file."""
    try:
        own = (file.parent / file.read_text().removeprefix("gitdir:").strip()).resolve()
        common = own / "commondir"
        return (own / common.read_text().strip()).resolve() if common.is_file() else own
    except (OSError, UnicodeDecodeError):
        return None
