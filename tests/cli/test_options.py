"""The options: where a value comes from, what it may be, and how a mistake is reported."""

import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import click
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ralph_rpc.errors import UsageError
from ralph_rpc.model.config import Config
from ralph_rpc.options.flags import click_options
from ralph_rpc.options.kinds import Wrong, _duration, _money, _size, _tokens
from ralph_rpc.options.resolve import override, resolve
from ralph_rpc.options.table import OPTIONS
from ralph_rpc.options.toml import user_config_file
from tests.effort import examples

Cli = dict[str, object]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "project"
    (folder / ".ralph").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return folder


def toml(project: Path, text: str) -> None:
    (project / ".ralph" / "config.toml").write_text(text)


def user_toml(text: str) -> None:
    user_config_file().parent.mkdir(parents=True, exist_ok=True)
    user_config_file().write_text(text)


def refusal(project: Path, cli: Cli | None = None, env: dict[str, str] | None = None) -> UsageError:
    with pytest.raises(UsageError) as raised:
        resolve(cli or {}, project, env or {})
    assert raised.value.code == 2
    return raised.value


def test_the_defaults_are_those_of_the_contract(project: Path) -> None:
    config = resolve({}, project, {}).config
    assert config == {
        "backend": "rpc",
        "hosts": [],
        "engine": None,
        "hub": None,
        "verifyParallel": None,
        "launcher": None,
        "launcherEnv": [],
        "queueTimeoutMs": 0,
        "leaseMs": 60_000,
        "model": None,
        "provider": None,
        "thinking": None,
        "maxIterations": 50,
        "maxCost": None,
        "maxTokens": None,
        "maxTimeMs": None,
        "iterationTimeoutMs": 7_200_000,
        "idleTimeoutMs": 900_000,
        "toolTimeoutMs": 3_600_000,
        "maxFailures": 10,
        "maxWaitMs": 8 * 86_400_000,
        "fallbackModels": [],
        "stallAfter": 5,
        "verify": None,
        "marker": "<promise>COMPLETE</promise>",
        "reflectEvery": 0,
        "worktree": None,
        "extensions": [],
        "skills": [],
        "approve": None,
        "uiAnswers": {},
        "logSize": 256 << 20,
        "logKeep": 4,
        "keepSessions": 100,
        "piMemory": 1 << 30,
        "shareCheckout": None,
        "pi": [],
        "piVersion": None,
        "piArgs": [],
        "parallel": 1,
        "attempts": 3,
        "only": [],
        "allowUntagged": None,
        "assignees": [],
        "tags": [],
        "takeInProgress": None,
        "componentPrefix": "component:",
        "keepWorktrees": None,
        "worktrees": None,
        "worktreesDir": None,
        "verifyClean": None,
        "worktreeSetup": None,
        "worktreeCopy": [],
        "into": None,
        "merge": None,
        "promptTemplate": None,
        "lessonsMax": 50,
        "notify": None,
    }


def test_every_key_of_the_config_has_its_option() -> None:
    keys = {option.key for option in OPTIONS if option.key}
    assert keys | {"schemaVersion", "piVersion", "tickets"} == set(Config.__annotations__)


def test_the_nearer_place_wins_and_is_named(project: Path) -> None:
    cli: Cli = {"max_cost": "1", "skill": (), "model": None}
    env = {"RALPH_MAX_COST": "2", "RALPH_MODEL": "two", "RALPH_HOME": "/x", "RALPH_LOOP": "y", "RALPH_MARKER": ""}
    toml(project, 'max-cost = 3\nmodel = "three"\n\nprovider = "three"\n')
    user_toml('# mine\nmax-cost = 4\nprovider = "four"\nthinking = "high"\n')
    resolved = resolve(cli, project, env)
    config, origins = resolved.config, resolved.origins
    assert (config["maxCost"], config["model"], config["provider"], config["thinking"]) == (1.0, "two", "three", "high")
    names = ("max-cost", "model", "provider", "thinking", "marker")
    assert [origins[name] for name in names] == [
        "--max-cost",
        "RALPH_MAX_COST".replace("MAX_COST", "MODEL"),
        ".ralph/config.toml line 4",
        "~/.config/ralph-rpc/config.toml line 4",
        "default",
    ]


