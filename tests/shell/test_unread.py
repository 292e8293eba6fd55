"""What pi's sessions know of an iteration, by the time and the folder that it ran in."""

import json
from pathlib import Path
from typing import Any

from ralph_rpc.clock import iso
from ralph_rpc.files.paths import LoopPaths
from ralph_runner.shell import unread

SINCE = 1_700_000_000_000


def message(role: str, after_ms: int = 1, calls: int = 0, cost: float = 0.0, stop: str = "stop") -> dict[str, Any]:
    usage = {"input": 10 if cost else 0, "output": 0, "cacheRead": 0, "cacheWrite": 0, "cost": {"total": cost}}
    content = [{"type": "toolCall", "id": f"{n}", "name": "bash", "arguments": {}} for n in range(calls)]
    of_answer = {"usage": usage, "stopReason": stop} if role == "assistant" else {}
    told = {"role": role, "content": content, **of_answer}
    return {"type": "message", "timestamp": iso(SINCE + after_ms), "message": told}


def loop(tmp_path: Path, **sessions: list[dict[str, Any]]) -> LoopPaths:
    """With a session for each name, in a folder of that name."""
    paths = LoopPaths.of(tmp_path, "x")
    paths.sessions.mkdir(parents=True)
    for cwd, entries in sessions.items():
        lines = [{"type": "session", "cwd": f"/{cwd}"}, *entries]
        (paths.sessions / f"{cwd}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return paths


def test_answers_are_counted_from_then_on_and_a_request_under_way_is_unpriced(tmp_path: Path) -> None:
    paths = loop(
        tmp_path,
        a=[
            message("assistant", after_ms=-1, cost=5),
            message("user"),
            message("assistant", calls=2, cost=0.25, stop="toolUse"),
            message("toolResult"),
        ],
    )
    used = unread.figures(paths, SINCE, None)
    assert (used["cost"], used["turns"], used.get("unpricedRequests")) == (0.25, 1, 0), "the second tool was running"
    with (paths.sessions / "a.jsonl").open("a") as file:
        file.write(json.dumps(message("toolResult")) + '\n{"type":"mess')
    assert unread.figures(paths, SINCE, None).get("unpricedRequests") == 1


def test_an_answer_that_was_aborted_is_unpriced_once(tmp_path: Path) -> None:
    paths = loop(tmp_path, a=[message("user"), message("assistant", stop="aborted")])
    assert unread.figures(paths, SINCE, None).get("unpricedRequests") == 1


def test_each_worker_has_the_sessions_of_its_own_worktree(tmp_path: Path) -> None:
    paths = loop(
        tmp_path,
        a=[message("user"), message("assistant", cost=0.25)],
        b=[message("user"), message("assistant", cost=0.5)],
    )
    assert [unread.figures(paths, SINCE, cwd)["cost"] for cwd in ("/a", "/b", "/c")] == [0.25, 0.5, 0]


def test_a_link_in_the_place_of_a_session_is_not_followed(tmp_path: Path) -> None:
    paths = loop(tmp_path, a=[message("user"), message("assistant", cost=0.25)])
    (paths.sessions / "a.jsonl").rename(tmp_path / "elsewhere")
    (paths.sessions / "a.jsonl").symlink_to(tmp_path / "elsewhere")
    assert unread.figures(paths, SINCE, None)["cost"] == 0
