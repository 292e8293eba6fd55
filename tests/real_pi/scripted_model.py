"""The tests' model: the demo's scripted one, and every fault that a provider was ever seen to commit.

A script is a list of turns, one per request, or a function of the request and its number (from 1). A script
that fails or runs out answers 400, which pi does not retry, and fails the test when the model is closed.
Closing lets go of every request that hangs.
"""

import json
import os
import socket
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from ralph_rpc.demo.model import (
    MODEL,
    PRICES,
    PROVIDER,
    Model,
    Reply,
    Request,
    Script,
    Stream,
    Usage,
    pi_environment,
    write_models_json,
)

MODEL_ARGS = ["--provider", PROVIDER, "--model", MODEL]
"""For pi, and for `ralph-rpc start`."""


@dataclass(frozen=True)
class Fault(Reply):
    """A turn that goes wrong; `delay` is kept, the rest is up to `act`."""

    act: Callable[[Stream, "Fault"], None] | None = None
    begins: bool = False
    """It begins to answer, and so is paid for."""


def status(
    code: int, message: str = "", *, retry_after: float | None = None, kind: str = "", body: str | None = None
) -> Fault:
    """An HTTP error as OpenAI words it; `kind` is the error's `code`, `body` replaces the JSON."""
    names = {401: "invalid_api_key", 429: "rate_limit_exceeded"}
    texts = {
        401: "Incorrect API key provided",
        429: "Rate limit reached",
        500: "Internal server error",
        503: "Service unavailable",
        529: "Overloaded",
    }
    error = {"message": message or texts.get(code, "Bad request"), "code": kind or names.get(code)}
    text = json.dumps({"error": {**error, "type": "invalid_request_error" if code < 429 else "server_error"}})
    headers = {} if retry_after is None else {"retry_after": f"{retry_after:g}"}
    content_type = "application/json" if body is None else "text/html"

    def act(stream: Stream, _: Fault) -> None:
        stream.head(code, content_type, Connection="close", **headers)
        stream.raw((text if body is None else body).encode())
        stream.finish()

    return Fault(act=act)


def quota() -> Fault:
    """OpenAI's 429 for an account without money."""
    return status(
        429, "You exceeded your current quota, please check your plan and billing details.", kind="insufficient_quota"
    )


def hang_before_headers() -> Fault:
    """Takes the request and never answers."""

    def act(stream: Stream, _: Fault) -> None:
        stream.wait(None)

    return Fault(act=act)


def hang_mid_stream(text: str = "I was about to ") -> Fault:
    """Streams `text`, then nothing more, the connection open."""

    def act(stream: Stream, fault: Fault) -> None:
        stream.begin()
        stream.body(fault)
        stream.wait(None)

    return Fault(text, act=act, begins=True)


def cut(text: str = "Everything is fi") -> Fault:
    """Ends the stream cleanly in the middle, without a finish_reason."""

    def act(stream: Stream, fault: Fault) -> None:
        stream.begin()
        stream.body(fault)
        stream.finish()

    return Fault(text, act=act, begins=True)


def reset(text: str = "Everything is fi") -> Fault:
    """Resets the connection; with no text, before the headers."""

    def act(stream: Stream, fault: Fault) -> None:
        if fault.text:
            stream.begin("keep-alive")  # node takes a reset for the end where "close" was announced
            stream.body(fault)
            stream.wait(0.2)  # else the reset overtakes the text in the peer's buffers
        connection = stream.http.connection
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(connection.detach())

    return Fault(text, act=act, begins=bool(text))


def garbage(text: str = "So far ") -> Fault:
    """Server-sent events that are no JSON."""

    def act(stream: Stream, fault: Fault) -> None:
        stream.begin()
        stream.body(fault)
        stream.raw(b"data: {not json at all\n\n")
        stream.finish()

    return Fault(text, act=act, begins=True)


def price(usage: Usage) -> float:
    """What the provider charges for an answer, US dollars; nothing is written to the cache."""
    tokens = {"input": usage.input - usage.cached, "output": usage.output, "cacheRead": usage.cached}
    return sum(number * PRICES[kind] for kind, number in tokens.items()) / 1e6


class ScriptedModel(Model):
    """The running model. `requests` holds what it was asked, `url` is where it listens."""

    def __init__(self, script: Script | Sequence[Reply]) -> None:
        self.failures: list[Exception] = []
        self.bill: list[float] = []
        """What each answer cost that was sent to its end, US dollars."""
        self.untold = 0
        """Answers that began and did not end: pi is never told what they used."""
        function = script if callable(script) else _in_turn(script)

        def noting(request: Request, number: int) -> Reply:
            try:
                return function(request, number)
            except Exception as error:
                self.failures.append(error)
                raise

        super().__init__(noting)

    def answer(self, stream: Stream, reply: Reply) -> None:
        if isinstance(reply, Fault) and reply.act is not None:
            stream.wait(reply.delay)
            self.untold += reply.begins
            reply.act(stream, reply)
            return
        self.untold += 1
        super().answer(stream, reply)
        self.untold -= 1
        self.bill.append(price(reply.usage))

    def agent_dir(
        self,
        tmp_path: Path,
        settings: Mapping[str, Any] | None = None,
        *,
        context_window: int = 200_000,
        max_tokens: int = 8_192,
        **more: Any,
    ) -> Path:
        """Makes a PI_CODING_AGENT_DIR below `tmp_path` that knows this model, with pi's own `settings`.

        `more` are members of the model in models.json.
        """
        folder = tmp_path / "pi-agent"
        write_models_json(folder, self.port, context_window=context_window, max_tokens=max_tokens, **more)
        (folder / "settings.json").write_text(json.dumps(settings or {}))
        return folder

    def wait_for_request(self, number: int, timeout: float = 30.0) -> Request:
        """Returns request `number` (from 1) as soon as it has come; TimeoutError after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while len(self.requests) < number:
                if not self._changed.wait(deadline - time.monotonic()):
                    raise TimeoutError(f"{len(self.requests)} of {number} requests came in {timeout} s")
            return self.requests[number - 1]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if error is None and self.failures:
            raise AssertionError("the model's script failed") from self.failures[0]


def _in_turn(replies: Sequence[Reply]) -> Script:
    def script(request: Request, number: int) -> Reply:
        if number > len(replies):
            raise AssertionError(f"request {number} came, the script has {len(replies)} turns")
        return replies[number - 1]

    return script


def pi_env(agent_dir: Path) -> dict[str, str]:
    """The test's environment, in which pi knows the scripted model."""
    return pi_environment(agent_dir, os.environ)
