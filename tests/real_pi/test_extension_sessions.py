"""The extension over sessions that come and go, with loops of which there is nothing but files."""

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ralph_rpc.demo.model import Reply
from tests.cli import forged
from tests.real_pi.inside import FOREGROUND, SETTINGS, Inside, Talker, by_task, inside, pretended_line, told
from tests.real_pi.scripted_model import MODEL_ARGS, ScriptedModel
from tests.rig import Rig, alive, new_project, wait_for

pytestmark = pytest.mark.timeout(900)

ATTACHED = "typing goes to the loop"
DONE = Reply("All done.\n\n<promise>COMPLETE</promise>")


@pytest.fixture
def one(tmp_path: Path, pi: list[str]) -> Iterator[Inside]:
    """pi on a small screen, in a project with a loop `x` whose runner is this very process."""
    with ScriptedModel([]) as model:
        project = new_project(tmp_path / "project")
        rig = Rig(project, pi[-1], model.agent_dir(tmp_path, SETTINGS), MODEL_ARGS)
        paths = forged.loop(project, "x", alive=True)
        paths.events.write_bytes(
            pretended_line({"type": "ralph_iteration_start", "at": 1, "iteration": 1, "kind": "work"})
        )
        with forged.runner_of(paths), inside(tmp_path, rig, pi, model, {}, (80, 24)) as terminal:
            terminal.starts()
            yield terminal


def open_logs(pid: int) -> int:
    """How many files of the log pi holds open."""
    count = 0
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            count += "events.jsonl" in str(link.readlink())
        except FileNotFoundError:
            continue
    return count


@pytest.mark.parametrize("times", [2, pytest.param(25, marks=pytest.mark.full)])
def test_pi_lives_through_reloads_and_new_sessions_while_the_loop_writes(one: Inside, times: int) -> None:
    pid = one.pid
    with Talker(one.rig.paths.events, 500) as talker:
        one.enters("/ralph attach x")
        one.sees(ATTACHED)
        for _ in range(times):
            one.enters("/reload")
            one.sees("Reloaded", ATTACHED)
            one.enters("/new")
            one.sees("detached from loop x")
            one.enters("/ralph attach x")
            one.sees(ATTACHED)
        seen = talker.written
        wait_for("newer words", lambda: any(int(n) >= seen for n in re.findall(r"\bword(\d+) ", one.terminal.screen())))
        assert alive(pid) and one.pid == pid
        assert open_logs(pid) == 1
    one.enters("/ralph detach")
    wait_for("the log to be closed", lambda: open_logs(pid) == 0)


def test_the_person_chooses_among_loops_of_one_name_and_is_told_when_one_goes_away(one: Inside, tmp_path: Path) -> None:
    other = forged.elsewhere(tmp_path, "other", "x")
    one.enters("/ralph attach x")
    one.sees("Which loop?", "x  running", "x  crashed", "/other")
    one.terminal.presses("Escape")
    one.until_gone("Which loop?")
    assert ATTACHED not in one.terminal.screen()
    one.enters("/ralph attach nowhere")
    one.sees("there is no loop 'nowhere'")
    one.enters("/ralph attach x")
    one.sees("Which loop?")
    # The list is in the order of the folders.
    one.terminal.presses("Down", "Enter")
    one.sees(ATTACHED, "x · running")
    assert other.dir.is_dir()
    one.rig.paths.dir.rename(tmp_path / "away")
    one.sees("the folder of loop x is gone")
    one.until_gone(ATTACHED)
    assert alive(one.pid)


def test_typing_goes_to_the_loop_even_where_pi_has_no_model_of_its_own(tmp_path: Path, pi: list[str]) -> None:
    agent = tmp_path / "agent"
    agent.mkdir()
    (agent / "settings.json").write_text(json.dumps(SETTINGS))
    with ScriptedModel([]) as model:
        rig = Rig(new_project(tmp_path / "project"), pi[-1], agent, [])
        paths = forged.loop(rig.project, "x", alive=True)
        paths.events.touch()
        with forged.runner_of(paths), inside(tmp_path, rig, pi, model, {}, (80, 24), []) as one:
            one.starts(sees="────────")
            one.enters("/ralph attach x")
            one.sees(ATTACHED)
            one.enters("first of all")
            one.enters("and then")
            files = wait_for(
                "two messages", lambda: found if len(found := sorted(paths.inbox.glob("*.json"))) == 2 else None
            )
            bodies = [json.loads(file.read_bytes()) for file in files]
            assert sorted(body["message"] for body in bodies) == ["and then", "first of all"]
            assert all(file.name.startswith("steer-") for file in files)
            one.sees("first of all · sent", "and then · sent")
            assert model.requests == []


