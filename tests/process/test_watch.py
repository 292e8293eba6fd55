"""What wakes who waits for files: each way in which a file can come, or grow."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from ralph_rpc.watch import ARRIVAL, GROWTH, Watch

BOUND_S = 10.0


def write(path: Path) -> None:
    path.write_text("x")


def moved_in(path: Path) -> None:
    elsewhere = path.parent.with_name("elsewhere")
    elsewhere.write_text("x")
    elsewhere.rename(path)


def renamed(path: Path) -> None:
    temporary = path.with_name(".tmp")
    temporary.write_text("x")
    temporary.rename(path)


def linked(path: Path) -> None:
    elsewhere = path.parent.with_name("elsewhere")
    elsewhere.write_text("x")
    os.link(elsewhere, path)


@pytest.mark.parametrize("come", [write, moved_in, renamed, linked])
def test_a_file_that_comes_in_any_way_wakes(tmp_path: Path, come: Callable[[Path], None]) -> None:
    folder = tmp_path / "inbox"
    folder.mkdir()
    woken = threading.Event()
    watch = Watch(folder, ARRIVAL, lambda _: woken.set())
    assert watch.start() is None
    try:
        come(folder / "steer.json")
        assert woken.wait(BOUND_S)
    finally:
        watch.stop()


def test_a_file_that_grows_wakes_though_it_stays_open(tmp_path: Path) -> None:
    woken = threading.Event()
    with (tmp_path / "log").open("wb", buffering=0) as log:
        watch = Watch(tmp_path, GROWTH, lambda _: woken.set())
        assert watch.start() is None
        try:
            log.write(b"line\n")
            assert woken.wait(BOUND_S)
        finally:
            watch.stop()


def test_a_folder_that_is_not_there_is_told_of_and_leaves_no_thread(tmp_path: Path) -> None:
    before = threading.active_count()
    assert Watch(tmp_path / "none", ARRIVAL, lambda _: None).start() == "No such file or directory"
    assert threading.active_count() == before