def test_a_switch_can_be_turned_back_off(project: Path) -> None:
    toml(project, "approve = true")
    assert resolve({}, project, {}).config["approve"] is True
    resolved = resolve({"approve": False}, project, {"RALPH_APPROVE": "yes"})
    assert (resolved.config["approve"], resolved.origins["approve"]) == (False, "--no-approve")


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("90", 90_000),
        ("0.5", 500),
        ("30s", 30_000),
        ("10m", 600_000),
        ("1.5h", 5_400_000),
        ("1d", 86_400_000),
        ("1h30m", 5_400_000),
        ("0", 0),
    ],
)
def test_a_duration(text: str, ms: int) -> None:
    assert _duration(text, Path("/")) == ms


@pytest.mark.parametrize(
    ("text", "tokens"), [("1000", 1000), ("500k", 500_000), ("2M", 2_000_000), ("1.5m", 1_500_000), ("0", None)]
)
def test_a_number_of_tokens(text: str, tokens: int | None) -> None:
    assert _tokens(text, Path("/")) == tokens


@pytest.mark.parametrize(("text", "size"), [("512", 512), ("100M", 100 << 20), ("1GiB", 1 << 30), ("64kb", 64 << 10)])
def test_a_size(text: str, size: int) -> None:
    assert _size(text, Path("/")) == size


@pytest.mark.parametrize(("text", "usd"), [("2", 2.0), ("2.50", 2.5), ("$3", 3.0), ("0", None), ("0.00", None)])
def test_a_sum_of_money(text: str, usd: float | None) -> None:
    assert _money(text, Path("/")) == usd


@pytest.mark.slow
@given(st.text(max_size=12) | st.from_regex(r"[0-9.]{0,8}[smhdkMGB$]{0,3}"))
@settings(max_examples=examples(300))
def test_any_other_text_is_refused_and_never_an_error_of_ours(text: str) -> None:
    for parse in (_duration, _tokens, _size, _money):
        try:
            value = parse(text, Path("/"))
        except Wrong:
            continue
        assert value is None or 0 <= cast(float, value) <= 10**15


@pytest.mark.parametrize(
    ("cli", "told"),
    [
        ({"max_cost": "-1"}, "--max-cost: expected US dollars such as 2.50, not '-1'"),
        ({"max_cost": "nan"}, "--max-cost"),
        ({"max_tokens": "many"}, "--max-tokens: expected a number of tokens such as 500k or 2M, not 'many'"),
        ({"max_iterations": "-3"}, "--max-iterations: expected a whole number, 0 or more"),
        ({"max_iterations": "1e3"}, "--max-iterations"),
        ({"thinking": "hard"}, "--thinking: expected one of off, minimal, low, medium, high, xhigh, max, not 'hard'"),
        ({"idle_timeout": "10 minutes"}, "--idle-timeout: expected a duration"),
        ({"log_size": "0"}, "--log-size: must be more than 0"),
        ({"marker": "  "}, "--marker: must not be empty"),
        ({"marker": "two\nlines"}, "--marker: must be one line"),
        ({"model": "a\x1b[2J"}, "--model: must be one line without control characters"),
        ({"verify": ""}, "--verify: must not be empty"),
        ({"extension": ("there-is-none.ts",)}, "--extension: there is no '"),
        ({"reflect": "nowhere.md", "reflect_every": "3"}, "--reflect: there is no file '"),
        ({"ui_answers": "nowhere.json"}, "--ui-answers: there is no file '"),
        ({"pi_args": ("--mode", "json")}, "'--mode' cannot be handed to pi (after --)"),
        ({"pi_args": ("-c",)}, "'-c' cannot be handed to pi"),
        ({"pi_args": ("--session=abc",)}, "'--session=abc' cannot be handed to pi"),
    ],
)
def test_a_wrong_value_is_told_with_its_option(project: Path, cli: Cli, told: str) -> None:
    assert refusal(project, cli).message.startswith(told)


