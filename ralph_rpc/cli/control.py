"""Commands for a loop that runs: stop, abort, pause, steer, followup, kill.

All but `kill` are a file in the loop's inbox and nothing else; the receipt comes as events. `kill` signals
the runner, by its pid *and* start time, and corrects the files only where the runner could not.
"""

import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import click
import orjson

from ralph_rpc import clock
from ralph_rpc.errors import NoSuchLoop, RalphError, UsageError
from ralph_rpc.files import identity, inbox, locks, records, registry
from ralph_rpc.files.commandfile import MAX_BYTES
from ralph_rpc.files.eventreader import EventReader
from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.loops import complete_names, find_project, loop_status, loops_of, resolve_loop
from ralph_rpc.model.commands import Verb
from ralph_rpc.model.state import ENDED, State
from ralph_rpc.option_kinds import DURATION, Wrong
from ralph_rpc.text import inert

POLL_S = 0.05
TERM_PATIENCE_S = 15.0
"""The runner gives pi 5 s for an abort and the guard as long for a SIGTERM."""
KILL_PATIENCE_S = 5.0
TREE_PATIENCE_S = 20.0
LEAVE_S = 10.0
"""From a runner's last word to its end."""

_project = click.option(
    "--project",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The project that the loop belongs to.",
)
_name = click.argument("name", shell_complete=complete_names)
_wait = click.option("--wait", "waits", is_flag=True, help="Return when it has had its effect.")


def seconds(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """A duration as in the options of `start`, in seconds."""
    try:
        return None if value is None else cast(int, DURATION.parse(value, Path.cwd())) / 1000
    except Wrong as error:
        raise click.BadParameter(str(error), ctx, param) from None


_timeout = click.option(
    "--timeout", callback=seconds, metavar="TIME", help="With --wait: give up after this time (30s, 10m)."
)


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=complete_names)
@click.option("--all", "every", is_flag=True, help="Every running loop of this project.")
@click.option("--now", is_flag=True, help="Abort the running iteration instead of letting it end.")
@_wait
@_timeout
@_project
def stop(
    names: tuple[str, ...], every: bool, now: bool, waits: bool, timeout: float | None, project: Path | None
) -> None:
    """End loops after the iteration that runs, or now."""
    if bool(names) == every:
        raise UsageError("give the loop's NAME, or --all", "see: ralph-rpc list")
    _check_wait(waits, timeout)
    loops = (
        _running_here(project) if every else [resolve_loop(name, project) for name in dict.fromkeys(names)]
    )
    sent: list[tuple[LoopPaths, str, int]] = []
    refused: list[RalphError] = []
    for paths in loops:
        # One that has ended is no reason to let the others run.
        try:
            sent.append((paths, *_order(paths, "stop", {"when": "now" if now else "iteration"})))
        except RalphError as error:
            refused.append(error)
            continue
        _say(f"{paths.name}: {'ending now' if now else 'will stop after this iteration'}")
    for paths, id, offset in sent if waits else ():
        _await(paths, id, offset, timeout)
        _until_gone(paths)
    if refused:
        raise RalphError("; ".join(error.message for error in refused), refused[0].hint, refused[0].code)


@click.command()
@_name
@click.option(
    "--then", type=click.Choice(["continue", "pause", "stop"]), default="continue", help="What follows."
)
@_wait
@_timeout
@_project
def abort(name: str, then: str, waits: bool, timeout: float | None, project: Path | None) -> None:
    """End the current pi run at once; by default a fresh iteration follows."""
    _one_order(name, project, "abort", {"then": then}, f"aborting, then {then}", waits, timeout)


@click.command()
@_name
@_wait
@_timeout
@_project
def pause(name: str, waits: bool, timeout: float | None, project: Path | None) -> None:
    """Hold a loop before its next iteration."""
    _one_order(name, project, "pause", {}, "will pause before the next iteration", waits, timeout)


_ticket = click.option("--ticket", metavar="ID", help="In a ticket loop: to whom works on this ticket.")


@click.command()
@_name
@click.argument("message", nargs=-1)
@_ticket
@_wait
@_timeout
@_project
def steer(
    name: str, message: tuple[str, ...], ticket: str | None, waits: bool, timeout: float | None, project: Path | None
) -> None:
    """Tell the agent something while it works: it gets it between two turns.

    MESSAGE comes from the arguments, from stdin (with - or a pipe), or from your editor.
    """
    _message(name, project, "steer", message, {"ticket": ticket} if ticket else {}, waits, timeout)


