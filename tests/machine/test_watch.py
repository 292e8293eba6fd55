"""What wakes a caller that waits for files: each way in which a file can come, or grow, and each part of watchdog."""

import importlib
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from watchdog.observers import inotify_c
from watchdog.observers.api import BaseObserver

from ralph_rpc.machine import watch as watching
from ralph_rpc.machine.watch import ARRIVAL, GROWTH, Watch
from tests.rig import fake_rig

BOUND_S = 10.0


class OtherShape(threading.Thread):
    """A reader of inotify that wants other arguments than the one we know."""

    def __init__(self) -> None:
        super().__init__()
        self.ended = threading.Event()

    def run(self) -> None:
        self.ended.wait(BOUND_S)

    def stop(self) -> None:
        self.ended.set()

    def add_callback(self, *, folder: str, callback: object) -> None:
        raise AssertionError("it is not called like this")


class NoAdding(OtherShape):
    add_callback = None  # type: ignore[assignment]


class FewerConstants:
    IN_CLOSE_WRITE = 8


class OtherCallback:
    def on_any_event(self) -> None: ...


CHANGED: dict[str, object] = {
    "CallbackId": None,
    "InotifyConstants": FewerConstants,
    "WatchCallback": OtherCallback,
    "InotifyFD": OtherShape,
    "InotifyFD without add_callback": NoAdding,
}
"""Names within watchdog, and what they may be in another release: None where they are gone."""


def change(patch: pytest.MonkeyPatch, name: str) -> None:
    """Only for the code under test: watchdog's own observer keeps what it has imported."""
    importlib.import_module("watchdog.observers")
    changed = ModuleType(inotify_c.__name__)
    vars(changed).update(vars(inotify_c))
    attribute = name.split()[0]
    if CHANGED[name] is None:
        vars(changed).pop(attribute, None)
    else:
        setattr(changed, attribute, CHANGED[name])
    patch.setitem(sys.modules, inotify_c.__name__, changed)


@pytest.fixture(params=["inside", "observer"])
def both(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test runs on watchdog's inside, and on its public observer."""
    if request.param == "observer":
        change(monkeypatch, "CallbackId")


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


@pytest.mark.usefixtures("both")
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


@pytest.mark.usefixtures("both")
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


@pytest.mark.usefixtures("both")
def test_a_folder_that_is_not_there_is_named_as_the_reason_and_leaves_no_thread(tmp_path: Path) -> None:
    before = threading.active_count()
    assert Watch(tmp_path / "none", ARRIVAL, lambda _: None).start() == "No such file or directory"
    assert threading.active_count() == before


@pytest.mark.parametrize("name", CHANGED)
def test_a_watchdog_of_another_shape_is_used_by_its_public_observer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    change(monkeypatch, name)
    before = threading.active_count()
    woken = threading.Event()
    watch = Watch(tmp_path, ARRIVAL, lambda name: woken.set() if name == "steer.json" else None)
    assert watch.start() is None
    try:
        assert isinstance(watch._thread, BaseObserver)
        assert not any(isinstance(thread, OtherShape) for thread in threading.enumerate())
        write(tmp_path / "steer.json")
        assert woken.wait(BOUND_S)
    finally:
        watch.stop()
    assert threading.active_count() == before


@pytest.mark.skipif(not hasattr(inotify_c, "InotifyFD"), reason="a watchdog before 7.1")
def test_the_inside_of_the_watchdog_that_is_installed_is_used(tmp_path: Path) -> None:
    watch = Watch(tmp_path, ARRIVAL, lambda _: None)
    assert watch.start() is None
    try:
        assert isinstance(watch._thread, inotify_c.InotifyFD)
    finally:
        watch.stop()


def test_an_event_of_another_shape_wakes_for_any_file() -> None:
    woken: list[str] = []
    callback = watching._Callback(woken.append)
    callback.on_event(object())
    assert woken == [""]


@pytest.mark.usefixtures("both")
def test_files_that_come_after_one_was_moved_out_of_the_folder_wake_as_well(tmp_path: Path) -> None:
    folder, rejected = tmp_path / "inbox", tmp_path / "rejected"
    folder.mkdir()
    rejected.mkdir()
    woken: set[str] = set()
    changed = threading.Condition()

    def wake(name: str) -> None:
        with changed:
            woken.add(name)
            changed.notify()

    watch = Watch(folder, ARRIVAL, wake)
    assert watch.start() is None
    try:
        for number in range(5):
            file = folder / f"steer-{number}.json"
            write(file)
            with changed:
                assert changed.wait_for(lambda name=file.name: name in woken, BOUND_S)  # type: ignore[misc]
            file.rename(rejected / file.name)
    finally:
        watch.stop()


# Run by each Python that starts: before anything else asks, watchdog's inside has lost a name. Notes that it was asked for.
WITHOUT_INSIDE = """
import pathlib, sys, types
import watchdog.observers
inside, asked = sys.modules["watchdog.observers.inotify_c"], pathlib.Path(__file__).with_name("asked")
class Changed(types.ModuleType):
    def __getattr__(self, name):
        if name == "CallbackId":
            asked.touch()
        raise AttributeError(name)
changed = Changed(inside.__name__)
vars(changed).update({name: value for name, value in vars(inside).items() if name != "CallbackId"})
sys.modules[inside.__name__] = changed
"""


@pytest.mark.usefixtures("no_leftovers")
def test_a_runner_with_the_public_observer_loses_no_command(tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "sitecustomize.py").write_text(WITHOUT_INSIDE)
    gate = {"tool": "bash", "run": "while [ ! -e go ]; do sleep 0.05; done"}
    rig = fake_rig(tmp_path, [["hello", gate, "more"]])
    rig.env["PYTHONPATH"] = os.pathsep.join([str(tmp_path / "first"), *sys.path])
    rig.start("-n", "1")
    rig.wait_status("running")
    for number in range(5):
        rig.drop("steer.json", f'{{"id": "s{number}", "message": "number {number}"}}')
        # What is refused is moved out of the folder, which keeps the observer silent for a while.
        (rig.paths.inbox / f"abort-{number}.json").symlink_to("nowhere")
        rig.wait_step(f"s{number}", "queued")
    (rig.project / "go").touch()
    rig.wait_end()
    assert (tmp_path / "first" / "asked").exists()
    assert [rig.steps(f"s{number}")[-1] for number in range(5)] == ["delivered"] * 5
    assert len(list((rig.paths.inbox / "rejected").glob("*.reason"))) == 5
