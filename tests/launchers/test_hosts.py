"""`--hosts`: tickets on several machines, each with its slots; one that fails is rested, and its tickets go elsewhere.

The machines are names behind a prefix that says which one it is, so every one can be made to fail.
"""

import json
import os
import signal
from pathlib import Path

import pytest

from ralph_rpc.launchers.hosts import FIRST_REST_S, LONGEST_REST_S, TAKEN_S, Hosts, parse_hosts
from tests.rig import wait_for
from tests.ticket_rig import HOLD, TicketRig, does, fake_tickets

FAR = """sh -c 'if [ -e {folder}/down-$0 ]; then echo ssh: connect to host $0: Connection refused >&2; exit 255; fi; \
echo $0 $1 >> {folder}/started; shift; exec "$@"' {{host}} {{ticket}}"""


def hosts_rig(tmp_path: Path, tickets: int, *before: str) -> tuple[TicketRig, list[str], list[str]]:
    """A rig, its tickets, and the options that reach the hosts."""
    rig = fake_tickets(tmp_path, {"usual": [does(*before)]})
    ids = [f"t-{n + 1}" for n in range(tickets)]
    for id in ids:
        rig.add(id, id)
    return rig, ids, ["--launcher", FAR.format(folder=tmp_path)]


def started(tmp_path: Path) -> list[list[str]]:
    path = tmp_path / "started"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def test_hosts_are_read_with_their_slots() -> None:
    assert parse_hosts(["a:4", "me@b.example:12", "c", "[::1]:2"]) == {"a": 4, "me@b.example": 12, "c": 1, "[::1]": 2}


@pytest.mark.parametrize("text", ["", "a:0", "a:x", ":3", "a b", "-oProxyCommand=x:1", "a:1:2"])
def test_what_is_no_host_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="HOST:SLOTS"):
        parse_hosts([text])


def test_a_host_is_named_once() -> None:
    with pytest.raises(ValueError, match="twice"):
        parse_hosts(["a:1", "a:2"])


def test_slots_are_taken_from_the_freest_host_and_given_back() -> None:
    hosts = Hosts({"a": 2, "b": 4})
    assert [hosts.take(0) for _ in range(6)] == ["a", "b", "b", "a", "b", "b"]
    assert hosts.take(0) == TAKEN_S
    hosts.give_back("a")
    assert hosts.take(0) == "a"


def test_a_host_that_fails_is_rested_longer_each_time_until_it_works() -> None:
    hosts = Hosts({"a": 1, "b": 1})
    assert hosts.take(0) == "a"
    assert hosts.failed("a", "refused", 0) == FIRST_REST_S
    hosts.give_back("a")
    assert hosts.take(1) == "b" and hosts.have_hope
    assert hosts.take(1) == TAKEN_S
    hosts.give_back("b")
    hosts.failed("b", "refused", 1)
    assert not hosts.have_hope
    assert hosts.take(2) == FIRST_REST_S - 2
    assert hosts.take(FIRST_REST_S) == "a"
    assert hosts.failed("a", "refused", 0) == 2 * FIRST_REST_S
    rests = [hosts.failed("a", "refused", 0) for _ in range(20)]
    assert rests[-1] == LONGEST_REST_S
    hosts.worked("a")
    assert hosts.failed("a", "refused", 0) == FIRST_REST_S and hosts.have_hope


@pytest.mark.usefixtures("no_leftovers")
def test_every_host_works_within_its_slots_and_all_is_merged(tmp_path: Path) -> None:
    rig, ids, via = hosts_rig(tmp_path, 6, HOLD)
    rig.begin("--hosts", "a:1,b:2", *via)
    wait_for("three at work", lambda: len(started(tmp_path)) == 3)
    wait_for("their places", lambda: sum(h["taken"] for h in rig.state()["tickets"].get("hosts", [])) == 3)
    rows = {host["host"]: (host["taken"], host["slots"]) for host in rig.state()["tickets"]["hosts"]}
    assert rows == {"a": (1, 1), "b": (2, 2)} and rig.state()["config"]["parallel"] == 3
    wait_for("where they work", lambda: all("far" in one for one in rig.state()["tickets"]["running"]))
    assert "running on b" in rig.run("tickets", "x").stdout
    told = rig.run("status", "x").stdout
    assert "1 of 1 slots taken" in told and "2 of 2 slots taken" in told and " on b" in told
    rig.let_go(*ids)
    rig.check_done(*ids)
    assert sorted(ticket for _, ticket in started(tmp_path)) == ids
    assert {one["host"] for one in rig.records()} == {"a", "b"}
    assert "pi started on b" in rig.run("logs", "x", "-n", "2000").stdout
    hosts = json.loads(rig.run("report", "x", "--format", "json").stdout)["hosts"]
    assert sum(len(one["iterations"]) for one in hosts) == 6 and {one["lost"] for one in hosts} == {0}
    assert "Machines" in rig.run("report", "x", "--format", "md").stdout


