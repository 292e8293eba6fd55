"""What a person who gives it `main` overnight must be able to believe: what is closed has landed, and what landed was
verified.
"""

import json
import os
from pathlib import Path

import pytest

from ralph_rpc.demo.model import Reply
from tests.real_pi.scripted_model import ScriptedModel
from tests.real_pi.test_tickets import Agents, Asked, Script, bash, rig_for, works
from tests.rig import git, wait_for
from tests.ticket_rig import MARKER

USES = "def test():\n    from lib.util import VALUE\n    assert VALUE == 1\n"
LIB = "mkdir -p lib; echo VALUE = 1 > lib/util.py; printf '%s' \"$USES\" > check.py"


def told(asked: Asked, what: str) -> bool:
    return what in asked.texts[0]


def by_attempt(first: Script, second: Script, heard: str) -> Script:
    """Follows the second script once the prompt says this."""
    return lambda asked: (second if told(asked, heard) else first)(asked)


@pytest.mark.pi
def test_what_is_closed_is_in_a_fresh_clone_with_verify_green_there_whatever_agents_and_people_do(
    tmp_path: Path, pi: list[str]
) -> None:
    held = "touch $RALPH_LOOP_DIR/held; while [ ! -e $RALPH_LOOP_DIR/go ]; do sleep 0.05; done"
    agents = Agents(
        {
            "t-1": by_attempt(works(LIB), works("git add -f lib/util.py"), "lib/util.py"),
            "t-2": by_attempt(
                lambda asked: bash("echo x > x.txt; git add x.txt; git stash -q") if asked.turn == 0 else Reply(MARKER),
                lambda asked: Reply(f"It is there already.\n{MARKER}"),
                "stash entry",
            ),
            "t-3": works(held, f'echo "$PATH $VIRTUAL_ENV $RALPH_WORKER $RALPH_PORT_BASE" > {tmp_path}/env'),
        }
    )
    with ScriptedModel(agents) as model:
        rig = rig_for(tmp_path, pi[-1], model)
        (rig.project / ".gitignore").write_text("lib/\n__pycache__/\n")
        for id in ("t-1", "t-2", "t-3"):
            rig.add(id, id)
        rig.commit()
        venv = rig.project / ".venv"
        rig.env |= {"USES": USES, "VIRTUAL_ENV": str(venv), "PATH": f"{venv}/bin:{os.environ['PATH']}"}
        verify = "[ ! -e check.py ] || python3 -c 'import check; check.test()'"
        rig.begin("--parallel", "3", "--verify", verify, "--attempts", "1")
        wait_for("t-3 at work", (rig.paths.dir / "held").exists)
        note = rig.project / ".tickets/t-3.md"
        note.write_text(note.read_text() + "\n## Notes\n\n**2026-01-01T00:00:00Z**\n\nBy hand.\n")
        (rig.project / "README").write_text("a person's\n")
        git(rig.project, "commit", "-qm", "a person's", "README")
        git(rig.project, "commit", "-q", "--amend", "-m", "a person's, amended")
        (rig.paths.dir / "go").touch()
        state = rig.wait_end()
        assert (state["status"], state["stopReason"]) == ("completed", "tickets-done"), (state["error"], rig.log())
        assert {id: rig.dispatch(id).get("withoutChanges", False) for id in ("t-1", "t-2", "t-3")} == {
            "t-1": False,
            "t-2": True,
            "t-3": False,
        }
        assert "ralph/x/t-2" in rig.dispatch("t-2")["leftBehind"][0]
        path, venv_seen, worker, base = (tmp_path / "env").read_text().split(" ")
        assert str(rig.project) not in path and venv_seen == "" and worker in "123" and int(base) % 100 == 0
        text = rig.ticket("t-3")
        assert "status: closed" in text and "By hand." in text and "<<<<" not in text
        git(tmp_path, "clone", "-q", str(rig.project), "clone")
        git(tmp_path / "clone", "-c", "alias.verify=!" + verify, "verify")
        assert (tmp_path / "clone/lib/util.py").exists() and (tmp_path / "clone/t-3.txt").exists()
        assert json.loads((rig.paths.tickets / "t-1.json").read_text())["attempt"] == 2
        rig.check_whole()
