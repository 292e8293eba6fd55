"""The extension of pi in real pi, on a terminal: a person's day with a loop, an agent that starts one, a busy foreground."""

import json
import os
import re
import shlex
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from ralph_rpc.demo.model import Reply, Request
from ralph_rpc.pi.find import package_of
from tests.real_pi.inside import FOREGROUND, SETTINGS, Inside, by_task, inside, told
from tests.real_pi.scripted_model import MODEL_ARGS, ScriptedModel, pi_env
from tests.rig import Rig, new_project, wait_for

pytestmark = pytest.mark.timeout(400)

SLOW_COMMAND = "for i in 1 2 3 4 5 6; do echo line $i; sleep 0.5; done"
ATTACHED = "typing goes to the loop"
DONE = Reply("All done.\n\n<promise>COMPLETE</promise>")


def rig_of(tmp_path: Path, pi: list[str], model: ScriptedModel, settings: dict[str, Any] | None = None) -> Rig:
    agent = model.agent_dir(tmp_path, SETTINGS if settings is None else settings)
    project = new_project(tmp_path / "project")
    (project / ".ralph").mkdir(0o700)  # so that none is looked for above
    return Rig(project, pi[-1], agent, MODEL_ARGS)


def start_line(rig: Rig, name: str = "x") -> str:
    """What a person types to start a loop; its options come from the project's environment."""
    return f"/ralph start {name} -m Work."


def options(rig: Rig) -> dict[str, str]:
    """The options that every loop of the test is started with, as variables."""
    return {"RALPH_PI": rig.pi, "RALPH_PROVIDER": MODEL_ARGS[1], "RALPH_MODEL": MODEL_ARGS[3]}


def loop_requests(model: ScriptedModel) -> list[Request]:
    return [one for one in model.requests if "Work." in told(one) and FOREGROUND not in told(one)]


def tools_of(request: Request) -> set[str]:
    return {tool["function"]["name"] for tool in request.get("tools", [])}


def test_a_person_starts_a_loop_from_inside_pi_steers_it_leaves_and_comes_back(tmp_path: Path, pi: list[str]) -> None:
    loop = [
        Reply("I look around.", [("bash", {"command": SLOW_COMMAND})]),
        *[Reply("Still at it.", [("bash", {"command": "sleep 600"})])] * 20,
    ]
    with ScriptedModel(by_task(loop)) as model:
        # What pi would note by itself is there already.
        version = (package_of(Path(pi[-1])) or {})["version"]
        rig = rig_of(tmp_path, pi, model, {"quietStartup": True, "lastChangelogVersion": version})
        settings = Path(rig.env["PI_CODING_AGENT_DIR"]) / "settings.json"
        before = settings.read_bytes()
        rig.run("pi-extension", "install", "--pi", rig.pi)
        rig.run("pi-extension", "remove", "--pi", rig.pi)
        assert settings.read_bytes() == before
        for told_of in ("loads the extension from", "already"):
            assert told_of in rig.run("pi-extension", "install", "--pi", rig.pi).stdout
        assert len(json.loads(settings.read_bytes())["packages"]) == 1
        with inside(tmp_path, rig, pi, model, options(rig)) as one:
            one.starts()
            one.is_offered("/ralph det", "detach", "the loop continues")
            one.terminal.presses("C-c")
            one.enters(start_line(rig))
            one.sees(ATTACHED, "iteration 1", "line 3", never="line 6")
            steered(one, rig)
            detached(one, rig, model)
            came_back(one, rig)
            killed(one, rig)
            one.quits()
        assert "ralph" not in " ".join(tools_of(loop_requests(model)[0])), "no loop starts loops"
        assert "SKILL.md" not in told(loop_requests(model)[0])
        rig.run("pi-extension", "remove", "--pi", rig.pi)
        assert settings.read_bytes() == before
        assert not (Path(os.environ["RALPH_HOME"]) / "pi-extension.json").exists()


def steered(one: Inside, rig: Rig) -> None:
    """Each of what is typed arrives once, as what it is; pi's own model hears nothing."""
    one.enters("be quick please")
    one.enters("!touch BAD")
    one.sees("not run: while loop x is attached")
    one.enters("/nothing of that kind")
    one.sees("/nothing is no command")
    one.terminal.call("set-buffer", "first line\nsecond line\nthird line")
    one.terminal.call("paste-buffer", "-p")
    one.sees("third line")
    one.terminal.presses("Enter")
    one.types("and when you are done rest")
    one.terminal.presses("M-Enter")
    accepted = wait_for(
        "three messages", lambda: said if len(said := sent(rig)) == 3 else None
    )  # of two kinds, one of them of three lines
    assert accepted == [
        ("steer", "be quick please"),
        ("steer", "first line\nsecond line\nthird line"),
        ("followup", "and when you are done rest"),
    ]
    one.escapes()
    one.sees("be quick please · delivered")
    assert not (rig.project / "BAD").exists()
    assert one.foreground == []


