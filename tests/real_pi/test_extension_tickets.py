"""A ticket loop inside real pi: one worker in front, its queue in the header, and the way to the other ones."""

from pathlib import Path

import pytest

from tests.real_pi.inside import SETTINGS, Inside, inside
from tests.real_pi.scripted_model import MODEL_ARGS, ScriptedModel
from tests.real_pi.test_tickets import Agents, works
from tests.rig import wait_for
from tests.ticket_rig import HOLD, TicketRig, backlog_project

pytestmark = pytest.mark.timeout(400)


def header(one: Inside) -> str:
    """The line above the editor."""
    return next((line for line in reversed(one.terminal.screen().split("\n")) if "typing goes to" in line), "")


def shows(one: Inside, *texts: str) -> None:
    wait_for(f"{texts} in the header of\n{one.terminal.screen()}", lambda: all(text in header(one) for text in texts))


def test_a_ticket_loop_shows_one_worker_and_its_queue_and_goes_to_another_on_demand(
    tmp_path: Path, pi: list[str]
) -> None:
    agents = Agents({id: works(f"echo {id} at work", HOLD) for id in ("t-1", "t-2", "t-3")})
    with ScriptedModel(agents) as model:
        project = backlog_project(tmp_path / "project")
        rig = TicketRig(project, pi[-1], model.agent_dir(tmp_path, SETTINGS), list(MODEL_ARGS))
        rig.add("t-1", "one")
        rig.add("t-2", "two")
        rig.add("t-3", "three", deps=("t-1",))
        rig.commit()
        options = {"RALPH_PI": rig.pi, "RALPH_PROVIDER": MODEL_ARGS[1], "RALPH_MODEL": MODEL_ARGS[3]}
        with inside(tmp_path, rig, pi, model, options) as one:
            one.starts()
            one.enters("/ralph start x --tickets --parallel 2")
            rig.wait_held("t-1", "t-2")
            shows(one, "x · running", "ticket t-", "0/3 tickets, 2 run")
            one.enters("/ralph attach x t-1")
            shows(one, "ticket t-1")
            one.sees("t-1 at work")
            one.enters("/ralph attach x t-2")
            shows(one, "ticket t-2")
            one.sees("t-2 at work")
            one.enters("mind the gap")
            one.sees("mind the gap · queued")
            (step,) = [step for step in rig.of("ralph_command") if step["state"] == "accepted"]
            assert step["ticket"] == "t-2"
            one.terminal.presses("M-t")
            shows(one, "ticket t-1")
            one.terminal.presses("M-t")
            shows(one, "ticket t-2")
            one.enters("/ralph tickets")
            one.sees("t-3", "t-1")
            # One that was chosen stays, whatever becomes of it.
            rig.let_go("t-2")
            rig.wait_dispatch("t-2", "closed")
            shows(one, "ticket t-2", "1/3 tickets")
            # One that was not makes room for the next.
            one.enters("/ralph attach x")
            shows(one, "ticket t-1")
            rig.let_go("t-1")
            rig.wait_held("t-3")
            shows(one, "ticket t-3", "2/3 tickets")
            one.sees("t-3 at work")
            rig.let_go("t-3")
            one.sees("completed (tickets-done)")
            one.quits()
        assert agents.of("t-2")[-1].texts[1:] == ["mind the gap"]
