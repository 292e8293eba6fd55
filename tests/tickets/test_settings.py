"""`.tf/config/settings.json`: the defaults of ticket loops where a project has one, for the options that its keys mean."""

import json
from pathlib import Path
from typing import Any

import pytest

from ralph_rpc.errors import UsageError
from ralph_rpc.loops.consent import Untrusted, agree, require
from ralph_rpc.options.resolve import Resolved, resolve
from tests.ticket_rig import TicketRig, fake_tickets

pytestmark = pytest.mark.usefixtures("no_leftovers")
ALL = {
    "parallelWorkers": 3,
    "parallelWorktreesDir": ".tf/ralph/worktrees",
    "parallelAllowUntagged": False,
    "componentTagPrefix": "area:",
    "parallelKeepWorktrees": True,
    "parallelAutoMerge": False,
    "attemptTimeoutMs": 600_000,
    "maxRestarts": 1,
}


def given(project: Path, settings: Any, **cli: object) -> Resolved:
    write(project, settings)
    return resolve(cli, project, {}, tickets=True)


def write(project: Path, settings: Any) -> None:
    (project / ".tf" / "config").mkdir(parents=True, exist_ok=True)
    text = settings if isinstance(settings, str) else json.dumps(settings)
    (project / ".tf" / "config" / "settings.json").write_text(text)


@pytest.mark.parametrize("settings", [ALL, {"ralph": ALL, "metaModels": {}}, {"ralph": ALL, "parallelWorkers": 9}])
def test_each_key_is_the_default_of_the_option_that_it_means(tmp_path: Path, settings: dict[str, Any]) -> None:
    found = given(tmp_path, settings)
    config: dict[str, Any] = {**found.config}
    assert {key: config[key] for key in ("parallel", "attempts", "iterationTimeoutMs")} == {
        "parallel": 3,
        "attempts": 2,
        "iterationTimeoutMs": 600_000,
    }
    assert found.config.get("allowUntagged") is False and found.config.get("componentPrefix") == "area:"
    assert found.config.get("keepWorktrees") is True and found.config.get("merge") is False
    assert found.origins["parallel"] == ".tf/config/settings.json parallelWorkers"
    assert found.origins["attempts"] == ".tf/config/settings.json maxRestarts"
    assert found.origins["max-cost"] == "default"


def test_every_other_place_but_the_users_own_file_is_stronger(tmp_path: Path) -> None:
    (tmp_path / ".ralph").mkdir()
    (tmp_path / ".ralph" / "config.toml").write_text("attempts = 5\n")
    found = given(tmp_path, ALL, parallel="2")
    assert (found.config.get("parallel"), found.origins["parallel"]) == (2, "--parallel")
    assert (found.config.get("attempts"), found.origins["attempts"]) == (5, ".ralph/config.toml line 1")


