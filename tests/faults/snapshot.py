"""All that lies in a folder, byte for byte, to be compared with what lies there later."""

import os
import stat
from pathlib import Path

Content = tuple[int, bytes]


def snapshot(*tops: Path, but: tuple[str, ...] = ()) -> dict[str, Content]:
    """Mode and content of everything below these folders and of themselves; `but` leaves out names of files."""
    found: dict[str, Content] = {}
    for top in tops:
        found[str(top)] = _content(top)
        for folder, folders, files in os.walk(top):
            for name in (*folders, *files):
                if name not in but:
                    found[str(Path(folder, name))] = _content(Path(folder, name))
    return found


def _content(path: Path) -> Content:
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        return mode, os.fsencode(path.readlink())
    return mode, path.read_bytes() if stat.S_ISREG(mode) else b""
