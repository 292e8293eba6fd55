"""A language model that is a Python function, behind the OpenAI chat-completions protocol on loopback.

pi talks to it as to any provider (`write_models_json` gives it the address), with streaming, tool calls and usage;
no account, no network, no cost. Used by `ralph-rpc demo` and, with faults added, by the tests. It keeps every
request in memory and writes nothing; if the machine dies, nothing is left behind.
"""

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

PROVIDER = "scripted"
MODEL = "scripted-1"
PRICES = {"input": 3, "output": 15, "cacheRead": 0.3, "cacheWrite": 3.75}
"""US dollars per million tokens."""


@dataclass(frozen=True)
class Usage:
    """Tokens of one reply, as the provider reports them; `cached` is part of `input`."""

    input: int = 200
    output: int = 50
    cached: int = 0


@dataclass(frozen=True)
class Reply:
    """One turn of the model."""

    text: str = ""
    tool_calls: Sequence[tuple[str, Mapping[str, Any]]] = ()
    usage: Usage = Usage()
    delay: float = 0.0
    """Seconds before anything is sent."""
    pace: float = 0.0
    """Seconds before each piece of the text."""
    piece: int = 24
    """Characters of text in one chunk of the stream."""
    finish: str | None = None
    """The finish_reason; by default `tool_calls` or `stop`, whichever fits."""


Request = dict[str, Any]
"""The body of a chat-completions request."""

Script = Callable[[Request, int], Reply]
"""Takes a request and its number, counted from 1, and returns the model's turn."""


class Stream:
    """One HTTP response being written; every wait ends early when the model is closed."""

    def __init__(self, http: BaseHTTPRequestHandler, closing: threading.Event) -> None:
        self.http = http
        self._closing = closing

    def wait(self, seconds: float | None) -> None:
        """Sleeps; `None` waits for the model to be closed."""
        self._closing.wait(seconds)

    def head(self, status: int, content_type: str, **headers: str) -> None:
        """Sends status and headers; `raw` and `finish` must follow."""
        self.http.send_response(status)
        for name, value in {"Content-Type": content_type, "Transfer-Encoding": "chunked", **headers}.items():
            self.http.send_header(name.replace("_", "-"), value)
        self.http.end_headers()
        self.http.close_connection = True

    def raw(self, data: bytes) -> None:
        self.http.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
        self.http.wfile.flush()

    def finish(self) -> None:
        """Ends the body in good order."""
        self.http.wfile.write(b"0\r\n\r\n")

    def chunk(self, delta: Mapping[str, Any], finish: str | None = None, usage: Usage | None = None) -> None:
        """Sends one chat.completion.chunk as a server-sent event."""
        body: dict[str, Any] = {
            "id": "scripted",
            "object": "chat.completion.chunk",
            "created": 0,
            "model": MODEL,
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
        }
        if usage is not None:
            body["usage"] = {
                "prompt_tokens": usage.input,
                "completion_tokens": usage.output,
                "total_tokens": usage.input + usage.output,
                "prompt_tokens_details": {"cached_tokens": usage.cached},
            }
        self.raw(b"data: " + json.dumps(body).encode() + b"\n\n")

    def begin(self, connection: str = "close") -> None:
        """Sends the headers and the first chunk of a turn."""
        self.head(200, "text/event-stream", Connection=connection)
        self.chunk({"role": "assistant", "content": ""})

    def body(self, reply: Reply) -> None:
        """Streams text and tool calls, without the end."""
        for start in range(0, len(reply.text), reply.piece):
            if reply.pace:
                self.wait(reply.pace)
            self.chunk({"content": reply.text[start : start + reply.piece]})
        for index, (name, arguments) in enumerate(reply.tool_calls):
            call = {"index": index, "id": f"call_{index}", "type": "function"}
            self.chunk({"tool_calls": [{**call, "function": {"name": name, "arguments": ""}}]})
            text = json.dumps(arguments)
            self.chunk({"tool_calls": [{"index": index, "function": {"arguments": text}}]})

    def end(self, reply: Reply) -> None:
        finish = reply.finish or ("tool_calls" if reply.tool_calls else "stop")
        self.chunk({}, finish, reply.usage)
        self.raw(b"data: [DONE]\n\n")
        self.finish()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", "0"))
        request = json.loads(self.rfile.read(length))
        cast("_Server", self.server).model.take(self, request)

    def log_message(self, format: str, *args: object) -> None:
        """Prints nothing: stderr is the terminal on which the demo is shown."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64
    model: "Model"

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignored: a peer that went away is pi being ended, and failures of the script are answered in `take`."""


class Model:
    """The server, running from construction to `close`; also a context manager."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self.requests: list[Request] = []
        """Every request body, oldest first."""
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.model = self
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="scripted-model", daemon=True
        )
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """The `baseUrl` for models.json."""
        return f"http://127.0.0.1:{self.port}/v1"

    def take(self, http: BaseHTTPRequestHandler, request: Request) -> None:
        """Answers one request on the calling thread."""
        with self._changed:
            self.requests.append(request)
            number = len(self.requests)
            self._changed.notify_all()
        stream = Stream(http, self._closing)
        try:
            reply = self._script(request, number)
        except Exception as error:  # noqa: BLE001 - pi must get an answer, whatever the script raised
            failure = json.dumps({"error": {"message": f"the script failed: {error!r}"}})
            stream.head(400, "application/json", Connection="close")
            stream.raw(failure.encode())
            stream.finish()
            return
        self.answer(stream, reply)

    def answer(self, stream: Stream, reply: Reply) -> None:
        """Sends the whole turn."""
        stream.wait(reply.delay)
        stream.begin()
        stream.body(reply)
        stream.end(reply)

    def close(self) -> None:
        """Releases every waiting request and stops listening."""
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def write_models_json(
    agent_dir: Path, port: int, *, context_window: int = 200_000, max_tokens: int = 8_192, **more: Any
) -> None:
    """Makes `agent_dir` a PI_CODING_AGENT_DIR in which the model on `port` is the only provider.

    `more` are members of the model as pi knows them, such as another `cost`.
    """
    agent_dir.mkdir(parents=True, exist_ok=True)
    model = {
        "id": MODEL,
        "name": MODEL,
        "reasoning": False,
        "input": ["text"],
        "cost": PRICES,
        "contextWindow": context_window,
        "maxTokens": max_tokens,
        **more,
    }
    provider = {
        "baseUrl": f"http://127.0.0.1:{port}/v1",
        "api": "openai-completions",
        "apiKey": "none-needed",
        "models": [model],
    }
    text = json.dumps({"providers": {PROVIDER: provider}}, indent=2)
    (agent_dir / "models.json").write_text(text + "\n", encoding="utf-8")


def pi_environment(agent_dir: Path, base: Mapping[str, str]) -> dict[str, str]:
    """`base`, changed so that pi uses the model of `agent_dir` and fetches nothing from the network."""
    local = "127.0.0.1,localhost"
    return {
        **base,
        "PI_CODING_AGENT_DIR": str(agent_dir),
        "PI_OFFLINE": "1",
        "PI_SKIP_VERSION_CHECK": "1",
        # A proxy of the machine must not be asked for loopback.
        "NO_PROXY": local,
        "no_proxy": local,
    }


def text_of(message: Mapping[str, Any]) -> str:
    """The text of one message of a request, its parts joined."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content)


def since_prompt(request: Request) -> list[Request]:
    """The conversation from its first user message on: the prompt of this session and all that followed."""
    messages: list[Request] = request["messages"]
    first = next((n for n, message in enumerate(messages) if message["role"] == "user"), len(messages))
    return messages[first:]
