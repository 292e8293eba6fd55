"""The client against real children: nothing lost, nothing blocks, and inputs only after their lines are logged."""

import asyncio
import errno
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from ralph_rpc.files.eventlog import EventLog
from ralph_runner.core.inputs import (
    AgentEnd,
    AgentStart,
    AssistantEnd,
    AssistantStart,
    Dialog,
    LogBlocked,
    LogUnblocked,
    PiInput,
    QueueUpdate,
    Reply,
    RetryStart,
    Settled,
    StreamActivity,
    ToolEnd,
    ToolStart,
    TurnEnd,
    TurnStart,
    UserMessage,
)
from ralph_runner.guarded.process import Exit, Guarded
from ralph_runner.pi import reader as reader_module
from ralph_runner.pi.client import Child, PiClient
from ralph_runner.pi.framing import Log
from tests.fake_pi import fake_command

BOUND_S = 30.0
pytestmark = pytest.mark.usefixtures("no_leftovers")
In = TypeVar("In")


class Talk:
    """A client, what it told, and the log."""

    def __init__(self, process: Child, path: Path, wrap: Callable[[EventLog], Log] = lambda log: log) -> None:
        self.path = path
        self.inputs: list[PiInput] = []
        self.notes: list[str] = []
        self.iteration = 1
        self.unlogged: list[PiInput] = []
        self.log = EventLog.open(path, limit=1 << 40, keep=1)
        self._news = asyncio.Event()
        self.client = PiClient(process, wrap(self.log), self._hear, self.notes.append, lambda: self.iteration)
        self.client.start()

    def _hear(self, inputs: list[PiInput]) -> None:
        logged = self.path.read_bytes()
        self.unlogged += [one for one in inputs if isinstance(one, Reply) and one.id.encode() not in logged]
        self.inputs += inputs
        self._news.set()

    async def until(self, kind: type[In], nth: int = 1) -> In:
        """The nth input of a kind, as soon as it is there."""
        async with asyncio.timeout(BOUND_S):
            while len(found := [one for one in self.inputs if isinstance(one, kind)]) < nth:
                self._news.clear()
                await self._news.wait()
        return found[nth - 1]

    async def ask(self, command: str, **members: Any) -> Reply:
        request = self.client.send(command, **members)
        async with asyncio.timeout(BOUND_S):
            while True:
                for one in self.inputs:
                    if isinstance(one, Reply) and one.id == request:
                        return one
                self._news.clear()
                await self._news.wait()

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.path.read_bytes().splitlines()]


@asynccontextmanager
async def talking(
    tmp_path: Path,
    command: list[str],
    env: dict[str, str] | None = None,
    wrap: Callable[[EventLog], Log] = lambda log: log,
) -> AsyncIterator[tuple[Talk, Guarded]]:
    process = await Guarded.spawn(command, cwd=tmp_path, env={**os.environ, **(env or {})})
    talk = Talk(process, tmp_path / "events.jsonl", wrap)
    try:
        yield talk, process
    finally:
        process.kill()
        await talk.client.finish()
        talk.log.close()


def scripted(tmp_path: Path, **script: Any) -> dict[str, str]:
    (tmp_path / "script.json").write_text(json.dumps(script))
    return {"FAKE_PI_SCRIPT": str(tmp_path / "script.json"), "FAKE_PI_LOG": str(tmp_path / "received")}


def program(code: str) -> list[str]:
    return [sys.executable, "-S", "-c", code]


