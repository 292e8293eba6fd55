"""--notify ntfy:URL and webhook:URL, against a real receiver on this machine; and that no address is told to anybody."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple, Self

import pytest

from ralph_rpc.cli.main import run
from ralph_rpc.story import notifications
from ralph_runner.shell.environment import child_environment
from tests import rig
from tests.cli import forged
from tests.process.test_notify import Desk

pytestmark = pytest.mark.usefixtures("no_leftovers")
SECRET = "hunter2-topic"


class Got(NamedTuple):
    path: str
    headers: dict[str, str]
    body: bytes
    argvs: list[str]
    """The command lines of this machine's processes while it was received."""


class Receiver:
    """Takes what is posted to it and answers with `code`."""

    def __init__(self, code: int = 200) -> None:
        self.got: list[Got] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.got.append(Got(self.path, dict(self.headers), body, processes()))
                self.send_response(code)
                self.send_header("Location", f"http://127.0.0.1:{receiver.port}/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def do_GET(self) -> None:
                receiver.got.append(Got(self.path, dict(self.headers), b"", []))
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def processes() -> list[str]:
    """The command lines of everything that runs."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # gone
            found.append(file.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return found


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "project")


@contextmanager
def receiver(code: int = 200) -> Iterator[Receiver]:
    with Receiver(code) as one:
        yield one


def test_ntfy_gets_the_message_with_title_and_priority(desk: Desk) -> None:
    with receiver() as there:
        desk.tell(f"ntfy:http://127.0.0.1:{there.port}/{SECRET}", desk.notice())
        failed = {"status": "error", "stopReason": "auth", "error": "no key for Crème"}
        desk.tell(f"ntfy:http://:tk_x@127.0.0.1:{there.port}/{SECRET}", desk.notice(**failed))
    good, bad = there.got
    assert (good.path, good.body) == (f"/{SECRET}", b"api: completed (marker)")
    assert (good.headers["Title"], good.headers["Priority"]) == ("ralph-rpc: api", "default")
    assert "Authorization" not in good.headers
    assert bad.body.decode() == "api: ended in error: no key for Crème" and bad.headers["Priority"] == "high"
    assert bad.headers["Authorization"] == "Basic OnRrX3g=", "nobody, with the token as password"
    assert desk.warned == [] and not any(SECRET in argv or "tk_x" in argv for argv in [*good.argvs, *bad.argvs])


def test_a_webhook_gets_the_whole_notification_and_what_chats_look_for(desk: Desk) -> None:
    notice = desk.notice()
    with receiver(204) as there:
        desk.tell(f"webhook:http://127.0.0.1:{there.port}/hooks/{SECRET}?a=b", notice)
    [got] = there.got
    assert got.path == f"/hooks/{SECRET}?a=b" and got.headers["Content-Type"] == "application/json"
    message = notice["message"]
    assert json.loads(got.body) == {**notice, "text": message, "content": message}
    assert desk.warned == [] and not any(SECRET in argv for argv in got.argvs)


@pytest.mark.parametrize(
    ("code", "told"), [(403, "answers 403"), (500, "answers 500"), (302, "answers 302 (a redirect")]
)
def test_a_refusal_is_told_without_the_address(desk: Desk, code: int, told: str) -> None:
    with receiver(code) as there:
        desk.tell(f"ntfy:http://u:{SECRET}@127.0.0.1:{there.port}/{SECRET}", desk.notice())
    assert len(there.got) == 1, "no redirect is followed"
    [line] = desk.warned
    assert f"127.0.0.1 {told}" in line and "not delivered: api: completed" in line
    assert SECRET not in " ".join([*desk.warned, *desk.noted])


def test_a_receiver_that_is_not_there_holds_nothing_up(desk: Desk) -> None:
    with receiver() as there:
        port = there.port
    desk.tell(f"webhook:http://127.0.0.1:{port}/{SECRET}", desk.notice())
    [line] = desk.warned
    assert "127.0.0.1 cannot be reached: Connection refused" in line and SECRET not in line


def test_a_whole_loop_tells_it_and_writes_the_address_into_no_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with receiver() as there:
        target = f"ntfy:http://127.0.0.1:{there.port}/{SECRET}"
        monkeypatch.setenv("RALPH_NOTIFY", target)
        loop = rig.fake_rig(tmp_path, [{"text": "<promise>COMPLETE</promise>"}])
        loop.start("-n", "2")
        loop.wait_end()
    assert [got.path for got in there.got] == [f"/{SECRET}"]
    shown = [
        loop.run(*args).stdout
        for args in (["status", "x", "--json"], ["status", "x"], ["logs", "x", "--raw"], ["report", "x", "--json"])
    ]
    plan = loop.run("start", "y", "--pi", loop.pi, "-m", "x", "--dry-run").stdout
    files = [
        file for file in loop.paths.dir.rglob("*") if file.is_file() and file.name not in ("config.json", "state.json")
    ]
    assert any(file.name == "runner.log" for file in files)
    for text in [*shown, plan, *(file.read_text(errors="replace") for file in files)]:
        assert SECRET not in text
    assert "ntfy:http://127.0.0.1/…" in shown[0] and "ntfy:http://127.0.0.1/…" in plan


def test_pi_and_its_tools_do_not_get_the_address(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RALPH_NOTIFY", f"ntfy:https://h/{SECRET}")
    assert SECRET not in " ".join(child_environment(desk.paths, desk.paths.dir).values())


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("ntfy:", "expected ntfy:https://HOST/TOPIC"),
        ("ntfy:https://ntfy.sh", "expected ntfy:https://HOST/TOPIC"),
        ("ntfy:ntfy.sh/topic", "expected ntfy:https://HOST/TOPIC"),
        ("webhook:file:///etc/passwd", "expected webhook:https://HOST/"),
        ("webhook:https://", "expected webhook:https://HOST/"),
        ("webhook:https://host:port/x", "expected webhook:https://HOST/"),
        ("webhook:https://h/a b", "expected webhook:https://HOST/"),
    ],
)
def test_an_address_that_is_none_is_refused_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], target: str, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["start", "x", "-m", "x", "--notify", target]) == 2
    assert told in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("desktop", "desktop"),
        ("mail -s x me", "mail -s x me"),
        ("ntfy:https://u:p@ntfy.sh:8080/topic", "ntfy:https://ntfy.sh/…"),
        ("webhook:https://h/x?k=v", "webhook:https://h/…"),
    ],
)
def test_of_an_address_only_the_host_is_shown(command: str, shown: str) -> None:
    assert notifications.shown(command) == shown
    assert forged.CONFIG.get("notify") is None
