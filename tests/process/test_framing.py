"""What pi writes and what stands in the log: the same, stamped, less what older pi repeats."""

import json
import random
import time
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ralph_rpc.files.eventlog import EventLog
from ralph_runner.core.inputs import AgentEnd, AssistantEnd, PiInput, Settled, ToolEnd, ToolStart, TurnEnd, UserMessage
from ralph_runner.pi.framing import STREAM_AT, Recorder
from ralph_runner.pi.protocol import parse
from ralph_runner.pi.stamp import stamp_tail

TRANSCRIPTS = sorted((Path(__file__).parents[1] / "data/transcripts").glob("*/*.jsonl"))
STAMP = {"at": 1_795_231_904_405, "iteration": 7}
TAIL = stamp_tail(STAMP["at"], STAMP["iteration"])
MiB = 1 << 20


class Lines:
    """An event log in memory, where thousands of examples are run."""

    def __init__(self) -> None:
        self.data = b""

    def append(self, data: bytes) -> int:
        self.data += data
        return len(self.data)

    def begin_line(self) -> None: ...

    def extend(self, chunk: bytes) -> None:
        self.data += chunk

    def end_line(self, tail: bytes) -> int:
        return self.append(tail)

    def abandon_line(self) -> None:
        raise AssertionError("no line of these tests is torn while it is streamed")


class Recording:
    """What came of a stream."""

    def __init__(self, chunks: Iterable[bytes], path: Path | None = None) -> None:
        self.notes: list[str] = []
        self.inputs: list[PiInput] = []
        log = EventLog.open(path, limit=1 << 40, keep=1) if path else Lines()
        recorder = Recorder(log, self.notes.append)
        for chunk in chunks:
            self.inputs += recorder.feed(chunk, TAIL)
        recorder.end(TAIL)
        if isinstance(log, EventLog):
            log.close()
        self.data = log.data if isinstance(log, Lines) else path.read_bytes() if path else b""

    @property
    def events(self) -> list[dict[str, Any]]:
        assert self.data.endswith(b"\n") or not self.data
        return [json.loads(line) for line in self.data.split(b"\n")[:-1]]


def expected(line: bytes) -> dict[str, Any]:
    """The oracle: what contract §3 makes of one line, written without regard to speed."""
    try:
        event = json.loads(line.decode(), parse_constant=lambda _: 1 / 0)
    except (ValueError, ZeroDivisionError, RecursionError):
        event = None
    if not isinstance(event, dict):
        return {"type": "ralph_unparsed", "raw": line.decode("utf-8", "replace"), "ralph": STAMP}
    if event.get("type") == "message_update":
        event.pop("message", None)
        event["assistantMessageEvent"].pop("partial", None)
    return {**event, "ralph": STAMP}


def pieces(data: bytes, size: int = 65_536) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


def compact(event: object) -> bytes:
    return json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")


def old_update(kind: str, message: dict[str, Any], **members: Any) -> bytes:
    event = {"type": kind, "contentIndex": 0, **members, "partial": message}
    return compact({"type": "message_update", "assistantMessageEvent": event, "message": message})


MESSAGE = {"role": "assistant", "content": [{"type": "text", "text": 'so far ","partial":{'}], "usage": {"a": 0}}

AWKWARD = [
    b'{"type":"agent_start"}',
    b'{"type":"message_update","usage":{"a":1},"assistantMessageEvent":{"type":"text_delta","delta":"x"}}',
    old_update("text_delta", MESSAGE, delta='","partial":{"role":"assistant"'),
    old_update("text_end", MESSAGE, content=',"message":{"role":"assistant"'),
    old_update("toolcall_end", MESSAGE, toolCall={"arguments": {"a": 1, "partial": {"role": "assistant"}}}),
    old_update("toolcall_end", MESSAGE, toolCall={"arguments": {"message": {"x": [1]}, "partial": None}}),
    b'{"type":"message_update","message":1,"assistantMessageEvent":{"partial":{"b":2},"type":"text_delta"}}',
    (b'{"type":"message_update","assistantMessageEvent":{"type":"text_delta","partial":{},"m":1},"message":{},"z":0}'),
    b'{"type":"message_update", "assistantMessageEvent" : {"type":"text_delta","partial":1} , "message":2 }',
    b'{"type":"message_update","assistantMessageEvent":{}}',
    b'{"type":"message_update","assistantMessageEvent":{"message":1,"partial":2},"partial":3,"message":4}',
    b'{"type":"turn_end","message":{"role":"assistant"},"toolResults":[]}',
    compact({"type": "turn_end", "message": {"text": "\u2028\u2029\x85"}}),
    compact({"type": "message_end", "message": {"role": "assistant", "content": "\u2028\u2029\x85"}}),
    b'{"type":"message_end","message":{"role":"assistant","content":[{"type":"text","text":"\\ud83d"}]}}',
    b'{"type":"message_end","message":{"role":"assistant","content":12}}',
    b'{"type":"some_new_kind","big":123456789012345678901234567890,"small":1e-7,"twice":1,"twice":2}',
    b'{"id":"a","type":"response","command":"prompt","success":true}',
    b"{}",
    b' { "a" : [ { } ] } ',
    b"null",
    b"[1]",
    b'"text"',
    b'{"a":NaN}',
    b'{"a":1}}',
    b'{"type":"message_end","message":{"role":"assistant","content":]}',
    b'{"type":"message_update","assistantMessageEvent":{"type":"text_end","partial":{]},"message":{}}',
    b'{"type":"x","text":"\xff\xfe"}',
    b"   ",
    b"plain words, from an extension",
    b"[" * 5000 + b"]" * 5000,
]