def sent(rig: Rig) -> list[tuple[str, str]]:
    steps = [step for step in rig.of("ralph_command") if step["state"] == "accepted"]
    return [(step["command"], step["message"]) for step in steps]


def detached(one: Inside, rig: Rig, model: ScriptedModel) -> None:
    """After it the model knows nothing of the loop, and the session's file holds no more than pointers."""
    one.enters("/ralph detach")
    one.until_gone(ATTACHED)
    one.enters(FOREGROUND)
    one.sees("I am the foreground.")
    (request,) = one.foreground
    assert {"ralph_start", "ralph_status", "ralph_steer"} <= tools_of(request)
    assert "ralph-rpc/SKILL.md" in told(request)
    assert "I look around" not in told(request) and "be quick" not in told(request)
    (session,) = (Path(rig.env["PI_CODING_AGENT_DIR"]) / "sessions").rglob("*.jsonl")
    ours = [line for line in session.read_text().splitlines() if '"ralph-' in line and '"custom"' in line]
    # An entry is shown from the start, and below each of two words of pi's.
    assert all('"ralph-view"' in line for line in ours) and len(ours) <= 3, ours
    assert sum(map(len, ours)) < 700, ours


def came_back(one: Inside, rig: Rig) -> None:
    """Through /reload, /new and the end of pi."""
    one.enters("/ralph attach x")
    one.sees(ATTACHED)
    one.enters("/reload")
    one.sees("Reloaded", ATTACHED)
    one.enters("/new")
    one.sees("detached from loop x")
    one.until_gone(ATTACHED)
    one.quits()
    one.starts()
    one.sees("loops of this project: x (running)")
    one.enters("/ralph attach")
    one.sees(ATTACHED)
    one.quits()
    assert rig.state()["status"] == "running"
    for args in (["-p", FOREGROUND], ["--mode", "rpc"]):
        done = subprocess.run(
            [*one.command, "-c", *args],
            check=False,
            cwd=rig.project,
            env=pi_env(Path(rig.env["PI_CODING_AGENT_DIR"])),
            input="",
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert "Attach to loop" not in done.stdout and '"confirm"' not in done.stdout
    one.starts("-c", sees="Attach to loop x again?")
    one.terminal.presses("Enter")
    one.sees(ATTACHED)


def killed(one: Inside, rig: Rig) -> None:
    """A runner that is gone is said within 15 seconds, with what to do."""
    rig.kill(rig.pids()[0], signal.SIGKILL)
    since = time.monotonic()
    one.sees("the runner of x is gone", "/ralph resume")
    assert time.monotonic() - since < 15 + 10, "with some seconds for a machine that is busy"


def test_an_agent_starts_a_loop_only_when_a_person_agrees_and_is_told_of_its_end_once(
    tmp_path: Path, pi: list[str]
) -> None:
    call = {"name": "small", "task": "Work.", "verify": "test -e done.txt", "max_iterations": 3, "max_cost": 2.5}
    loop = [Reply("I do it.", [("bash", {"command": "touch done.txt"})]), DONE]
    foreground = [
        Reply("I ask.", [("ralph_rpc_start", call)]),
        Reply("Then not."),
        Reply("I ask again.", [("ralph_rpc_start", call)]),
        Reply("It runs."),
        Reply("I know."),
        Reply("Nobody here.", [("ralph_rpc_start", call)]),
        Reply("So be it."),
    ]
    with ScriptedModel(by_task(loop, foreground)) as model:
        # Another extension owns both names.
        stub = tmp_path / "stub.ts"
        stub.write_text(STUB)
        rig = rig_of(tmp_path, pi, model, {**SETTINGS, "extensions": [str(stub)]})
        with inside(tmp_path, rig, pi, model, options(rig)) as one:
            one.starts()
            one.sees("another extension has tools of these names", "ralph_start is ralph_rpc_start")
            one.enters(FOREGROUND)
            dialog = one.sees("Start loop small", "at most 3", "$2.50", "test -e done.txt", "Work.")
            assert not rig.paths.dir.exists(), dialog
            one.terminal.presses("Escape")
            one.sees("the person declined")
            one.sees("Then not.")
            assert not (rig.project / ".ralph/small").exists()
            one.enters(f"{FOREGROUND} again")
            one.sees("Start loop small")
            one.terminal.presses("Enter")
            one.sees("It runs.")
            one.sees("Loop small has ended: completed (verified).", "1 iteration")
            requests = len(one.foreground)
            one.enters(f"{FOREGROUND} at last")
            one.sees("I know.")
            assert len(one.foreground) == requests + 1, "the notice asked the model nothing by itself"
            assert told(one.foreground[-1]).count("Loop small has ended") == 1
            one.enters("/reload")
            one.sees("Reloaded")
            one.quits()
        done = subprocess.run(
            [*pi, *MODEL_ARGS, "-p", f"{FOREGROUND} without a person"],
            check=False,
            cwd=rig.project,
            env=pi_env(Path(rig.env["PI_CODING_AGENT_DIR"])),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        assert "nobody can be asked here" in told(one.foreground[-1])
        assert "Loop small has ended" not in told(one.foreground[-1]), "it was another session that started it"


STUB = """
export default function (pi: any) {
	const execute = async () => ({ content: [], details: undefined });
	const parameters = { type: "object", properties: {} };
	pi.registerTool({ name: "ralph_start", label: "another", description: "another one", parameters, execute });
	pi.registerCommand("ralph", { description: "another one", handler: async () => {} });
}
"""

WORK = [
    Reply("Alpha begins: *I* look.", [("bash", {"command": "seq 3; exit 3"})]),
    Reply("## I write\n\n- one\n- two", [("write", {"path": "a.txt", "content": "one\ntwo\n"})]),
    Reply("I edit.", [("edit", {"path": "a.txt", "edits": [{"oldText": "two", "newText": "three"}]})]),
    Reply("I read.", [("read", {"path": "a.txt"})]),
    Reply("Omega ends: `all` of it."),
]


def masked(screen: str, first: str) -> list[str]:
    """What lies between the first and the last words, without blanks and times."""
    part = screen[screen.rindex(first) : screen.rindex("Omega ends")]
    part = re.sub(r"(Took|Elapsed) [\d.]+s", "TIME", part)
    part = re.sub(r"^ *\d+(\.\d+)?s *$", "TIME", part, flags=re.MULTILINE)
    return [line.strip() for line in part.split("\n") if line.strip()]


def test_a_loop_looks_as_if_it_ran_in_front_of_the_person(tmp_path: Path, pi: list[str]) -> None:
    hold = Reply(WORK[-1].text, [("bash", {"command": "sleep 600"})])
    with ScriptedModel(by_task([*WORK[:-1], hold], WORK)) as model:
        rig = rig_of(tmp_path, pi, model)
        with inside(tmp_path, rig, pi, model, options(rig)) as one:
            one.starts()
            one.enters(FOREGROUND)
            before = one.sees("Omega ends")
            (rig.project / "a.txt").unlink()
            one.enters("/new")
            one.sees("New session started")
            one.enters(start_line(rig))
            now = one.sees("Omega ends", ATTACHED)
            # Old pi shows it in half of the screen. (And where an edit is quick, its own preview comes too late.)
            first = "Alpha begins" if "Alpha begins" in now else "I read."
            assert masked(now, first) == masked(before, first)
            one.quits()


OWN_COMMAND = "for i in $(seq 24); do echo own line $i; sleep 0.3; done"
MODES = [{}, pytest.param({"tuiMode": "regular"}, marks=pytest.mark.full)]


@pytest.mark.parametrize("mode", MODES, ids=["usual", "regular"])
def test_a_loop_stays_in_sight_and_disturbs_nothing_while_pis_own_agent_works(
    tmp_path: Path, pi: list[str], mode: dict[str, str]
) -> None:
    """On a screen of 24 lines, of which pi's own box of a command with all that stands below it takes 22."""
    loop = [Reply("".join(f"Loop text {n}.\n\n" for n in range(5000)), pace=0.02), DONE]
    answer = [Reply("I look.", [("bash", {"command": OWN_COMMAND})]), Reply("Thus I am done.")]
    with ScriptedModel(by_task(loop, answer)) as model:
        rig = rig_of(tmp_path, pi, model, {**SETTINGS, **mode})
        with inside(tmp_path, rig, pi, model, options(rig), (80, 24)) as one:
            one.starts()
            one.enters(start_line(rig))
            one.sees(ATTACHED)
            one.enters("/ralph detach")
            one.until_gone(ATTACHED)
            one.enters(FOREGROUND)
            one.sees("own line")
            one.enters("/ralph attach x")  # a command works while the agent is busy
            one.sees(ATTACHED)
            first = wait_for("text of the loop", lambda: newest(one))
            output = tmp_path / "terminal"
            one.terminal.call("pipe-pane", f"cat > {shlex.quote(str(output))}")
            wait_for("newer text of the loop", lambda: newest(one) > first)
            assert len(one.foreground) == 1, "pi's own agent still works"
            wait_for("the end of the answer", lambda: len(one.foreground) == 2)
            one.terminal.call("pipe-pane")
            cleared = output.read_bytes().count(b"\x1b[2J")
            assert cleared <= 1, "the window makes pi draw everything anew"
            rig.run("stop", "x", "--now")
            one.sees("stopped")
            assert len(one.foreground) == 2
            one.quits()


def newest(one: Inside) -> int:
    """The number of the loop's newest text on the screen."""
    return max((int(n) for n in re.findall(r"Loop text (\d+)\.", one.terminal.screen())), default=0)
