"""`ralph-rpc report`: where it writes, in which form, and whose report it is."""

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from ralph_rpc.cli.report import report
from ralph_rpc.errors import NoSuchLoop, RalphError
from tests.report import past

Capture = pytest.CaptureFixture[str]
Call = Callable[..., str]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> Call:
    """Calls the command in a project that has the loop `parser`; returns its stdout."""
    project = tmp_path / "project"
    project.mkdir()
    past.evening(project)
    monkeypatch.chdir(project)

    def called(*args: str) -> str:
        report.main(list(args), standalone_mode=False)
        return capsys.readouterr().out

    return called


def test_a_page_is_written_beside_the_loops_files_and_its_path_is_told(call: Call) -> None:
    page = Path.cwd() / ".ralph/parser/report.html"
    assert call("parser") == f"{page}\n"
    assert page.read_text().startswith("<!DOCTYPE html>")
    assert page.stat().st_mode & 0o777 == 0o600, "a report quotes what a private folder holds"
    assert [path.name for path in Path.cwd().iterdir()] == [".ralph"], "git add -A would take it along"
    assert list(page.parent.glob(".tmp-*")) == []


def test_a_link_that_an_agent_has_laid_in_its_place_is_replaced_not_followed(call: Call, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    page = Path.cwd() / ".ralph/parser/report.html"
    page.symlink_to(victim)
    call("parser")
    assert victim.read_text() == "mine" and not page.is_symlink()


def test_without_a_name_it_is_the_only_loop(call: Call) -> None:
    assert call() == f"{Path.cwd() / '.ralph/parser/report.html'}\n"
    call("-o", ".")
    assert (Path.cwd() / "parser-report.html").is_file()


def test_open_shows_the_page_in_the_browser(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\nprintf %s "$1" > {tmp_path}/opened\n')
    browser.chmod(0o755)
    monkeypatch.setenv("BROWSER", str(browser))
    page = call("parser", "--open").strip()
    assert (tmp_path / "opened").read_text() == Path(page).as_uri()
    with pytest.raises(RalphError, match="--open is for the page"):
        call("parser", "--open", "--format", "md")


@pytest.mark.parametrize(
    ("args", "begins"),
    [
        (("-o", "-"), "<!DOCTYPE html>"),
        (("--format", "md"), "# parser: completed"),
        (("--format", "json"), "{"),
        (("--json",), "{"),
        (("--format", "md", "-o", "-"), "# parser: completed"),
    ],
)
def test_it_can_go_to_stdout_where_markdown_and_json_go_anyway(call: Call, args: tuple[str, ...], begins: str) -> None:
    assert call("parser", *args).startswith(begins)
    assert [path.name for path in Path.cwd().iterdir()] == [".ralph"]


def test_the_name_of_the_file_says_the_format(call: Call) -> None:
    call("parser", "-o", "a.md")
    call("parser", "-o", "b.json")
    call("parser", "-o", "c.json", "--format", "html")
    assert Path("a.md").read_text().startswith("# parser")
    assert json.loads(Path("b.json").read_text())["summary"]["name"] == "parser"
    assert Path("c.json").read_text().startswith("<!DOCTYPE")


def test_a_folder_gets_a_file_of_the_usual_name(call: Call, tmp_path: Path) -> None:
    assert call("parser", "-o", str(tmp_path)) == f"{tmp_path / 'parser-report.html'}\n"


def test_a_report_replaces_an_older_one_and_follows_a_link_to_it(call: Call, tmp_path: Path) -> None:
    (tmp_path / "there.html").write_text("old")
    Path("parser-report.html").symlink_to(tmp_path / "there.html")
    call("parser", "-o", "parser-report.html")
    assert (tmp_path / "there.html").read_text().startswith("<!DOCTYPE")
    assert Path("parser-report.html").is_symlink()


def test_a_pipe_is_written_to_and_not_replaced(call: Call, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()), daemon=True)
    reader.start()
    call("parser", "-o", str(pipe))
    reader.join(10)
    assert pipe.is_fifo() and read[0].startswith("<!DOCTYPE")


def test_a_place_that_cannot_be_written_is_named(call: Call) -> None:
    with pytest.raises(RalphError, match=r"cannot write nowhere/x\.html: No such file or directory"):
        call("parser", "-o", "nowhere/x.html")


def test_an_unknown_loop_is_no_report(call: Call) -> None:
    with pytest.raises(NoSuchLoop):
        call("other")


def test_a_wrong_format_is_refused(call: Call) -> None:
    with pytest.raises(click.UsageError):
        call("parser", "--format", "pdf")


@pytest.mark.parametrize("name", ["parser", "parser-20260206-215330"])
def test_an_archived_loop_is_found_by_its_name_the_newest_first(call: Call, capsys: Capture, name: str) -> None:
    archive = Path.cwd() / ".ralph" / ".archive"
    archive.mkdir()
    (Path.cwd() / ".ralph" / "parser").rename(archive / "parser-20260206-215330")
    for other in ("parser-20260101-000000", "parser-two-20270101-000000"):
        (archive / other).mkdir()
        (archive / other / "state.json").write_text("{}")
    report.main([name, "--json"], standalone_mode=False)
    shown = capsys.readouterr()
    assert json.loads(shown.out)["summary"]["status"] == "completed"
    assert "archived run parser-20260206-215330" in shown.err


def test_the_loop_of_another_project_is_found_with_project(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = Path.cwd()
    monkeypatch.chdir(tmp_path)
    assert call("parser", "--project", str(project), "--format", "md").startswith("# parser")
