"""Looked at and ended by other hands than those that started it: root's, another user's, in another locale."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ralph_rpc.cli.main import run
from ralph_rpc.errors import UsageError
from ralph_rpc.files.inbox import Inbox
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.loops.send import send
from tests.cli import forged
from tests.rig import fake_rig, wait_for

pytestmark = pytest.mark.usefixtures("no_leftovers")
MARKER = "<promise>COMPLETE</promise>"
HOLD = [{"tool": "bash", "run": "while [ ! -e go ]; do sleep 0.05; done"}, f"done\n{MARKER}"]
NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act for others")


@pytest.fixture
def theirs(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopPaths]:
    """A loop of the user nobody, in a folder that every user may pass; its runner is this process."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        monkeypatch.setenv("RALPH_HOME", f"{folder}/home")
        paths = forged.loop(Path(folder) / "project", "x", alive=True)
        with forged.runner_of(paths):
            for path in (paths.project, *paths.project.rglob("*")):
                os.chown(path, NOBODY, NOBODY)
            yield paths


@contextmanager
def as_user(uid: int) -> Iterator[None]:
    """This process acts as another user."""
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)


@needs_root
@pytest.mark.parametrize(
    "command",
    [["stop", "x", "--now"], ["pause", "x"], ["abort", "x"], ["steer", "x", "hello"], ["followup", "x", "hi"]],
)
def test_a_command_of_root_can_be_taken_by_the_runner_of_another_user(theirs: LoopPaths, command: list[str]) -> None:
    assert run([*command, "--project", str(theirs.project)]) == 0
    (file,) = theirs.inbox.glob("*.json")
    assert (file.stat().st_uid, file.stat().st_gid, file.stat().st_mode & 0o777) == (NOBODY, NOBODY, 0o600)
    with as_user(NOBODY):
        found = Inbox(theirs.inbox).scan(0.0)
    assert [one.verb for one in found.commands] == [command[0]] and found.rejected == []


@needs_root
def test_a_user_who_is_neither_the_owner_nor_root_is_refused_before_anything_is_written(theirs: LoopPaths) -> None:
    theirs.inbox.chmod(0o777)
    for path in theirs.dir.iterdir():
        path.chmod(path.stat().st_mode | 0o044)
    with as_user(12345), pytest.raises(UsageError, match=f"belongs to user {NOBODY}, and you are user 12345"):
        send(theirs, "stop", {"when": "now"})
    assert list(theirs.inbox.iterdir()) == []


LOCALES: list[dict[str, str]] = [
    {"PYTHONIOENCODING": "latin-1"},
    {"PYTHONIOENCODING": "ascii"},
    {"PYTHONIOENCODING": "cp1252"},
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    {"LC_ALL": "C"},
]
TEXT = "née … → 日本 😀"


@pytest.mark.parametrize("locale", LOCALES, ids=lambda locale: ",".join(locale.values()))
def test_any_locale_can_show_any_text(tmp_path: Path, locale: dict[str, str]) -> None:
    rig = fake_rig(tmp_path, [TEXT])
    rig.start("-n", "1", task=TEXT)
    rig.wait_end()
    rig.run("steer", "x", TEXT)
    rig.env |= locale

    def said(*args: str) -> bytes:
        command = [sys.executable, "-P", "-m", "ralph_rpc", *args]
        done = subprocess.run(command, check=False, cwd=rig.project, env=rig.env, capture_output=True)
        assert b"Error" not in done.stderr and done.returncode == 0, done.stderr.decode(errors="replace")
        return done.stdout

    for args in (["status", "x"], ["status"], ["list"], ["list", "--all"], ["logs", "x"], ["report", "x", "-o", "-"]):
        said(*args)
    for args in (["status", "x", "--json"], ["list", "--json"]):
        said_json: Any = json.loads(said(*args).decode(errors="replace"))
        one = said_json if isinstance(said_json, dict) else said_json[0]
        assert one["name"] == "x"
    # Where it is only ASCII, click writes UTF-8.
    encoding = {"latin-1": "latin-1", "cp1252": "cp1252"}.get(locale.get("PYTHONIOENCODING", ""), "utf-8")
    shown = json.loads(said("status", "x", "--json").decode(encoding))
    assert "😀" in shown["lastText"]


def test_list_and_status_tell_the_same_of_one_loop_at_one_moment(tmp_path: Path) -> None:
    rig = fake_rig(tmp_path, [[{"reply": "one", "cost": 0.125}, *HOLD]])
    rig.start()
    wait_for("a tool", lambda: any(event["type"] == "tool_execution_start" for event in rig.events()))
    other = tmp_path / "elsewhere"
    other.mkdir()

    def figures() -> list[tuple[int, int, float, int]]:
        here, rig.project = rig.project, other
        (everywhere,) = json.loads(rig.run("list", "--all", "--json").stdout)
        rig.project = here
        (listed,) = json.loads(rig.run("list", "--json").stdout)
        state = json.loads(rig.run("status", "x", "--json").stdout)
        stats = state["stats"]
        return [
            *((row["iteration"], row["counted"], row["cost"], row["elapsedMs"]) for row in (everywhere, listed)),
            (state["iteration"], stats["iterations"], stats["cost"], state["elapsedMs"]),
        ]

    def agreed() -> bool:
        found = figures()
        return found[0][:3] == found[1][:3] == found[2][:3] and found[0][2] > 0

    wait_for("the same figures", agreed, timeout=20)
    times = [one[3] for one in figures()]
    assert times == sorted(times) and times[-1] - times[0] < 15_000
    (rig.project / "go").touch()
    rig.wait_end()
