"""Records what real pi writes to stdout: `python -m tests.data.record_transcripts` in the checkout's root.

Each run of `RUNS` is done with each generation of pi and the scripted model, and its stdout written as it
came to `tests/data/transcripts/<version>/<run>.jsonl`; only this machine's paths are replaced. Tests replay the
files, so they are recorded anew only when pi's side of the protocol is to be looked at again.
"""

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ralph_rpc.demo.model import Reply, Request, Usage
from tests.real_pi import provision
from tests.real_pi.bare_client import BareClient
from tests.real_pi.scripted_model import MODEL_ARGS, ScriptedModel, hang_mid_stream, pi_env, status

HERE = Path(__file__).parent / "transcripts"

EXTENSION = """\
export default function (pi) {
  pi.on("before_agent_start", async (_event, ctx) => {
    const sure = await ctx.ui.confirm("Go on?", "This may take a while");
    const which = await ctx.ui.select("Which one?", ["first", "second"]);
    const name = await ctx.ui.input("Its name?", "a name");
    ctx.ui.notify(`sure ${sure}, which ${which}, name ${name}`, "info");
  });
}
"""


@dataclass(frozen=True)
class Run:
    """What the model says (besides summaries), what is sent to pi, and how pi is set up for it."""

    replies: Sequence[Reply]
    drive: Callable[[BareClient], None]
    args: Sequence[str] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    context_window: int = 200_000


def prompt(client: BareClient, message: str) -> None:
    client.ask("prompt", message=message)
    client.settled()


def simple_reply(client: BareClient) -> None:
    prompt(client, "hello")
    client.ask("get_session_stats")
    client.ask("new_session")


def tool_call_steer_followup(client: BareClient) -> None:
    client.ask("prompt", message="count the files")
    client.until(lambda event: event["type"] == "tool_execution_start")
    client.ask("steer", message="hidden ones too")
    client.ask("follow_up", message="and now in words")
    client.settled()
    client.ask("get_session_stats")


def abort_stream_and_tool(client: BareClient) -> None:
    client.ask("prompt", message="think long")
    client.until(lambda event: event["type"] == "message_update")
    client.send("abort", id="abort")
    client.settled()
    client.ask("prompt", message="run long")
    client.until(lambda event: event["type"] == "tool_execution_start")
    client.send("abort", id="abort")
    client.settled()


def extension_dialog(client: BareClient) -> None:
    client.send("prompt", id="prompt", message="go")
    for answer in ({"confirmed": True}, {"value": "second"}, {"cancelled": True}):
        dialog = client.until(lambda event: event["type"] == "extension_ui_request")
        client.send("extension_ui_response", id=dialog["id"], **answer)
    client.settled()


def compaction(client: BareClient) -> None:
    prompt(client, "read a lot")
    prompt(client, "read more")
    prompt(client, "go on")


RUNS = {
    "simple_reply": Run([Reply("Hello. How can I help with this project?")], simple_reply),
    "tool_call_steer_followup": Run(
        [
            Reply("I look.", [("bash", {"command": "sleep 0.5; ls | wc -l"})]),
            Reply("Hidden ones too.", [("bash", {"command": "ls -A | wc -l"})]),
            Reply("Counted."),
            Reply("In words: a few."),
        ],
        tool_call_steer_followup,
    ),
    "abort_stream_and_tool": Run(
        [hang_mid_stream("Let me think about"), Reply("", [("bash", {"command": "sleep 60"})])], abort_stream_and_tool
    ),
    # three 529s: the older pi's HTTP client hides two of them
    "retry_then_success": Run([status(529)] * 3 + [Reply("Made it.")], lambda client: prompt(client, "try")),
    "error_401": Run([status(401)], lambda client: prompt(client, "hello")),
    "extension_dialog": Run([Reply("As you wish.")], extension_dialog, args=["--extension", "dialogs.ts"]),
    "compaction": Run(
        [
            Reply("A first long answer. " * 12, usage=Usage(3_000, 60)),
            Reply("A second long answer. " * 12, usage=Usage(19_500, 60)),
            Reply("Going on with a fresh mind."),
        ],
        compaction,
        settings={"compaction": {"enabled": True, "reserveTokens": 2_000, "keepRecentTokens": 40}},
        context_window=20_000,
    ),
}


def record(version: str, name: str, run: Run) -> None:
    """Does one run and writes its file."""
    pi = provision.provide(version)
    with tempfile.TemporaryDirectory(prefix="record-") as temporary:
        home = Path(temporary)
        project = home / "project"
        project.mkdir()
        (project / "dialogs.ts").write_text(EXTENSION)
        turns = list(run.replies)

        def script(request: Request, _: int) -> Reply:
            # pi asks for the summaries of a compaction without tools; how many depends on its generation
            return turns.pop(0) if "tools" in request else Reply("The summary: much was read.")

        with ScriptedModel(script) as model:
            agent_dir = model.agent_dir(home, run.settings, context_window=run.context_window)
            env = {**pi_env(agent_dir), "HOME": temporary, "LANG": "C.UTF-8"}
            with BareClient(pi.command, cwd=project, env=env, args=[*MODEL_ARGS, *run.args]) as client:
                client.ask("get_state")
                run.drive(client)
            assert not turns, f"{version} {name}: pi did not ask for {turns}"
    text = b"".join(client.lines)
    package = next(p for p in Path(pi.command[-1]).parents if (p / "package.json").is_file())
    for path, public in ((project, "/tmp/project"), (home, "/tmp/home"), (package, "/tmp/pi")):
        text = text.replace(str(path).encode(), public.encode())
    private = [temporary, str(Path.home()), str(provision.CACHE), str(Path.cwd())]
    # as they are, and as pi makes folder names of them
    found = [p for path in private for p in (path, path.strip("/").replace("/", "-")) if p.encode() in text]
    assert not found, f"{version} {name} holds {found}"
    target = HERE / version / f"{name}.jsonl"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(text)
    print(f"{version} {name}: {len(client.lines)} lines, {len(text)} bytes")


def main() -> None:
    shutil.rmtree(HERE, ignore_errors=True)
    for version in provision.VERSIONS:
        for name, run in RUNS.items():
            record(version, name, run)


if __name__ == "__main__":
    main()