def test_awkward_lines_are_in_the_log_as_they_were(tmp_path: Path) -> None:
    recording = Recording([b"\n".join(AWKWARD) + b"\n"], tmp_path / "events.jsonl")
    assert recording.events == [expected(line) for line in AWKWARD]


@pytest.mark.parametrize(
    "before", [b"\x1b[0m", b"\xef\xbb\xbf", b"\xff\xfe", b"{debug} ", b"[1] ", b'{"type":"torn","x":']
)
@pytest.mark.parametrize("after", [b"", b"\x1b[K", b"\r", b" # done"])
def test_an_intact_event_is_found_among_other_bytes(before: bytes, after: bytes) -> None:
    event = b'{"type":"message_end","message":{"role":"assistant","content":[],"stopReason":"stop"}}'
    recording = Recording([before + event + after + b"\n"])
    plain = Recording([event + b"\n"])
    assert recording.inputs == plain.inputs and recording.inputs
    assert plain.events[0] in recording.events
    around = [one["raw"] for one in recording.events if one["type"] == "ralph_unparsed"]
    assert around == [part.decode("utf-8", "replace") for part in (before, after.rstrip(b"\r")) if part]


def test_several_events_in_one_line_are_all_found() -> None:
    line = b'\x1b[m{"type":"turn_start"}{"type":"turn_end"} {"id":"a","type":"response","command":"x","success":true}'
    recording = Recording([line + b"\n"])
    assert [event["type"] for event in recording.events] == ["ralph_unparsed", "turn_start", "turn_end", "response"]
    assert len(recording.inputs) == 3


def test_a_long_event_behind_other_bytes_is_found() -> None:
    text = "x" * 300_000
    event = compact({"type": "message_end", "message": {"role": "assistant", "content": text, "stopReason": "stop"}})
    recording = Recording(pieces(b"\x1b[0m" + event + b"\n", 5000))
    assert recording.inputs == Recording([event + b"\n"]).inputs != []
    assert [one["type"] for one in recording.events] == ["ralph_unparsed", "message_end"]


@pytest.mark.parametrize("line", [b'x{"type":' * 20_000, b'{"type":1' * 20_000, b"\x1b" * 100_000 + b'{"id":'])
def test_a_line_that_only_looks_like_events_costs_little(line: bytes) -> None:
    began = time.process_time()
    assert [one["type"] for one in Recording([line + b"\n"]).events] == ["ralph_unparsed"]
    assert time.process_time() - began < 1.0


def test_chunks_may_end_at_any_byte() -> None:
    lines = [line for line in AWKWARD if len(line) < 1000]
    stream = b"\r\n".join(lines) + b"\r\n"
    whole = Recording([stream])
    assert whole.events == [expected(line) for line in lines]
    for cut in range(1, len(stream)):
        parts = Recording([stream[:cut], stream[cut:]])
        assert parts.data == whole.data
        assert parts.inputs == whole.inputs


def test_single_bytes_make_the_same_log() -> None:
    stream = b"\n".join(AWKWARD) + b"\n"
    assert Recording(pieces(stream, 1)).data == Recording([stream]).data


def test_crlf_and_empty_lines_leave_no_trace() -> None:
    recording = Recording([b'\n\r\n{"type":"turn_start"}\r\n\n{"a":1}\n\r\n'])
    assert recording.events == [expected(b'{"type":"turn_start"}'), expected(b'{"a":1}')]