def test_they_are_nothing_to_a_task_loop_and_other_keys_are_nothing_at_all(tmp_path: Path) -> None:
    write(tmp_path, ALL)
    assert resolve({}, tmp_path, {}).config["iterationTimeoutMs"] == 7_200_000
    write(tmp_path, "{")
    resolve({}, tmp_path, {})
    plain = resolve({}, tmp_path / "elsewhere", {}, tickets=True)
    assert (
        given(tmp_path, {"metaModels": [], "ralph": {"parallelMagic": 7, "maxRestarts": None}}).config == plain.config
    )


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"parallelWorkers": 0}, "parallelWorkers: must be at least 1"),
        ({"parallelWorkers": "many"}, "parallelWorkers: expected a whole number, 0 or more, not 'many'"),
        ({"parallelWorkers": 1.5}, "parallelWorkers: expected a whole number, 1 or more"),
        ({"ralph": {"parallelWorkers": True}}, "parallelWorkers: expected a whole number, 1 or more"),
        ({"parallelAllowUntagged": "yes"}, "parallelAllowUntagged: expected true or false"),
        ({"componentTagPrefix": ""}, "componentTagPrefix: must not be empty"),
        ({"componentTagPrefix": ["a"]}, "componentTagPrefix: expected quoted text"),
        ({"parallelAutoMerge": 1}, "parallelAutoMerge: expected true or false"),
        ({"attemptTimeoutMs": -1}, "attemptTimeoutMs: expected milliseconds, 0 or more; 0 is no limit"),
        ({"attemptTimeoutMs": "10m"}, "attemptTimeoutMs: expected milliseconds, 0 or more; 0 is no limit"),
        ({"maxRestarts": -1}, "maxRestarts: expected a whole number, 0 or more"),
        ("{", "is not JSON (unexpected end of data, line 1 column 2)"),
        ("[]", "holds no JSON object"),
    ],
)
def test_a_bad_value_is_one_clear_line_with_file_and_key(tmp_path: Path, settings: Any, why: str) -> None:
    with pytest.raises(UsageError) as caught:
        given(tmp_path, settings)
    assert caught.value.message == f".tf/config/settings.json {why}"


@pytest.mark.parametrize("link", [".tf", ".tf/config"])
def test_no_link_is_followed(tmp_path: Path, link: str) -> None:
    write(tmp_path / "real", ALL)
    (tmp_path / link).parent.mkdir(exist_ok=True)
    (tmp_path / link).symlink_to(tmp_path / "real" / link)
    assert resolve({}, tmp_path, {}, tickets=True).config.get("parallel") == 1


def test_what_they_loosen_counts_once_the_user_has_agreed(tmp_path: Path) -> None:
    require(tmp_path, given(tmp_path, {**ALL, "parallelWorkers": 1}))
    found = given(tmp_path, ALL)
    with pytest.raises(Untrusted, match=r"settings\.json sets parallel") as caught:
        require(tmp_path, found)
    agree(caught.value.subject)
    require(tmp_path, found)
    require(tmp_path, given(tmp_path, {**ALL, "somethingElse": 7}))
    with pytest.raises(Untrusted):
        require(tmp_path, given(tmp_path, {**ALL, "parallelWorkers": 4}))
    require(tmp_path, given(tmp_path, {**ALL, "parallelWorkers": 4}, parallel="2"))


@pytest.fixture
def rig(tmp_path: Path) -> TicketRig:
    rig = fake_tickets(tmp_path)
    rig.add("t-1")
    write(rig.project, {"ralph": ALL})
    rig.commit()
    return rig


def test_a_dry_run_says_which_file_and_key_gave_an_option(rig: TicketRig) -> None:
    shown = rig.begin("--dry-run").stdout.splitlines()
    assert [line.split(maxsplit=2)[1:] for line in shown if line.startswith("  parallel ")] == [
        ["3", ".tf/config/settings.json parallelWorkers, not agreed to"]
    ]
    assert any(line.endswith("  .tf/config/settings.json attemptTimeoutMs") for line in shown)
    told = json.loads(rig.begin("--dry-run", "--json").stdout)["options"]
    assert told["iteration-timeout"] == {"value": 600_000, "origin": ".tf/config/settings.json attemptTimeoutMs"}


def test_a_loop_of_one_worker_is_not_stopped_by_what_they_say_of_several(rig: TicketRig) -> None:
    rig.begin("--parallel", "1")
    assert rig.wait_end()["status"] == "completed"
    assert rig.status_of("t-1") == "closed" and rig.worktrees() == []


def test_a_loop_starts_with_them_once_they_are_trusted(rig: TicketRig) -> None:
    told = rig.begin(check=2).stderr
    assert "settings.json sets parallel" in told and "ralph-rpc trust" in told
    assert "parallelWorkers: parallel = 3" in rig.run("trust").stdout
    rig.begin("--merge", "--no-keep-worktrees")
    rig.check_done("t-1")
