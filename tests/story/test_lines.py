"""Lines of the log, parsed as far as their reader needs."""

import json

from ralph_rpc.story.lines import parse_line, runner_event, skim_line, stamped_iteration, stamped_ticket
from tests.story.test_fold import assistant, text_block


def test_a_stamp_is_read_without_the_rest_of_the_line() -> None:
    stamped = b'{"type":"x","broken":,"ralph":{"at":5,"iteration":12,"ticket":"a-1"}}'
    assert (stamped_iteration(stamped), stamped_ticket(stamped)) == (12, "a-1")
    assert (stamped_iteration(stamped[:-2]), stamped_ticket(stamped[:-2])) == (None, "")
    own = b'{"type":"ralph_ticket","at":5,"ticket":"b-2"}'
    assert (stamped_iteration(own), stamped_ticket(own)) == (None, "b-2")


def test_an_event_of_the_runner_is_known_by_its_type() -> None:
    line = b'{"type":"ralph_loop_end","at":1}'
    assert runner_event(line, "ralph_loop_") == {"type": "ralph_loop_end", "at": 1}
    assert runner_event(line, "ralph_iteration_") is None
    assert runner_event(b'{"type":"x","text":"ralph_loop_end"}', "ralph_loop_") is None


def test_the_end_of_a_long_run_is_not_parsed_but_its_stamp_is() -> None:
    messages = [assistant(text_block("x" * 50_000))]
    stamp = {"at": 5, "iteration": 2, "ticket": "t"}
    line = json.dumps({"type": "agent_end", "messages": messages, "ralph": stamp}, separators=(",", ":")).encode()
    assert skim_line(line) == {"type": "agent_end", "ralph": stamp}
    short = line.replace(b"x" * 50_000, b"x")
    assert skim_line(short) == parse_line(short)
    assert skim_line(b'{"type":"turn_end","x":"' + b"y" * 50_000 + b'"}') == {"type": "turn_end"}


def test_a_line_with_half_a_surrogate_pair_is_still_an_event() -> None:
    assert parse_line(b'{"type":"x","t":"\\ud83d"}') == {"type": "x", "t": "\ud83d"}
    assert [parse_line(line) for line in (b"", b"null", b"[1]", b"{", b"\xff", b"[" * 100_000)] == [None] * 6
