"""What is opened below a guarded folder for writing: plain files that have no other name, looked at before they are cut off."""

import os
from pathlib import Path

import pytest

from ralph_rpc.machine import nofollow

WAYS = {
    "appended to": os.O_WRONLY | os.O_APPEND | os.O_CREAT,
    "changed": os.O_RDWR,
    "cut off": os.O_RDWR | os.O_CREAT | os.O_TRUNC,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / ".ralph" / "x"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize("flags", WAYS.values(), ids=WAYS)
def test_a_file_with_a_second_name_is_not_written_to(folder: Path, tmp_path: Path, flags: int) -> None:
    precious = tmp_path / "precious"
    precious.write_text("kept")
    (folder / "file").hardlink_to(precious)
    with pytest.raises(nofollow.Linked, match="another name elsewhere"):
        nofollow.open_fd(folder / "file", flags)
    assert precious.read_text() == "kept"
    os.close(nofollow.open_fd(folder / "file", os.O_RDONLY))
    precious.unlink()
    os.close(nofollow.open_fd(folder / "file", flags))
    assert (folder / "file").read_text() == ("" if flags & os.O_TRUNC else "kept")


@pytest.mark.parametrize("flags", WAYS.values(), ids=WAYS)
def test_a_pipe_is_neither_written_to_nor_waited_for(folder: Path, flags: int) -> None:
    os.mkfifo(folder / "file")
    with pytest.raises(OSError, match="not a regular file|No such device"):
        nofollow.open_fd(folder / "file", flags)