def test_a_wrong_value_is_told_with_its_variable(project: Path) -> None:
    assert refusal(project, env={"RALPH_MAX_TIME": "x"}).message.startswith("RALPH_MAX_TIME: expected a duration")
    assert (
        refusal(project, env={"RALPH_APPROVE": "maybe"}).message == "RALPH_APPROVE: expected true or false, not 'maybe'"
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("\nmax-cost = true\n", ".ralph/config.toml line 2: max-cost: expected US dollars"),
        ('\n\nmax-iterations = "x"\n', ".ralph/config.toml line 3: max-iterations: expected a whole number"),
        ("max-iterations = 2.5", ".ralph/config.toml line 1: max-iterations: expected a whole number"),
        ("max-cost = inf", ".ralph/config.toml line 1: max-cost: expected US dollars"),
        ("max-cost = -1.5", ".ralph/config.toml line 1: max-cost: expected US dollars"),
        ('approve = "yes"', ".ralph/config.toml line 1: approve: expected true or false"),
        ("model = 5", ".ralph/config.toml line 1: model: expected quoted text"),
        ('skill = "one"', ".ralph/config.toml line 1: skill: expected a list of quoted paths"),
        ("skill = [1]", ".ralph/config.toml line 1: skill: expected a list of quoted paths"),
        ("[ui-answers]\nSure = 1", ".ralph/config.toml line 1: ui-answers: must be an object"),
        ('verify = """\nmax-cost = 1\n"""\nmax-cost = "a"', ".ralph/config.toml line 4: max-cost"),
        ("max-cost = \n", ".ralph/config.toml line 1 is not TOML"),
        ('model = "a', ".ralph/config.toml line 1 is not TOML"),
        ("x = 1\nx = 2", ".ralph/config.toml line 2 is not TOML"),
    ],
)
def test_a_mistake_in_a_file_is_told_with_its_line(project: Path, text: str, told: str) -> None:
    toml(project, text)
    assert refusal(project).message.startswith(told)


@pytest.mark.parametrize(
    ("key", "meant"),
    [("max_cost", "max-cost"), ("maxCost", "max-cost"), ("modle", "model"), ("idle-timout", "idle-timeout")],
)
def test_an_unknown_key_names_what_was_meant(project: Path, key: str, meant: str) -> None:
    toml(project, f"# one\n{key} = 1")
    error = refusal(project)
    assert error.message == f".ralph/config.toml line 2: unknown key {key!r}"
    assert error.hint == f"did you mean {meant!r}?"


def test_a_wrong_file_is_told_even_if_its_values_would_not_count(project: Path) -> None:
    user_toml("max-cost = []")
    assert refusal(project, {"max_cost": "1"}).message.startswith("~/.config/ralph-rpc/config.toml line 1: max-cost")
    (project / ".ralph" / "config.toml").write_bytes(b"\xff")
    user_config_file().unlink()
    assert refusal(project).message == ".ralph/config.toml is not UTF-8 (byte 0)"


def test_paths_count_from_where_they_are_written(project: Path, tmp_path: Path) -> None:
    for folder in (project, tmp_path, user_config_file().parent):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "ext.ts").write_text("")
    toml(project, 'extension = ["ext.ts"]\nskill = ["../ext.ts"]\npi = "bin/pi"')
    user_toml('skill = ["ext.ts"]')
    config = resolve({}, project, {}).config
    assert (config["extensions"], config["skills"], config["pi"]) == (
        [str(project / "ext.ts")],
        [str(tmp_path / "ext.ts")],
        [str(project / "bin/pi")],
    )
    toml(project, "")
    assert resolve({}, project, {}).config["skills"] == [str(user_config_file().parent / "ext.ts")]
    assert resolve({"extension": ("ext.ts", "project/ext.ts")}, project, {}).config["extensions"] == [
        str(tmp_path / "ext.ts"),
        str(project / "ext.ts"),
    ]
    assert resolve({}, project, {"RALPH_EXTENSION": "ext.ts:project/ext.ts"}).config["extensions"][1] == str(
        project / "ext.ts"
    )
    assert resolve({"pi": "pi"}, project, {}).config["pi"] == ["pi"]


def test_answers_to_dialogs_come_from_a_file_or_a_table(project: Path, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"Sure?": true, "Name": "x"}')
    assert resolve({"ui_answers": "a.json"}, project, {}).config["uiAnswers"] == {"Sure?": True, "Name": "x"}
    toml(project, '[ui-answers]\n"Sure?" = false\n')
    resolved = resolve({}, project, {})
    assert (resolved.config["uiAnswers"], resolved.origins["ui-answers"]) == (
        {"Sure?": False},
        ".ralph/config.toml line 1",
    )
    for wrong in ("[]", '{"a": 1}', "{", '{"a": null}'):
        (tmp_path / "a.json").write_text(wrong)
        assert "a.json'" in refusal(project, {"ui_answers": "a.json"}).message


