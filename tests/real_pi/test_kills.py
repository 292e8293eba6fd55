"""Real pi under kills: what tests/faults/test_killed.py counts on the fake one, in a smaller number."""

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ralph_rpc.demo.model import Reply
from tests.faults.lives import Life, Tally, Victim, forest
from tests.process.trees import new_token, nothing_of
from tests.real_pi.scripted_model import MODEL_ARGS, ScriptedModel
from tests.rig import Rig, new_project

pytestmark = [pytest.mark.pi, pytest.mark.full, pytest.mark.timeout(900)]
WORD = re.compile(r"\bword-[0-9]+\b")
VICTIMS: list[tuple[Victim, ...]] = [("runner",), ("pi",), ("runner",), ("guard",), ("runner", "pi")]
"""Of one life. A third new pi under the same count of crashes would be long in coming."""
LIVES = 2
COMMANDS = 5


@pytest.fixture
def token() -> Iterator[str]:
    token = new_token()
    with nothing_of(token):
        yield token


def new_words(messages: list[dict[str, Any]]) -> set[str]:
    """What the user says after the last answer."""
    since = max((i for i, m in enumerate(messages) if m["role"] == "assistant"), default=-1)
    return set(WORD.findall(" ".join(json.dumps(m["content"]) for m in messages[since + 1 :] if m["role"] == "user")))


class Witness:
    """The scripted model, which notes what it is shown; how many pis there were is in the event log."""

    def __init__(self, token: str, journal: Path) -> None:
        self._token, self._journal = token, journal
        self._shown: list[dict[str, Any]] = []
        self.rig: Rig | None = None

    def script(self, request: dict[str, Any], n: int) -> Reply:
        if new := new_words(request["messages"]):
            receipts = [json.loads(line) for line in self._journal.read_bytes().split(b"\n")[:-1]]
            delivered = {one["id"] for one in receipts if one["state"] == "delivered"}
            self._shown.append({"saw": sorted(new), "again": sorted(new & delivered)})
        if all(m["role"] != "assistant" for m in request["messages"]):
            command = f"{forest(self._token, 'deaf')}; sleep 0.2"
            return Reply("running ", tool_calls=[("bash", {"command": command})])
        return Reply("done")

    def told(self) -> list[dict[str, Any]]:
        assert self.rig is not None
        starts = [{"start": e["pid"], "overlap": False, "left": []} for e in self.rig.of("ralph_pi_start")]
        return [*starts, *self._shown]


def live(folder: Path, token: str, pi: str, seed: int) -> Tally:
    folder.mkdir()
    project = new_project(folder / "project")
    witness = Witness(token, project / ".ralph" / "x" / "commands.jsonl")
    with ScriptedModel(witness.script) as model:
        rig = witness.rig = Rig(project, pi, model.agent_dir(folder), list(MODEL_ARGS))
        os.environ["PI_CODING_AGENT_DIR"] = rig.env["PI_CODING_AGENT_DIR"]
        life = Life(rig, token, witness.told, seed)
        life.begin()
        for victims in VICTIMS:
            before = life.starts()
            life.while_speaking(COMMANDS, 1.0, lambda: time.sleep(life.random.uniform(0, 2)))
            life.kill(*victims)
            life.gone()
            if "runner" in victims:
                life.go_on()
            life.await_pi(before)
        return life.end()


def test_row_02_04_06_real_pi_killed_with_its_guard_and_its_runner_loses_nothing(
    tmp_path: Path,
    pi: list[str],
    token: str,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> None:
    monkeypatch.setenv("PI_CODING_AGENT_DIR", "")  # so that it is as before afterwards
    tally = sum((live(tmp_path / f"{n}", f"{token}{n}", pi[-1], n) for n in range(LIVES)), Tally())
    record_property("figure", str(tally))
    assert not (tally.lost or tally.repeated or tally.unflagged), tally
    assert tally.redeliveries <= tally.kills, tally