@click.command()
@_name
@click.argument("message", nargs=-1)
@click.option("--next", "later", is_flag=True, help="Keep it for the next iteration's prompt.")
@_ticket
@_wait
@_timeout
@_project
def followup(
    name: str,
    message: tuple[str, ...],
    later: bool,
    ticket: str | None,
    waits: bool,
    timeout: float | None,
    project: Path | None,
) -> None:
    """Tell the agent something for when it would end its turn: the same session goes on with it.

    MESSAGE comes from the arguments, from stdin (with - or a pipe), or from your editor.
    """
    body = {"when": "next" if later else "now", **({"ticket": ticket} if ticket else {})}
    _message(name, project, "followup", message, body, waits, timeout)


@click.command()
@_name
@_project
def kill(name: str, project: Path | None) -> None:
    """End a loop that does not listen: its runner and everything below it."""
    paths = resolve_loop(name, project)
    by_force = end_runner(paths)
    _say(f"{paths.name}: killed" + (" by force" if by_force else ""))


def end_runner(paths: LoopPaths) -> bool:
    """Ends the runner and waits until its tree is gone; tells whether it took SIGKILL."""
    name = paths.name
    found = loop_status(paths)
    if found.runner == "dead":
        raise RalphError(f"loop {name!r} is not running ({found.shown})", _resume_hint(paths))
    who = _runner_of(paths, found.state)
    if who[0] is not None and identity.is_same(*who) and not identity.is_background(who[0]):
        raise RalphError(
            f"pid {who[0]} is no runner, though the files of {name!r} name it; nothing was signalled",
            f"see: ralph-rpc status {name}",
        )
    if not identity.signal_same(*who, signal.SIGTERM) and not _until(lambda: _is_free(paths), LEAVE_S):
        raise RalphError(f"the runner of {name!r} cannot be signalled", f"see: ralph-rpc status {name}")
    by_force = not _until(lambda: _is_free(paths), TERM_PATIENCE_S)
    if by_force:
        identity.signal_same(*who, signal.SIGKILL)
        if not _until(lambda: _is_free(paths), KILL_PATIENCE_S):
            raise RalphError(
                f"the runner of {name!r} (pid {who[0]}) does not end", "it may hang in the kernel"
            )
    if not _until(lambda: not locks.is_held(paths.tree_lock), TREE_PATIENCE_S):
        raise RalphError(f"processes of {name!r} still live", "end them with: ralph-rpc doctor --fix")
    _correct(paths)
    return by_force


def _is_free(paths: LoopPaths) -> bool:
    return not locks.is_held(paths.runner_lock)


def _runner_of(paths: LoopPaths, state: State | None) -> tuple[int | None, float | None, str]:
    """Pid, start time and boot id of the runner, from the registry where state.json cannot be read."""
    if state is not None:
        return state["pid"], state["pidStartTime"], state["bootId"]
    for _, entry in registry.entries()[0]:
        if entry["ralphDir"] == str(paths.dir):
            return entry["pid"], entry["pidStartTime"], entry["bootId"]
    return None, None, ""


def _correct(paths: LoopPaths) -> None:
    """The last word that a runner killed by force could not say."""
    lock = locks.acquire(paths.runner_lock)
    if lock is None:  # resumed by somebody else already
        return
    with lock:
        state = records.read_state(paths)
        if state is None or state["status"] in ENDED:
            return
        now = clock.iso(clock.now_ms())
        records.write_state(paths, {
            **state, "status": "stopped", "stopReason": "kill", "error": "the runner was killed",
            "pid": None, "pidStartTime": None, "endedAt": now, "updatedAt": now, "nextWakeAt": None,
        })  # fmt: skip
        for path, entry in registry.entries()[0]:
            if entry["ralphDir"] == str(paths.dir):
                registry.remove(path)


def _one_order(
    name: str,
    project: Path | None,
    verb: Verb,
    body: dict[str, Any],
    told: str,
    waits: bool,
    timeout: float | None,
) -> None:
    _check_wait(waits, timeout)
    paths = resolve_loop(name, project)
    id, offset = _order(paths, verb, body)
    _say(f"{paths.name}: {told}")
    if waits:
        _await(paths, id, offset, timeout)


def _order(paths: LoopPaths, verb: Verb, body: dict[str, Any]) -> tuple[str, int]:
    """Drops an order that only a living runner can take."""
    found = loop_status(paths)
    if found.runner == "dead":
        raise RalphError(f"loop {paths.name!r} is not running ({found.shown})", _resume_hint(paths))
    offset = end_of_log(paths)
    return inbox.drop(paths.inbox, verb, body), offset


