"""Isolation: a test never sees the real home, nor settings of the person who runs it.

Holds what every test gets (`isolated`) and what tests that start processes ask for (`no_leftovers`).
"""

import os
import re
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.effort import register_profiles

FOREIGN = re.compile(r"(RALPH|PI|GIT|XDG)_")
"""Variables that would let the outside in."""

GRACE_S = 5.0
"""For processes that are on their way out when their test ends."""

GITCONFIG = """\
[user]
	name = Test Person
	email = test@example.invalid
[init]
	defaultBranch = main
[commit]
	gpgsign = false
"""


# A shell that starts a command in the background lets it ignore Ctrl-C, and with it all that it starts; what is tested
# here must not depend on how the tests were started.
signal.signal(signal.SIGINT, signal.default_int_handler)

register_profiles()

SLOW = (
    "api/",
    "faults/",
    "process/",
    "git/",
    "launchers/",
    "real_pi/",
    "cli/test_clean",
    "cli/test_names",
    "cli/test_verbs",
    "cli/test_demo",
    "cli/test_doctor",
    "cli/test_imports",
    "cli/test_logs",
    "cli/test_pi_extension",
    "cli/test_main",
    "cli/test_start",
    "attach/test_app",
    "attach/test_terminal",
    "report/test_browser",
    "report/test_real_loop",
    "tickets/test_left",
    "tickets/test_backlog",
    "tickets/test_beside_tk",
    "tickets/test_odd_backlogs",
    "tickets/test_settings",
    "tickets/test_tickets_command",
)
"""Where tests start programs by the dozen."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--figures", action="store_true", help="print what the fault tests measured")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Marks them, so that `-m 'not pi and not slow'` is the quick part; `full` runs only when it is named."""
    here = Path(__file__).parent
    for item in items:
        if item.path.relative_to(here).as_posix().startswith(SLOW):
            item.add_marker(pytest.mark.slow)
    if "full" not in config.option.markexpr and not any("[" in arg for arg in config.args):
        full = [item for item in items if item.get_closest_marker("full")]
        config.hook.pytest_deselected(items=full)
        items[:] = [item for item in items if not item.get_closest_marker("full")]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The figures that tests noted, a line each."""
    if not config.option.figures:
        return
    terminalreporter.section("figures")
    for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed"):
        for name, value in report.user_properties:
            if report.when == "call" and name == "figure":
                terminalreporter.line(f"{report.nodeid.rpartition('/')[2]}: {value}")


@pytest.fixture(autouse=True)
def isolated(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of the test's own, empty but for a git identity; RALPH_HOME and the XDG folders lie in it."""
    home = tmp_path_factory.mktemp("home")
    # A runner that a test kills cannot remove its scratch folder.
    (home / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(home / "tmp"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    for name in list(os.environ):
        if FOREIGN.match(name):
            monkeypatch.delenv(name)
    # As users have it: the program is compiled once, and not anew by each of the many processes that a test starts.
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("RALPH_HOME", str(home / ".ralph"))
    monkeypatch.setenv("XDG_DATA_HOME", str(home / ".local/share"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / ".config"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / ".cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(home / ".local/state"))
    (home / ".gitconfig").write_text(GITCONFIG)
    return home


def processes_with(variable: str) -> dict[int, str]:
    """Processes whose environment holds `NAME=value`, by pid, with their command lines. Linux only."""
    needle = variable.encode()
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if needle not in (entry / "environ").read_bytes().split(b"\0"):
                continue
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ")
            found[int(entry.name)] = command.decode(errors="replace")
        except OSError:  # gone, or somebody else's
            continue
    found.pop(os.getpid(), None)
    return found


@pytest.fixture
def no_leftovers(isolated: Path) -> Iterator[None]:
    """Fails a test that leaves a process behind, and ends that process.

    A process belongs to the test if it inherited the test's own RALPH_HOME.
    """
    yield
    own = f"RALPH_HOME={isolated / '.ralph'}"
    deadline = time.monotonic() + GRACE_S
    while (left := processes_with(own)) and time.monotonic() < deadline:
        time.sleep(0.05)
    for pid in left:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    assert not left, f"left behind: {left}"