def test_a_line_without_its_lf_is_kept_as_torn() -> None:
    torn = b'{"type":"message_end","message":{"role":"assistant","content":[{"type":"te'
    recording = Recording([b'{"type":"turn_start"}\n' + torn])
    assert recording.events[1] == {"type": "ralph_unparsed", "raw": torn.decode(), "ralph": STAMP}
    assert len(recording.inputs) == 1


names = st.sampled_from(["partial", "message", "type", "text", '"', "ralph_", "willRetry"]) | st.text(max_size=5)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(names, values, max_size=4)
updates = st.builds(
    lambda kind, own, message, other, first: compact(
        {"type": "message_update"}
        | ({"message": message} if first else {})
        | {"assistantMessageEvent": {"type": kind, **own, "partial": message}}
        | ({"message": other} if not first else {})
    ),
    st.sampled_from(["text_delta", "toolcall_delta", "toolcall_end", "text_end"]),
    st.dictionaries(st.sampled_from(["delta", "content", "toolCall"]), values, max_size=2),
    objects,
    objects,
    st.booleans(),
)
kinds = ["agent_end", "turn_end", "tool_execution_start", "tool_execution_end", "message_end", "response", "new"]
known = st.builds(lambda kind, rest: compact({"type": kind, **rest}), st.sampled_from(kinds), objects)
anything = st.binary(max_size=20).map(lambda raw: raw.replace(b"\n", b"").rstrip(b"\r")).filter(bool)


@given(st.lists(objects.map(compact) | updates | known | anything, max_size=6), st.randoms(use_true_random=False))
def test_any_lines_in_any_chunks_are_recorded_as_the_contract_says(lines: list[bytes], chance: random.Random) -> None:
    stream = b"".join(line + b"\n" for line in lines)
    cuts = sorted(chance.randrange(len(stream) + 1) for _ in range(chance.randrange(5)))
    chunks = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    recording = Recording(chunk for chunk in chunks if chunk)
    assert recording.events == [expected(line) for line in lines]


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_recorded_run_is_in_the_log_whole_and_tells_what_it_should(path: Path, tmp_path: Path) -> None:
    stream = path.read_bytes()
    lines = [line for line in stream.split(b"\n") if line]
    assert lines
    recording = Recording(pieces(stream, 5_000), tmp_path / "events.jsonl")
    assert recording.events == [expected(line) for line in lines]
    told = [parse(line) for line in lines]
    assert recording.inputs == [one for one in told if one is not None]
    assert sum(isinstance(one, Settled) for one in recording.inputs) == stream.count(b'{"type":"agent_settled"')
    ends = [json.loads(line) for line in lines if line.startswith(b'{"type":"agent_end"')]
    assert ends or path.stem == "none"
    assert [one.will_retry for one in recording.inputs if isinstance(one, AgentEnd)] == [
        end.get("willRetry") for end in ends
    ]
    assert recording.notes == []


def test_every_generation_of_pi_is_among_the_recordings() -> None:
    assert {"0.73.1", "0.87.1", "1.5.2"} <= {path.parent.name for path in TRANSCRIPTS}


def giant(head: bytes, tail: bytes, size: int = 3 * MiB) -> bytes:
    return head + b"x" * size + tail


GIANTS: list[tuple[bytes, PiInput | None]] = [
    (giant(b'{"type":"agent_end","messages":[{"text":"', b'"}],"willRetry":true}'), AgentEnd(True)),
    (giant(b'{"type":"agent_end","messages":[{"text":"', b'"}]}'), AgentEnd(None)),
    (giant(b'{"type":"agent_end","messages":[{"a":"', b'","willRetry":true}]}'), AgentEnd(None)),
    (giant(b'{"type":"turn_end","message":{"role":"assistant","content":"', b'"}}'), TurnEnd()),
    (
        giant(
            b'{"type":"tool_execution_end","toolCallId":"a\\"b","toolName":"read","result":"',
            b'","isError":true,"durationMs":12.5}',
        ),
        ToolEnd('a"b', "read", True),
    ),
    (
        giant(b'{"type":"tool_execution_start","toolCallId":"i","toolName":"write","args":{"content":"', b'"}}'),
        ToolStart("i", "write", '{"content":"' + "x" * 188),
    ),
    (giant(b'{"type":"message_end","message":{"role":"toolResult","content":"', b'"}}'), None),
    (giant(b'{"type":"message_update","usage":{},"assistantMessageEvent":{"type":"a","b":"', b'"}}'), None),
    (old_update("text_delta", {"role": "assistant", "content": "y" * 2 * MiB}, delta="z"), None),
    (old_update("toolcall_end", {"content": "y" * 2 * MiB}, toolCall={"partial": 1}), None),
    (giant(b'{"type":"message_start","message":{"role":"user","content":"', b'"}}'), UserMessage("x" * 3 * MiB)),
    (giant(b'{"type":"unheard of","a":"', b'"}'), None),
    (giant(b"no JSON at all: ", b'\xff "quoted" \\'), None),
]


