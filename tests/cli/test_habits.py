"""What people type out of habit: no NAME where one loop is meant, short commands, help with examples."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import click
import orjson
import pytest

from ralph_rpc import errors
from ralph_rpc.cli import grouped
from ralph_rpc.cli.examples import EXAMPLES
from ralph_rpc.cli.main import ALIASES, COMMANDS, program, run
from ralph_rpc.cli.manpage import EXIT_CODES, manpage
from ralph_rpc.cli.meant import addressed
from tests.cli import forged
from tests.cli.stage import Stage

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "web"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def living(project: Path) -> Iterator[ExitStack]:
    """Loops that are entered into it live as long as the test."""
    with ExitStack() as held:
        yield held


def lives(living: ExitStack, project: Path, name: str, status: str = "running") -> None:
    living.enter_context(forged.runner_of(forged.loop(project, name, alive=True, status=status)))


def sent(project: Path, name: str) -> list[dict[str, str]]:
    inbox = project / ".ralph" / name / "inbox"
    return [orjson.loads(file.read_bytes()) for file in sorted(inbox.glob("*.json"))]


# no NAME


@pytest.mark.parametrize(
    ("args", "verb"),
    [
        (["stop"], "stop"),
        (["pause"], "pause"),
        (["abort"], "abort"),
        (["steer", "Leave the parser alone."], "steer"),
        (["steer", "-m", "x"], "steer"),
        (["followup", "Update the docs, too."], "followup"),
    ],
)
def test_the_only_loop_that_runs_is_meant_and_named(
    project: Path, living: ExitStack, capsys: Capture, args: list[str], verb: str
) -> None:
    forged.loop(project, "ended", status="stopped")
    lives(living, project, "works")
    assert run(args) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("works: ") and shown.err == "ralph-rpc: meant is works (running)\n"
    assert [body["type"] for body in sent(project, "works")] == [verb]
    assert sent(project, "ended") == []


def test_of_several_loops_none_is_guessed_and_all_are_named(project: Path, living: ExitStack, capsys: Capture) -> None:
    lives(living, project, "one")
    lives(living, project, "two", "paused")
    for args in (["stop"], ["steer", "Be quick, please."], ["kill"], ["logs"], ["report"], ["wait"]):
        assert run(args) == 2, args
        shown = capsys.readouterr().err
        assert shown == "ralph-rpc: several loops could be meant: one (running), two (paused). Give the NAME of one\n"
    assert sent(project, "one") == sent(project, "two") == []


def test_on_a_terminal_one_of_several_is_picked(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    with ExitStack() as held:
        lives(held, stage.project, "one")
        lives(held, stage.project, "two")
        code, shown = stage.on_terminal("pause", answer="2\n")
    assert code == 0 and "two: will pause" in shown, shown
    assert [len(sent(stage.project, name)) for name in ("one", "two")] == [0, 1]


def test_resume_means_the_only_one_that_can_go_on(project: Path, living: ExitStack, capsys: Capture) -> None:
    lives(living, project, "works")
    forged.loop(project, "done", status="completed")
    assert run(["resume"]) == 3
    assert "no loop of this project waits to be resumed" in capsys.readouterr().err
    lives(living, project, "held", "paused")
    assert run(["resume"]) == 0
    assert capsys.readouterr().out == f"held: resumed ({project})\n"
    assert [body["type"] for body in sent(project, "held")] == ["resume"]


@pytest.mark.parametrize("command", ["logs", "report", "wait"])
def test_what_only_looks_takes_the_one_that_runs_else_the_only_one(
    project: Path, tmp_path: Path, living: ExitStack, capsys: Capture, command: str
) -> None:
    assert run([command]) == 3
    forged.loop(project, "ended", status="completed")
    assert run([command]) == 0
    forged.loop(project, "another", status="completed")
    assert run([command]) == 2
    if command != "wait":
        lives(living, project, "works")
        assert run([command]) == 0
        assert "meant is works (running)" in capsys.readouterr().err


def test_no_order_goes_to_a_loop_of_another_project(project: Path, tmp_path: Path, capsys: Capture) -> None:
    forged.elsewhere(tmp_path, "other", "far")
    for args in (["stop"], ["kill"], ["pause"], ["steer", "Two words."], ["resume"]):
        assert run(args) == 3, args
        assert "there is no loop in this project" in capsys.readouterr().err
    assert run(["logs"]) == 0


@pytest.mark.parametrize(
    ("words", "name", "message"),
    [
        ([], None, ()),
        (["api"], "api", ()),
        (["api", "be", "quick"], "api", ("be", "quick")),
        (["be quick"], None, ("be quick",)),
        (["-"], None, ("-",)),
        (["api", "-"], "api", ("-",)),
        (["no/name", "x"], "no/name", ("x",)),
    ],
)
def test_a_first_word_without_spaces_is_the_name(words: list[str], name: str | None, message: tuple[str, ...]) -> None:
    assert addressed(words) == (name, message)


def test_a_mistyped_name_is_never_taken_for_a_message(project: Path, living: ExitStack, capsys: Capture) -> None:
    lives(living, project, "works")
    assert run(["steer", "wroks", "be quick"]) == 3
    assert run(["steer", "quick"]) == 3
    assert sent(project, "works") == []


# short commands


def test_short_names_are_other_names_of_commands(project: Path, capsys: Capture) -> None:
    forged.loop(project, "ended", status="stopped")
    shown = {}
    for alias, name in ALIASES.items():
        outputs = []
        for command in (alias, name):
            assert run([command, "--help"]) == 0
            outputs.append(capsys.readouterr().out)
        assert outputs[0] == outputs[1]
        shown[alias] = outputs[0]
    assert "Usage: ralph-rpc list" in shown["ls"] and "Usage: ralph-rpc clean" in shown["rm"]
    assert run(["rm", "ended", "--yes"]) == 0
    assert not (project / ".ralph/ended").exists()


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("restart", "resume"), ("new", "start"), ("run", "start"), ("tail", "logs -f"), ("lst", "list")],
)
def test_a_habit_from_elsewhere_is_answered_with_the_command(capsys: Capture, typed: str, meant: str) -> None:
    assert run([typed]) == 2
    assert f"did you mean {meant!r}?" in capsys.readouterr().err


def test_help_and_version_are_commands_too(capsys: Capture) -> None:
    for one, other in (
        (["help"], ["--help"]),
        (["help", "stop"], ["stop", "--help"]),
        (["help", "ls"], ["list", "-h"]),
        (["help", "tickets", "add"], ["tickets", "add", "--help"]),
        (["version"], ["--version"]),
    ):
        outputs = []
        for args in (one, other):
            assert run(args) == 0
            outputs.append(capsys.readouterr().out)
        assert outputs[0] == outputs[1] != "", one
    assert run(["help", "nonsense"]) == 2
    assert run(["help", "stop", "now"]) == 2


def test_list_shows_some_statuses_or_only_names(project: Path, living: ExitStack, capsys: Capture) -> None:
    lives(living, project, "works")
    forged.loop(project, "ended", status="stopped")
    forged.loop(project, "broke", status="error")

    def names(*args: str) -> list[str]:
        assert run(["ls", "-q", *args]) == 0
        return capsys.readouterr().out.split()

    assert names() == ["broke", "ended", "works"]
    assert names("--status", "running") == ["works"]
    assert names("--status", "error", "--status", "stopped", "-a") == ["broke", "ended"]
    assert names("--status", "waiting") == []
    assert names("--project", str(project)) == ["broke", "ended", "works"]
    assert run(["list", "--status", "waiting"]) == 0
    assert "no loop waiting in this project" in capsys.readouterr().err
    assert run(["list", "--status", "asleep"]) == 2
    assert run(["list", "--watch"]) == 2
    assert "--watch needs a terminal" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["list", "--watch"], ["status", "-w"], ["status", "-f", "api"]], ids=" ".join)
def test_watch_draws_it_again_until_ctrl_c(tmp_path: Path, command: list[str]) -> None:
    stage = Stage(tmp_path)
    forged.loop(stage.project, "api", status="stopped")
    code, shown = stage.on_terminal(*command, until="api", answer="\x03")
    assert code == 130
    assert "\x1b[H" in shown and "stopped" in shown and "Traceback" not in shown


def test_clean_can_say_first_what_it_would_do(project: Path, capsys: Capture) -> None:
    forged.loop(project, "ended", status="stopped")
    assert run(["clean", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "remove   ended" in shown and shown.endswith("Nothing was removed.\n")
    assert run(["clean", "--dry-run", "--json"]) == 0
    assert [one["name"] for one in orjson.loads(capsys.readouterr().out)["removed"]] == ["ended"]
    assert (project / ".ralph/ended").is_dir()
    assert run(["clean", "--all", "ended"]) == 2
    assert run(["clean", "--all", "--yes"]) == 0
    assert not (project / ".ralph/ended").exists()


# help


def commands() -> list[tuple[str, click.Command]]:
    with click.Context(program, info_name="ralph-rpc", help_option_names=["-h", "--help"]) as ctx:
        found = []
        for name in COMMANDS:
            command = program.get_command(ctx, name)
            assert command is not None
            found.append((name, command))
        return found


def typed_examples() -> list[tuple[str, list[str]]]:
    """Command, and what is typed behind `ralph-rpc`: every call in every example."""
    found = []
    for name, lines in EXAMPLES.items():
        for line in lines:
            bare = re.sub(r"\$\((.*)\)", r"; \1 ;", line).replace('"', " ")
            for part in re.split(r"&&|\||;|<|>", bare):
                words = shlex.split(part, comments=True)
                if words[:1] == ["ralph-rpc"]:
                    found.append((name, words[1:]))
    return found


def test_every_command_has_three_examples() -> None:
    assert EXAMPLES.keys() == COMMANDS.keys()
    assert {name: len(lines) for name, lines in EXAMPLES.items() if len(lines) != 3} == {}


def test_an_example_is_read_as_the_program_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (Path.home() / "web").mkdir()
    read = set()
    for name, args in typed_examples():
        if args == ["--version"]:
            continue
        with click.Context(program, info_name="ralph-rpc", help_option_names=["-h", "--help"]) as ctx:
            found, command, rest = program.resolve_command(
                ctx, [str(Path(word).expanduser()) if word[0] == "~" else word for word in args]
            )
            assert command is not None
            command.make_context(found, rest, ctx).close()
        assert found in (name, "report", "doctor")
        read.add(found)
    assert read == COMMANDS.keys()


@pytest.mark.parametrize(("name", "command"), commands(), ids=lambda value: str(value))
def test_its_help_shows_every_option_and_the_examples(name: str, command: click.Command, capsys: Capture) -> None:
    assert run([*name.split(), "--help"]) == 0 if name != "pi" else run(["help", "pi"]) == 0
    shown = capsys.readouterr().out
    assert shown.rstrip().endswith(EXAMPLES[name][-1])
    for param in command.params:
        if isinstance(param, click.Option) and not param.hidden:
            assert max(param.opts, key=len) in shown, param.name


def test_options_of_start_stand_in_groups_and_none_is_forgotten(capsys: Capture) -> None:
    assert run(["start", "--help"]) == 0
    shown = capsys.readouterr().out
    titles = [title for title in grouped.GROUPS if f"\n{title}:\n" in shown]
    assert titles == list(grouped.GROUPS)
    named = [option for options in grouped.GROUPS.values() for option in options]
    assert len(named) == len(set(named))


# the man page


def test_the_man_page_in_the_repository_is_what_the_help_says() -> None:
    """After a change of the help: python -m ralph_rpc.cli.manpage docs/ralph-rpc.1"""
    assert (forged.ROOT / "docs/ralph-rpc.1").read_text() == manpage()


def test_the_man_page_and_the_readme_name_every_exit_code() -> None:
    codes = {value for name, value in vars(errors).items() if name.isupper() and isinstance(value, int)}
    assert {code for code, _ in EXIT_CODES} == codes
    told = (forged.ROOT / "README.md").read_text().partition("codes: ")[2].partition(".\n")[0]
    assert {int(code) for code in re.findall(r"(?:^|[;\s])(\d+) [a-z`]", told)} == codes


@pytest.mark.skipif(shutil.which("groff") is None, reason="there is no groff here")
def test_the_man_page_can_be_set(tmp_path: Path) -> None:
    command = ["groff", "-man", "-Tutf8", "-ww", str(forged.ROOT / "docs/ralph-rpc.1")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == "" and "--max-cost" in done.stdout


# completion


def offered(stage: Stage, line: str, **env: str) -> list[str]:
    """What the shell offers at the end of the line."""
    words = line.split(" ")
    asked = {
        "_RALPH_RPC_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(words[:-1]) + (f" {words[-1]}" if words[-1] else ""),
        "COMP_CWORD": str(len(words) - 1),
    }
    return [one.removeprefix("plain,") for one in stage.run(env=asked | env).stdout.split()]


def test_values_are_completed_too(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    pi = stage.make_pi("1.6.0")
    pi.write_text(
        "#!/bin/sh\n[ \"$*\" = --list-models ] && printf 'provider model context\\nacme big 1M\\nacme small 1M\\nother big2 1M\\n'\n"
    )
    for words in ("Parse the notes", "A command line"):
        stage.run("tickets", "add", words, "--id", words[0].lower() + "b-1")
    with_pi = {"RALPH_PI": str(pi)}
    assert offered(stage, "ralph-rpc schema st") == ["stamp", "state", "steer", "stop"]
    assert offered(stage, "ralph-rpc start x --thinking m") == ["minimal", "medium", "max"]
    assert offered(stage, "ralph-rpc start x --only ") == ["ab-1", "pb-1"]
    assert offered(stage, "ralph-rpc run-ticket p") == ["pb-1"]
    assert offered(stage, "ralph-rpc steer x --ticket a") == ["ab-1"]
    assert offered(stage, "ralph-rpc start x --model b", **with_pi) == ["big", "big2"]
    assert offered(stage, "ralph-rpc start x --provider other --model b", **with_pi) == ["big2"]
    assert offered(stage, "ralph-rpc start x --provider a", **with_pi) == ["acme"]
    assert offered(stage, "ralph-rpc start x --fallback-model acme/s", **with_pi) == ["acme/small"]
    assert offered(stage, "ralph-rpc list --status wa") == ["waiting"]
    assert offered(stage, "ralph-rpc start x --model b", RALPH_PI="/nowhere") == []


@pytest.mark.parametrize(
    ("shell", "start", "call"),
    [
        ("bash", ".bashrc", "complete -p ralph-rpc"),
        ("zsh", ".zshrc", "whence -w _ralph_rpc_completion"),
        ("fish", ".config/fish/completions/ralph-rpc.fish", "complete --do-complete 'ralph-rpc sta'"),
    ],
)
def test_the_completion_is_installed_once_and_the_shell_takes_it(
    tmp_path: Path, isolated: Path, shell: str, start: str, call: str
) -> None:
    stage = Stage(tmp_path)
    if shell != "fish":
        (isolated / start).write_text("# mine")
    told = stage.run("completion", shell, "--install").stdout
    assert str(isolated / start) in told
    before = (isolated / start).read_bytes()
    stage.run("completion", "--install", env={"SHELL": f"/bin/{shell}"})
    assert (isolated / start).read_bytes() == before
    if shell != "fish":
        assert before.startswith(b"# mine\n") and before.count(b"completion of ralph-rpc") == 1
    assert stage.run("completion", shell).stdout.count("_RALPH_RPC_COMPLETE") >= 1
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell} here")
    done = subprocess.run([shell, "-ic", call], env=stage.env, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0 and "ralph_rpc" in done.stdout or "start" in done.stdout, done


def test_a_man_page_that_the_installer_hides_is_linked_to_where_man_looks(
    tmp_path: Path, isolated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """uv and older pipx link only the program out of its environment."""
    bin, page = isolated / ".local/bin", tmp_path / "env/share/man/man1/ralph-rpc.1"
    for path in (bin / "ralph-rpc", page):
        path.parent.mkdir(parents=True)
        path.write_text("")
        path.chmod(0o755)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "env"))
    monkeypatch.setenv("PATH", str(bin), prepend=os.pathsep)
    link = isolated / ".local/share/man/man1/ralph-rpc.1"
    for _ in range(2):
        assert run(["completion", "bash", "--install"]) == 0
        assert link.resolve() == page
    link.unlink()
    link.symlink_to(tmp_path / "of an environment that is gone")
    assert run(["completion", "bash", "--install"]) == 0
    assert link.resolve() == page


def test_an_unknown_shell_is_asked_for(tmp_path: Path) -> None:
    assert "which shell is yours?" in Stage(tmp_path).run("completion", code=2, env={"SHELL": "/bin/csh"}).stderr


# tickets add


def test_a_new_ticket_is_read_by_the_backlog(project: Path, capsys: Capture) -> None:
    assert (
        run(["tickets", "add", "Parse", "the", "notes", "-c", "core", "--tag", "x:y", "-p", "0", "-d", "# Not a title"])
        == 0
    )
    first, file = capsys.readouterr().out.split()
    assert first.startswith("we-") and Path(file).read_text().endswith("---\n# Parse the notes\n\n# Not a title\n")
    assert run(["tickets", "add", "Use: 'it' --- []", "--dep", first[-3:], "--json"]) == 0
    second = orjson.loads(capsys.readouterr().out)["id"]
    assert run(["tickets", "--json"]) == 0
    rows = {row["id"]: row for row in orjson.loads(capsys.readouterr().out)["tickets"]}
    assert (rows[first]["title"], rows[first]["state"], rows[first]["priority"]) == ("Parse the notes", "ready", 0)
    assert rows[first]["components"] == ["core"]
    assert (rows[second]["title"], rows[second]["state"], rows[second]["deps"]) == (
        "Use: 'it' --- []",
        "waiting",
        [first],
    )


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ([" "], "a ticket needs a title"),
        (["x", "-p", "9"], "priority 9 is none"),
        (["x", "--tag", "a, b"], "'a, b' cannot stand in a ticket"),
        (["x", "--dep", "nowhere"], "there is no ticket 'nowhere'"),
        (["x", "--id", "../x"], "'../x' is no id"),
        (["x", "--tickets", "nowhere"], "nowhere is not a folder"),
    ],
)
def test_a_ticket_that_nobody_could_read_is_refused(project: Path, capsys: Capture, args: list[str], told: str) -> None:
    assert run(["tickets", "add", *args]) == 2
    assert told in capsys.readouterr().err
    assert not list(project.rglob("*.md"))


def test_no_ticket_is_overwritten_and_no_link_followed(project: Path, capsys: Capture) -> None:
    assert run(["tickets", "add", "x", "--id", "ab-1"]) == 0
    (project / ".tickets/ab-2.md").symlink_to(project / "victim")
    for id, code, told in (("ab-1", 2, "there is a ticket 'ab-1' already"), ("ab-2", 1, "ab-2.md is a link")):
        assert run(["tickets", "add", "y", "--id", id]) == code
        assert told in capsys.readouterr().err
    assert not (project / "victim").exists()


def test_a_new_backlog_lies_at_the_top_of_the_repository(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / ".git").mkdir()
    (project / "src").mkdir()
    monkeypatch.chdir(project / "src")
    assert run(["tickets", "add", "x", "--id", "ab-1"]) == 0
    assert (project / ".tickets/ab-1.md").is_file()
    monkeypatch.setenv("TICKETS_DIR", str(project / "elsewhere"))
    assert run(["tickets", "add", "x", "--id", "ab-1"]) == 0
    assert (project / "elsewhere/ab-1.md").is_file()
    assert not any((project / "src").iterdir())