def resumes(one: Inside, words: str) -> None:
    """Goes to the session with these words, by pi's own list of them."""
    one.enters("/resume")
    one.sees("Resume Session")
    one.terminal.types(words)
    wait_for(f"{words!r} to be chosen", lambda: re.search(f"› .*{words}", one.sees(f"> {words}")))
    one.terminal.presses("Enter")
    one.until_gone("Resume Session")


FORKS = re.compile("Fork from|Forked to new session")


def test_fork_detaches_and_the_session_that_was_attached_offers_its_loop_again(tmp_path: Path, pi: list[str]) -> None:
    with ScriptedModel(by_task([])) as model:
        rig = Rig(new_project(tmp_path / "project"), pi[-1], model.agent_dir(tmp_path, SETTINGS), MODEL_ARGS)
        paths = forged.loop(rig.project, "x", alive=True)
        paths.events.touch()
        with forged.runner_of(paths), inside(tmp_path, rig, pi, model, {}) as one:
            one.starts()
            one.enters(f"{FOREGROUND}, early")
            one.sees("I am the foreground.")
            one.enters("/ralph attach x")
            one.sees(ATTACHED)
            one.enters("/fork")
            # The Enter that sends the command may have reached the only choice as well.
            if "Fork from" in wait_for("the fork", lambda: FORKS.search(one.terminal.screen()))[0]:
                one.terminal.presses("Enter")
            one.sees("detached from loop x: this is another session")
            one.until_gone(ATTACHED)
            # What was forked from stands in the editor now.
            one.terminal.presses("C-c")
            wait_for("an empty editor", lambda: not one.holds("early"))
            one.enters(f"{FOREGROUND}, late")
            wait_for("an answer", lambda: len(one.foreground) == 2)
            one.enters("/reload")
            one.sees("Reloaded", never=ATTACHED)
            resumes(one, "early")
            one.sees("Attach to loop x again?", "running")
            one.terminal.presses("Enter")
            one.sees(ATTACHED)
            one.quits()


def hold_starts(tmp_path: Path) -> tuple[Path, Path]:
    """The extension's program stops at every `start`: the first file says so, the second lets it go."""
    held, go = tmp_path / "held", tmp_path / "go"
    program = tmp_path / "program"
    program.write_text(
        f"#!/bin/sh\n[ $1 = start ] && touch {held} && while [ ! -e {go} ]; do sleep 0.05; done\n"
        f'exec {sys.executable} -P -m ralph_rpc "$@"\n'
    )
    program.chmod(0o755)
    (Path(os.environ["RALPH_HOME"]) / "pi-extension.json").write_text(json.dumps({"command": [str(program)]}))
    return held, go


def notices(rig: Rig) -> list[str]:
    """The sessions that heard of the loop's end, as often as they did."""
    sessions = Path(rig.env["PI_CODING_AGENT_DIR"]) / "sessions"
    return [file.name for file in sessions.rglob("*.jsonl") for _ in range(file.read_text().count("Loop x has ended"))]


def test_a_start_that_is_answered_in_another_session_is_told_there_and_its_end_where_it_began(
    tmp_path: Path, pi: list[str]
) -> None:
    with ScriptedModel(by_task([DONE])) as model:
        rig = Rig(new_project(tmp_path / "project"), pi[-1], model.agent_dir(tmp_path, SETTINGS), MODEL_ARGS)
        options = {"RALPH_PI": rig.pi, "RALPH_PROVIDER": MODEL_ARGS[1], "RALPH_MODEL": MODEL_ARGS[3]}
        with inside(tmp_path, rig, pi, model, options) as one:
            held, go = hold_starts(tmp_path)
            one.starts()
            one.enters(f"{FOREGROUND}, early")
            one.sees("I am the foreground.")
            one.enters("/ralph start x -m Work.")
            wait_for("the start to be on its way", held.exists)
            one.enters("/new")
            one.sees("New session started")
            go.touch()
            one.sees("loop x, from the session before, runs")
            rig.wait_end()
            one.enters(f"{FOREGROUND}, late")
            wait_for("the other answer", lambda: len(one.foreground) == 2)
            one.sees("I am the foreground.")
            resumes(one, "early")
            one.sees("Loop x has ended: completed (marker).")
            one.enters(f"{FOREGROUND}, at last")
            wait_for("the last answer", lambda: len(one.foreground) == 3)
            one.enters("/reload")
            one.sees("Reloaded")
            one.quits()
        assert [told(request).count("Loop x has ended") for request in one.foreground] == [0, 0, 1]
        assert len(notices(rig)) == 1