def run(main: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(100):
            await main()

    asyncio.run(bounded())


def test_a_run_is_told_in_order_and_logged_before_it_is_told(tmp_path: Path) -> None:
    env = scripted(tmp_path, prompts=[[{"tool": "bash", "run": "true"}, "All done."]])

    async def main() -> None:
        async with talking(tmp_path, fake_command("--mode", "rpc"), env) as (talk, process):
            assert (await talk.ask("get_state")).data["isStreaming"] is False
            talk.iteration = 4
            reply = await talk.ask("prompt", id="prompt-x", message="work")
            assert (reply.request, reply.id, reply.success) == ("prompt", "prompt-x", True)
            await talk.until(Settled)
            process.close_stdin()
            assert await talk.client.finish() == Exit(0, "eof")
            kinds = [type(one) for one in talk.inputs if not isinstance(one, Reply | StreamActivity)]
            assert kinds == [
                AgentStart,
                TurnStart,
                UserMessage,
                AssistantStart,
                AssistantEnd,
                ToolStart,
                ToolEnd,
                TurnEnd,
                TurnStart,
                AssistantStart,
                AssistantEnd,
                TurnEnd,
                AgentEnd,
                Settled,
            ]
            call, last = [one for one in talk.inputs if isinstance(one, AssistantEnd)]
            assert (call.tool_calls, call.stop_reason) == (1, "toolUse")
            assert (last.text, last.stop_reason, last.model) == ("All done.", "stop", "fake-1")
            assert (last.usage.input, last.usage.output, last.usage.cost) == (200, 50, 0.00135)
            assert talk.unlogged == []
            state, *rest = talk.events
            assert state["ralph"]["iteration"] == 1
            assert {event["ralph"]["iteration"] for event in rest} == {4}
            assert talk.notes == []

    run(main)


def test_queued_messages_and_dialogs_are_told_and_answered(tmp_path: Path) -> None:
    dialog = {"dialog": "select", "title": "Which?", "options": ["a", "b"]}
    env = scripted(tmp_path, prompts=[[dialog, {"tool": "bash", "run": "true"}, "fine"]])

    async def main() -> None:
        async with talking(tmp_path, fake_command("--mode", "rpc"), env) as (talk, _):
            await talk.ask("prompt", message="work")
            asked = await talk.until(Dialog)
            assert (asked.method, asked.title, asked.options) == ("select", "Which?", ("a", "b"))
            await talk.ask("steer", message="look here")
            assert await talk.until(QueueUpdate) == QueueUpdate(("look here",), ())
            talk.client.answer_dialog(asked.id)
            await talk.until(Settled)
            assert UserMessage("look here") in talk.inputs
            received = (tmp_path / "received").read_bytes().splitlines()
            assert {"type": "extension_ui_response", "id": asked.id, "cancelled": True} in map(json.loads, received)

    run(main)


def test_an_answer_without_id_is_matched_by_its_command(tmp_path: Path) -> None:
    async def main() -> None:
        async with talking(tmp_path, fake_command("--generation", "old")) as (talk, _):
            reply = await talk.ask("clear_queue")
            assert (reply.request, reply.success) == ("clear_queue", False)
            assert reply.error == "Unknown command: clear_queue"

    run(main)


def test_double_and_foreign_answers_are_noted_and_dropped(tmp_path: Path) -> None:
    foreign = '{"id":"other","type":"response","command":"prompt","success":false,"error":"why"}'
    env = scripted(tmp_path, commands={"get_state": {"twice": True, "times": 1}}, prompts=[[{"raw": foreign}, "ok"]])

    async def main() -> None:
        async with talking(tmp_path, fake_command(), env) as (talk, _):
            await talk.ask("get_state", id="once")
            await talk.ask("prompt", message="go")
            await talk.until(Settled)
            assert [one.id for one in talk.inputs if isinstance(one, Reply)] == ["once", "prompt-2"]
            assert [note.split(":")[0] for note in talk.notes] == ["unexpected reply from pi"] * 2
            assert "(why)" in talk.notes[1]
            assert sum(event["type"] == "response" for event in talk.events) == 4

    run(main)


def test_a_stopped_pi_with_a_full_stdin_blocks_nothing_and_loses_nothing(tmp_path: Path) -> None:
    env = scripted(tmp_path)

    async def main() -> None:
        async with talking(tmp_path, fake_command(), env) as (talk, process):
            await talk.ask("get_state")
            os.kill(process.pid, signal.SIGSTOP)
            # Blocking here would be for ever.
            requests = [talk.client.send("steer", message=f"{n} " + "x" * 100_000) for n in range(20)]
            assert talk.client.pending_bytes > 1_900_000
            os.kill(process.pid, signal.SIGCONT)
            await talk.until(Reply, nth=21)
            assert talk.client.pending_bytes == 0
            sent = [one.id for one in talk.inputs if isinstance(one, Reply)]
            assert sent[1:] == requests
            received = [json.loads(line) for line in (tmp_path / "received").read_bytes().splitlines()]
            assert [one["message"].split()[0] for one in received[1:]] == [str(n) for n in range(20)]

    run(main)


def test_requests_to_a_pi_that_is_gone_or_has_no_stdin_are_dropped(tmp_path: Path) -> None:
    async def main() -> None:
        async with talking(tmp_path, program("import sys; sys.stdin.close(); input")) as (talk, process):
            await process.wait()
            talk.client.send("prompt", message="x" * 200_000)
            talk.client.send("abort")
            assert talk.client.pending_bytes == 0
            process.close_stdin()
            talk.client.send("abort")
            assert talk.client.pending_bytes == 0
            assert (await talk.client.finish()).code == 0
            talk.client.send("abort")

    run(main)


def test_a_full_stdin_that_is_closed_under_the_client_is_forgotten(tmp_path: Path) -> None:
    async def main() -> None:
        async with talking(tmp_path, program("import time; time.sleep(1000)")) as (talk, process):
            talk.client.send("prompt", message="x" * 200_000)
            assert talk.client.pending_bytes > 0
            process.close_stdin()
            async with asyncio.timeout(BOUND_S):
                while talk.client.pending_bytes:
                    await asyncio.sleep(0.001)

    run(main)


def test_pi_dying_inside_a_line_leaves_the_piece_in_the_log(tmp_path: Path) -> None:
    env = scripted(tmp_path, prompts=[[{"stderr": "it hurts"}, {"torn": '{"type":"message_end","mess'}]])

    async def main() -> None:
        async with talking(tmp_path, fake_command(), env) as (talk, _):
            await talk.ask("prompt", message="go")
            assert (await talk.client.finish()).code == 1
            last = talk.events[-1]
            assert (last["type"], last["raw"]) == ("ralph_unparsed", '{"type":"message_end","mess')
            assert talk.client.stderr_tail == "it hurts"
            assert talk.notes == ["it hurts"]

    run(main)


def test_all_that_pi_wrote_before_its_death_is_told_before_finish_returns(tmp_path: Path) -> None:
    line = '{"type":"auto_retry_start","attempt":%d,"delayMs":1,"errorMessage":"e"}'
    code = f"import os\nfor n in range(20000): print({line!r} % n)\nprint('', end='', flush=True); os._exit(7)"

    async def main() -> None:
        async with talking(tmp_path, program(code)) as (talk, _):
            assert (await talk.client.finish()).code == 7
            attempts = [one.attempt for one in talk.inputs if isinstance(one, RetryStart)]
            assert attempts == list(range(20_000))
            assert len(talk.events) == 20_000

    run(main)


def test_stderr_of_any_kind_is_kept_to_its_last_lines(tmp_path: Path) -> None:
    code = (
        "import sys; e = sys.stderr.buffer\n"
        "for n in range(100): e.write(b'line %d\\n' % n)\n"
        "e.write(b'\\xff\\xfe broken\\r\\n\\n' + b'x' * 100_000 + b'\\nlast'); e.flush()"
    )

    async def main() -> None:
        async with talking(tmp_path, program(code)) as (talk, _):
            await talk.client.finish()
            tail = talk.client.stderr_tail
            assert tail.endswith("xxx\nlast")
            assert len(tail.encode()) <= 4096
            assert talk.notes[99:101] == ["line 99", "\ufffd\ufffd broken"]
            assert sum(note.count("x") for note in talk.notes) == 100_000
            assert max(map(len, talk.notes)) <= 8192

    run(main)


def test_lines_that_tell_nothing_show_that_pi_lives_once_a_second(tmp_path: Path) -> None:
    update = '{"type":"message_update","usage":{},"assistantMessageEvent":{"type":"text_delta","delta":"x"}}'
    code = (
        "import time; until = time.monotonic() + 2.5\n"
        f"while time.monotonic() < until: print({update!r}, flush=True); time.sleep(0.01)"
    )

    async def main() -> None:
        async with talking(tmp_path, program(code)) as (talk, _):
            await talk.client.finish()
            assert talk.inputs in ([StreamActivity()] * 2, [StreamActivity()] * 3)

    run(main)


class FullDisk:
    """A log whose disk is full until `space` is set."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self.space = False

    def _check(self) -> None:
        if not self.space:
            raise OSError(errno.ENOSPC, "no space")

    def append(self, data: bytes) -> int:
        self._check()
        return self._log.append(data)

    def begin_line(self) -> None:
        self._log.begin_line()

    def extend(self, chunk: bytes) -> None:
        self._check()
        self._log.extend(chunk)

    def end_line(self, tail: bytes) -> int:
        self._check()
        return self._log.end_line(tail)

    def abandon_line(self) -> None:
        self._log.abandon_line()


@pytest.mark.parametrize("size", [10, 3_000_000], ids=["short lines", "a streamed line"])
def test_a_full_disk_holds_pi_back_and_loses_nothing(
    tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader_module, "LOG_RETRY_S", 0.02)
    env = scripted(tmp_path, prompts=[[{"tool": "bash", "bytes": size}, {"reply": "x", "deltas": 3000}]])
    disks: list[FullDisk] = []

    def full(log: EventLog) -> FullDisk:
        disks.append(FullDisk(log))
        return disks[0]

    async def main() -> None:
        async with talking(tmp_path, fake_command(), env, full) as (talk, _):
            disks[0].space = True
            await talk.ask("get_state")
            disks[0].space = False
            talk.client.send("prompt", message="go")
            assert await talk.until(LogBlocked) == LogBlocked("no space", is_full=True)
            assert sum(isinstance(one, Reply) for one in talk.inputs) == 1
            disks[0].space = True
            await talk.until(Settled)
            assert [type(one) for one in talk.inputs if isinstance(one, LogBlocked | LogUnblocked)] == [
                LogBlocked,
                LogUnblocked,
            ]
            texts = [one.text for one in talk.inputs if isinstance(one, AssistantEnd)]
            assert texts[-1] == "".join(f"tok{n} " for n in range(3000)) + "x"
            types = [event["type"] for event in talk.events]
            assert types.count("message_update") == 3000 + 1 + 2 + 3
            assert types.count("tool_execution_end") == 1

    run(main)


@pytest.mark.parametrize("size", [10, 3_000_000], ids=["short lines", "a streamed line"])
def test_a_pi_that_ends_while_the_disk_is_full_is_still_seen_off(
    tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader_module, "LOG_RETRY_S", 0.02)
    monkeypatch.setattr(reader_module, "DRAIN_S", 0.2)
    env = scripted(tmp_path, prompts=[[{"tool": "bash", "bytes": size}, {"exit": 3}]])

    async def main() -> None:
        async with talking(tmp_path, fake_command(), env, FullDisk) as (talk, process):
            talk.client.send("prompt", message="go")
            await talk.until(LogBlocked)
            process.kill()
            await talk.client.finish()
            assert any("could not be logged" in note for note in talk.notes)
            talk.log.append(b'{"type":"the next one"}\n')
            assert talk.events[-1]["type"] == "the next one"

    run(main)


class Held:
    """A program that is gone while another, out of reach, holds its stdout and stderr open."""

    def __init__(self) -> None:
        self.stdout_fd, self.out = os.pipe()
        self.stderr_fd, self.err = os.pipe()
        stdin, self.stdin_fd = os.pipe()
        os.close(stdin)

    async def wait(self) -> Exit:
        return Exit(0, "natural")

    def close(self) -> None:
        for fd in (self.stdin_fd, self.stdout_fd, self.stderr_fd):
            os.close(fd)
        self.stdin_fd = self.stdout_fd = self.stderr_fd = -1


def test_pipes_held_open_by_a_stranger_do_not_delay_the_end(tmp_path: Path) -> None:
    async def main() -> None:
        before = len(list(Path("/proc/self/fd").iterdir()))
        held = Held()
        os.write(held.out, b'{"type":"agent_start"}\n')
        os.write(held.err, b"words")
        talk = Talk(held, tmp_path / "events.jsonl")
        assert await talk.client.finish() == Exit(0, "natural")
        assert await talk.client.finish() == Exit(0, "natural")
        assert [one for one in talk.inputs if not isinstance(one, StreamActivity)] == [AgentStart()]
        assert talk.client.stderr_tail == "words"
        os.close(held.out)
        os.close(held.err)
        talk.log.close()
        assert len(list(Path("/proc/self/fd").iterdir())) == before

    run(main)


def test_a_stranger_that_goes_on_writing_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_module, "DRAIN_S", 0.3)

    async def main() -> None:
        held = Held()
        writer = await asyncio.create_subprocess_exec(
            sys.executable, "-S", "-c", "while True: print('{}')", stdout=held.out
        )
        talk = Talk(held, tmp_path / "events.jsonl")
        await talk.until(StreamActivity)
        await talk.client.finish()
        writer.kill()
        await writer.wait()
        os.close(held.out)
        os.close(held.err)
        talk.log.close()
        assert all(event.keys() <= {"ralph", "type", "raw"} for event in talk.events)

    run(main)


class Counting:
    """The log, and how often pi's lines came to it."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self.appends = 0

    def append(self, data: bytes) -> int:
        self.appends += 1
        return self._log.append(data)

    def begin_line(self) -> None:
        self._log.begin_line()

    def extend(self, chunk: bytes) -> None:
        self._log.extend(chunk)

    def end_line(self, tail: bytes) -> int:
        return self._log.end_line(tail)

    def abandon_line(self) -> None:
        self._log.abandon_line()


WORDS = """
import time
for n in range(100):
    print('{"type":"message_update","usage":{},"n":%d}' % n, flush=True)
    time.sleep(0.005)
print('{"type":"agent_settled"}', flush=True)
"""


def test_words_at_a_models_pace_are_logged_several_at_a_time(tmp_path: Path) -> None:
    counted: list[Counting] = []

    def count(log: EventLog) -> Log:
        counted.append(Counting(log))
        return counted[0]

    async def main() -> None:
        async with talking(tmp_path, program(WORDS), wrap=count) as (talk, _):
            await talk.until(Settled)
            assert [event["n"] for event in talk.events[:-1]] == list(range(100))
            # How many depends on the machine; a busy one only makes them fewer.
            assert counted[0].appends < 60

    run(main)


def test_what_comes_without_a_pause_is_handed_on_whole(tmp_path: Path) -> None:
    turns = 50_000
    code = f"""
import os
data = memoryview(b'{{"type":"turn_start"}}\\n' * {turns})
while data:
    data = data[os.write(1, data):]
"""
    heard: list[int] = []

    async def main() -> None:
        process = await Guarded.spawn(program(code), cwd=tmp_path, env=dict(os.environ))
        log = EventLog.open(tmp_path / "events.jsonl", limit=1 << 40, keep=1)
        client = PiClient(process, log, lambda inputs: heard.append(len(inputs)), pytest.fail, lambda: 1)
        client.start()
        await client.finish()
        log.close()

    run(main)
    assert sum(heard) == turns
    assert (tmp_path / "events.jsonl").read_bytes().count(b"\n") == turns


def test_what_was_logged_before_the_disk_filled_up_is_told_before_pi_is_held_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader_module, "HOLD_S", 1e9)
    disks: list[FullDisk] = []

    def fills_up(log: EventLog) -> Log:
        disks.append(FullDisk(log))
        disks[0].space = True
        append = disks[0].append

        def once(data: bytes) -> int:
            offset = append(data)
            disks[0].space = False
            return offset

        monkeypatch.setattr(disks[0], "append", once)
        return disks[0]

    code = 'import os\nwhile True: os.write(1, b\'{"type":"turn_start"}\\n\' * 1000)'

    async def main() -> None:
        async with talking(tmp_path, program(code), wrap=fills_up) as (talk, _):
            await talk.until(LogBlocked)
            logged = (tmp_path / "events.jsonl").read_bytes().count(b"\n")
            assert [type(one) for one in talk.inputs] == [TurnStart] * logged + [LogBlocked]

    run(main)
