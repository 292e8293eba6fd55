"""`--hosts` over real sshds: each machine a network namespace with a PID namespace of its own, so that one can be cut off
or break down while agents work on it."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.launchers.machines import FarMachine, Machines, launcher, machines, why_not
from tests.process.trees import new_token, nothing_of, survivors, until
from tests.rig import wait_for
from tests.ticket_rig import HOLD, TicketRig, does, fake_tickets

pytestmark = [
    pytest.mark.usefixtures("no_leftovers"),
    pytest.mark.skipif(why_not() is not None, reason=why_not() or ""),
    pytest.mark.timeout(300),
]


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Machines]:
    with machines(tmp_path / "machines", far=3) as made:
        yield made


@pytest.fixture
def token() -> Iterator[str]:
    token = new_token()
    with nothing_of(token):
        yield token


def begin(tmp_path: Path, three: Machines, count: int, before: list[str], *more: str) -> tuple[TicketRig, list[str]]:
    """A loop on the near machine with one slot on each far one."""
    rig = fake_tickets(tmp_path, {"usual": [does(*before)]})
    rig.started_by = three.near.inside(rig.project)
    ids = [f"t-{n + 1}" for n in range(count)]
    for id in ids:
        rig.add(id, id)
    rig.commit()
    hosts = ",".join(far.address for far in three.fars)
    rig.begin("--hosts", hosts, "--launcher", launcher([*three.options(), "root@{host}"]), *more)
    return rig, ids


def places(rig: TicketRig, count: int) -> dict[str, str]:
    """Which machine works on which ticket, once all of the `count` are at it."""

    def found() -> dict[str, str] | None:
        running = rig.state()["tickets"]["running"]
        known = {one["far"]["host"]: one["ticket"] for one in running if one.get("far")}
        return known if len(known) == count else None

    return wait_for(f"{count} machines at work\n{rig.log()}", found, 120)


def check_done(rig: TicketRig, ids: list[str]) -> None:
    """All are closed, each after one attempt, and merged once. The runner's pid means nothing outside of its machine."""
    rig.wait_status("completed", timeout=200)
    assert rig.merges() == dict.fromkeys(ids, 1)
    assert {rig.dispatch(id)["status"] for id in ids} == {"closed"}
    assert {rig.dispatch(id)["attempt"] for id in ids} == {1}


def test_every_machine_has_work_and_all_is_merged(tmp_path: Path, three: Machines) -> None:
    rig, ids = begin(tmp_path, three, 5, [HOLD])
    assert set(places(rig, 3)) == {far.address for far in three.fars}
    rig.let_go(*ids)
    check_done(rig, ids)
    assert {one["host"] for one in rig.records()} == {far.address for far in three.fars}


def test_machines_that_are_cut_off_or_break_down_cost_no_attempt(tmp_path: Path, three: Machines, token: str) -> None:
    """The cut one ends its agent by itself; its ticket goes elsewhere, but not before its lease has run out."""
    rig, ids = begin(tmp_path, three, 4, [f"setsid sleep {token} > /dev/null 2>&1 & {HOLD}"], "--lease", "8s")
    at = places(rig, 3)
    rig.wait_held(*at.values())
    sound, broken, cut = three.fars
    broken.break_down()
    cut.cable(up=False)
    until(lambda: not any(is_in(cut, pid) for pid in survivors(token)), "no agent behind the cut cable", 60)

    def rested() -> set[str]:
        return {host["host"] for host in rig.state()["tickets"]["hosts"] if "restedUntil" in host}

    wait_for(f"the rest of two machines\n{rig.log()}", lambda: rested() == {broken.address, cut.address}, 60)
    rig.let_go(*ids)
    check_done(rig, ids)
    for far in (broken, cut):
        first, *_, last = rig.attempts(at[far.address])
        assert (first["host"], first["errorKind"]) == (far.address, "lost"), rig.attempts(at[far.address])
        assert (last["host"], last["outcome"]) == (sound.address, "ok"), rig.attempts(at[far.address])
    until(lambda: not survivors(token), "nobody is left")


def is_in(far: FarMachine, pid: int) -> bool:
    spaces = []
    for one in (far.init, pid):
        with suppress(OSError):
            spaces.append(Path(f"/proc/{one}/ns/pid").readlink())
    return len(spaces) == 2 and spaces[0] == spaces[1]