def big_then_small(data: bytes) -> Iterator[bytes]:
    """The end comes in pieces that are shorter than what is held back of a line."""
    yield from pieces(data[:-1_000])
    yield from pieces(data[-1_000:], 7)


@pytest.mark.parametrize("cut", [pieces, big_then_small])
@pytest.mark.parametrize(("line", "told"), GIANTS)
def test_a_giant_line_is_recorded_and_understood_as_a_short_one(
    line: bytes, told: PiInput | None, cut: Callable[[bytes], Iterator[bytes]], tmp_path: Path
) -> None:
    between = b'{"type":"agent_settled"}'
    stream = between + b"\n" + line + b"\r\n" + between + b"\n"
    recording = Recording(cut(stream), tmp_path / "events.jsonl")
    assert recording.events == [expected(between), expected(line), expected(between)]
    assert recording.inputs == [Settled(None), *([told] if told else []), Settled(None)]
    assert recording.notes == []


def test_a_giant_answer_of_the_model_is_read_whole(tmp_path: Path) -> None:
    line = giant(b'{"type":"message_end","message":{"role":"assistant","content":[{"type":"text","text":"', b'"}]}}')
    [end] = Recording(pieces(line + b"\n"), tmp_path / "events.jsonl").inputs
    assert isinstance(end, AssistantEnd)
    assert end.text == "x" * 3 * MiB


@pytest.mark.parametrize("number", ["1e400", "1e300", "-1e300", "9" * 400, "true", '"7"', "null"])
def test_numbers_that_no_file_of_ours_could_hold_count_as_nothing(number: str) -> None:
    # The lone surrogate is what sends a line to the parser that lets such numbers pass.
    for text in ("fine", "\\ud83d"):
        usage = f'{{"input":{number},"output":5,"cost":{{"total":{number}}}}}'
        message = f'{{"role":"assistant","content":[{{"type":"text","text":"{text}"}}],"usage":{usage}}}'
        end = parse(f'{{"type":"message_end","message":{message}}}'.encode())
        if end is not None:  # no JSON to either parser
            assert isinstance(end, AssistantEnd)
            assert (end.usage.input, end.usage.output) == (0, 5)
            assert orjson.loads(orjson.dumps(end.usage.cost)) == end.usage.cost


@pytest.mark.parametrize("head", [b'{"type":"agent_end","messages":["', b"garbage "])
def test_pi_ending_inside_a_giant_line_leaves_a_log_of_whole_lines(head: bytes, tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    recording = Recording(pieces(b'{"type":"turn_start"}\n' + giant(head, b"")), path)
    first, torn = recording.events
    assert first["type"] == "turn_start"
    assert torn["type"] == "ralph_unparsed"
    assert torn["raw"].startswith(head.decode() + "xxx")
    assert len(torn["raw"]) >= STREAM_AT


def test_a_giant_line_that_is_cut_off_by_an_lf_does_not_spoil_the_next(tmp_path: Path) -> None:
    stream = giant(b'{"type":"turn_end","message":"', b'\n{"type":"turn_start"}\n')
    recording = Recording(pieces(stream), tmp_path / "events.jsonl")
    assert [event["type"] for event in recording.events] == ["ralph_unparsed", "turn_start"]
    assert recording.notes


def test_a_line_of_64_mib_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"

    def stream() -> Iterator[bytes]:
        yield b'{"type":"tool_execution_end","toolCallId":"c","toolName":"bash","result":"'
        for _ in range(1024):
            yield b"x" * 65_536
        yield b'","isError":false}\n'

    tracemalloc.start()
    try:
        log = EventLog.open(path, limit=1 << 40, keep=1)
        recorder = Recorder(log, print)
        inputs = [one for chunk in stream() for one in recorder.feed(chunk, TAIL)]
        peak = tracemalloc.get_traced_memory()[1]
        log.close()
    finally:
        tracemalloc.stop()
    assert inputs == [ToolEnd("c", "bash", False)]
    assert path.stat().st_size > 64 * MiB
    assert peak < 6 * MiB