@pytest.mark.usefixtures("no_leftovers")
def test_a_host_that_is_down_is_rested_and_its_tickets_go_elsewhere(tmp_path: Path) -> None:
    rig, ids, via = hosts_rig(tmp_path, 4)
    (tmp_path / "down-a").touch()
    rig.begin("--hosts", "a:2,b:2", *via)
    rig.check_done(*ids)
    assert {host for host, _ in started(tmp_path)} == {"b"}
    assert all(rig.dispatch(id)["attempt"] == 1 for id in ids)
    assert any("host a is rested for 30 s: ssh: connect to host a" in n["message"] for n in rig.of("ralph_notice"))


@pytest.mark.usefixtures("no_leftovers")
def test_a_host_that_is_lost_costs_its_ticket_no_attempt(tmp_path: Path) -> None:
    rig, ids, via = hosts_rig(tmp_path, 2, HOLD)
    rig.begin("--hosts", "a:1,b:1", *via, "--lease", "8s")
    wait_for("two at work", lambda: len(started(tmp_path)) == 2)
    rig.wait_held(*ids)
    (tmp_path / "down-a").touch()
    lost = next(ticket for host, ticket in started(tmp_path) if host == "a")
    os.kill(rig.dispatch(lost)["pid"], signal.SIGKILL)
    wait_for("its rest", lambda: any("restedUntil" in host for host in rig.state()["tickets"]["hosts"]))
    rig.let_go(*ids)
    rig.check_done(*ids)
    assert started(tmp_path)[-1] == ["b", lost]
    assert rig.dispatch(lost)["attempt"] == 1
    assert [one.get("errorKind") for one in rig.attempts(lost)] == ["lost", None]


@pytest.mark.usefixtures("no_leftovers")
def test_where_no_host_can_start_anything_that_is_said_at_once(tmp_path: Path) -> None:
    rig, _, via = hosts_rig(tmp_path, 2)
    for host in "ab":
        (tmp_path / f"down-{host}").touch()
    done = rig.begin("--hosts", "a:1,b:1", *via, check=None)
    assert done.returncode in (0, 1, 5), done
    # Whoever looks in between sees the loop wait for the second host.
    told = done.stderr if done.returncode else rig.wait_end()["error"]
    assert "Connection refused" in told, (done, told)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--hosts", "a:x"], "expected HOST:SLOTS"),
        (["--hosts", "a:1,a:2"], "named twice"),
        (["--hosts", "a:1", "--launcher", "srun"], "names no {host}"),
        (["--launcher", "env {host}"], "needs --hosts"),
    ],
)
def test_bad_hosts_are_said_in_one_line(tmp_path: Path, options: list[str], says: str) -> None:
    rig, _, _ = hosts_rig(tmp_path, 1)
    done = rig.begin(*options, check=2)
    assert says in done.stderr and len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_hosts_are_for_tickets(tmp_path: Path) -> None:
    rig, _, _ = hosts_rig(tmp_path, 1)
    assert "is for ticket loops" in rig.run("start", "x", "-m", "w", "--hosts", "a:1", check=2).stderr


def test_ssh_reaches_them_where_no_launcher_is_given(tmp_path: Path) -> None:
    rig, _, _ = hosts_rig(tmp_path, 1)
    rig.commit()
    told = json.loads(rig.begin("--hosts", "a:3,b:4", "--dry-run", "--json").stdout)["options"]
    assert told["launcher"]["value"] == "ssh:{host}" and told["parallel"]["value"] == 7