def _message(
    name: str,
    project: Path | None,
    verb: Verb,
    words: tuple[str, ...],
    body: dict[str, Any],
    waits: bool,
    timeout: float | None,
) -> None:
    _check_wait(waits, timeout)
    paths = resolve_loop(name, project)
    found = loop_status(paths)
    if found.runner == "dead" and found.shown == "completed":
        raise RalphError(f"loop {name!r} is completed", f"begin anew with: ralph-rpc start {name}")
    if waits and found.runner == "dead":
        raise RalphError(
            f"loop {name!r} is not running ({found.shown}), nobody would take it", _resume_hint(paths)
        )
    _check_addressee(paths, found.state, body.get("ticket"))
    text = _text(words)
    offset = end_of_log(paths)
    id = inbox.drop(paths.inbox, verb, {"message": text, **body})
    if found.runner == "dead":
        _say(
            f"{paths.name}: not running ({found.shown}); kept for the first prompt after: "
            f"ralph-rpc resume {paths.name}"
        )
        return
    _say(f"{paths.name}: sent ({id})")
    if waits:
        _await(paths, id, offset, timeout)


def _check_addressee(paths: LoopPaths, state: State | None, ticket: str | None) -> None:
    """Raises UsageError where the runner would have to refuse the message."""
    if state is None:
        return
    if state["kind"] != "tickets":
        if ticket is not None:
            raise UsageError(f"loop {paths.name!r} has no tickets", "leave --ticket out")
        return
    running = state.get("tickets", {}).get("running", [])
    working = [one["ticket"] for one in running if one["status"] in ("running", "verifying")]
    if ticket is None and len(working) > 1 and state["status"] not in ENDED:
        raise UsageError(
            f"{len(working)} tickets are being worked on: {', '.join(working)}", "say which with --ticket ID"
        )


def _text(words: tuple[str, ...]) -> str:
    """The message from the arguments, stdin or the editor; not empty."""
    if words and words != ("-",):
        text = " ".join(words)
    elif words or not sys.stdin.isatty():
        data = sys.stdin.buffer.read(MAX_BYTES + 1)
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            raise UsageError("the message on stdin is not UTF-8", "nothing was sent") from None
    else:
        text = click.edit("") or ""
    text = text.strip()
    if not text:
        raise UsageError("there is no message", "give it as arguments, on stdin, or in the editor")
    return text


def _running_here(project: Path | None) -> list[LoopPaths]:
    folder = project.resolve() if project is not None else find_project(Path.cwd())
    running = [paths for paths in (loops_of(folder) if folder else []) if loop_status(paths).runner != "dead"]
    if not running:
        raise NoSuchLoop("no loop runs in this project", "see: ralph-rpc list --all")
    return running


def end_of_log(paths: LoopPaths) -> int:
    """The logical offset at which the next event will be."""
    reader = EventReader.at_end(paths.events, 0)
    try:
        return reader.offset
    finally:
        reader.close()


def _check_wait(waits: bool, timeout: float | None) -> None:
    if timeout is not None and not waits:
        raise UsageError("--timeout needs --wait", "a command is sent at once")


def _await(paths: LoopPaths, id: str, offset: int, timeout: float | None) -> None:
    """Until the command has had its effect. RalphError if it never will, or after `timeout` seconds."""
    deadline = None if timeout is None else time.monotonic() + timeout
    reader = EventReader.at(paths.events, offset)
    try:
        while True:
            gone = loop_status(paths).runner == "dead"
            for _, line in reader.read():
                if line.startswith(b'{"type":"ralph_command"') and _is_last_step(line, paths, id):
                    return
            if gone:
                raise RalphError(f"the runner of {paths.name!r} is gone", _resume_hint(paths))
            if deadline is not None and time.monotonic() > deadline:
                raise RalphError(
                    "not delivered yet; the loop still has it", f"see: ralph-rpc status {paths.name}"
                )
            time.sleep(POLL_S)
    finally:
        reader.close()


def _is_last_step(line: bytes, paths: LoopPaths, id: str) -> bool:
    event = cast(dict[str, Any], orjson.loads(line))
    if event.get("id") != id or event["state"] in ("accepted", "queued"):
        return False
    if event["state"] != "delivered":
        raise RalphError(
            f"{event['command']} {event['state']}: {event.get('reason', '')}", _resume_hint(paths)
        )
    _say(f"{paths.name}: {event['command']} delivered")
    return True


def _until(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


def _until_gone(paths: LoopPaths) -> None:
    """So that what is done next does not find the lock still held."""
    _until(lambda: loop_status(paths).runner == "dead", LEAVE_S)


def _resume_hint(paths: LoopPaths) -> str:
    return f"go on with: ralph-rpc resume {paths.name}"


def _say(line: str) -> None:
    click.echo(inert(line, keep_newlines=False))