def test_the_reflection_prompt_is_read_and_needs_its_rhythm(project: Path, tmp_path: Path) -> None:
    (tmp_path / "r.md").write_text("Think.\n")
    assert resolve({"reflect": "r.md", "reflect_every": "2"}, project, {}).reflect == "Think.\n"
    toml(project, 'reflect = "../r.md"')
    assert refusal(project).message == ".ralph/config.toml line 1 needs --reflect-every"


def test_arguments_of_pi_may_stand_in_the_environment_and_in_files(project: Path) -> None:
    toml(project, 'pi-args = ["--no-skills", "a b"]')
    assert resolve({}, project, {}).config["piArgs"] == ["--no-skills", "a b"]
    assert resolve({}, project, {"RALPH_PI_ARGS": "-nc 'c d'"}).config["piArgs"] == ["-nc", "c d"]
    resolved = resolve({"pi_args": ("-x",)}, project, {"RALPH_PI_ARGS": "-nc"})
    assert (resolved.config["piArgs"], resolved.origins["pi-args"]) == (["-x"], "after --")


def test_stored_options_stay_but_for_those_given(project: Path) -> None:
    stored = resolve({"max_cost": "5", "model": "m"}, project, {}).config
    resolved = override({**stored, "stallAfter": 9}, {"model": "n"})
    assert (resolved.config["maxCost"], resolved.config["model"], resolved.config["stallAfter"]) == (5.0, "n", 9)
    assert (resolved.origins["model"], resolved.origins["max-cost"]) == ("--model", "config.json")


def test_options_that_an_older_version_did_not_store_get_their_defaults() -> None:
    assert override(cast(Config, {"model": "m"}), {}).config["maxIterations"] == 50


def test_options_are_resolved_without_click() -> None:
    code = "import sys, ralph_rpc.options.resolve; sys.exit('click' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_click_knows_the_whole_table() -> None:
    @click.command()
    @click_options({})
    def command(**_cli: Any) -> None: ...

    flags = {flag for param in command.params for flag in (*param.opts, *param.secondary_opts)}
    assert {f"--{option.name}" for option in OPTIONS if option.name != "pi-args"} | {
        "-n",
        "--no-approve",
        "--no-allow-untagged",
        "--no-keep-worktrees",
        "--no-take-in-progress",
        "--no-merge",
        "--no-share-checkout",
        "--no-worktrees",
        "--no-verify-clean",
    } == flags


def test_fallback_models_are_checked_and_keep_their_order_and_colons(project: Path) -> None:
    given = resolve({"fallback_model": ("a/b", "ollama/llama3:8b")}, project, {})
    assert given.config.get("fallbackModels") == ["a/b", "ollama/llama3:8b"]
    from_env = resolve({}, project, {"RALPH_FALLBACK_MODEL": "a/b,open/x/y:free", "RALPH_MAX_WAIT": "2d"})
    assert from_env.config.get("fallbackModels") == ["a/b", "open/x/y:free"]
    assert from_env.config.get("maxWaitMs") == 2 * 86_400_000
    for wrong in ("gpt-5", "/x", "x/", "a b/c"):
        with pytest.raises(UsageError, match="--fallback-model: expected PROVIDER/ID"):
            resolve({"fallback_model": (wrong,)}, project, {})


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("RALPH_MAXCOST", "RALPH_MAX_COST"),
        ("RALPH_MAX_COSTS", "RALPH_MAX_COST"),
        ("RALPH_max_cost", "RALPH_MAX_COST"),
        ("RALPH_ITERATIONS", "RALPH_MAX_ITERATIONS"),
        ("RALPH_VERIFYY", "RALPH_VERIFY"),
    ],
)
def test_a_mistyped_variable_is_refused_as_a_mistyped_key_is(project: Path, variable: str, meant: str) -> None:
    told = refusal(project, env={variable: "5"})
    assert variable in told.message and told.hint == f"did you mean {meant}?"


def test_variables_of_ours_and_of_others_are_no_mistakes(project: Path) -> None:
    ours = ["HOME", "LOOP", "LOOP_DIR", "TICKET", "WORKER", "MESSAGE", "ITERATION", "COST", "TEST_PI_CACHE", "RPC_X"]
    assert resolve({}, project, {f"RALPH_{name}": "x" for name in ours}).warnings == ()
    told = resolve({}, project, {"RALPH_XYZZY": "1", "OTHER": "1"}).warnings
    assert told == ("RALPH_XYZZY is set, but it is no option of ralph-rpc",)
