"""Loops from a Python program: start them, watch them, talk to them, end them; and single tickets.

    from ralph_rpc import api

    loop = api.start("fix-tests", task="Make the tests pass.", verify="make test", max_cost=5)
    print(loop.name, loop.status().shown, loop.paths.dir)

    for event in loop.events():  # as they come, until the loop has ended
        if event["type"] == "ralph_iteration_end":
            print(event["iteration"], event["outcome"], event["cost"])

    found = loop.wait()
    print(found.shown, found.state["stopReason"], found.state["stats"]["cost"])

The runner is a process of its own, as with `ralph-rpc start`: it can be watched, steered and stopped by any process,
and works on if the program that started it ends. A handle is only a name: `find` gives it again. What a loop is told
is a file in its inbox; a receipt says what became of it:

    loop = api.find("fix-tests")
    sent = loop.steer("Leave the parser alone.")
    print(loop.receipt(sent, timeout=600).state)  # "delivered": the model answers with it in its context
    loop.stop()  # after the iteration that runs
    loop.wait(timeout=3600)

One ticket, worked on by a loop of its own that is there at once:

    import time

    run = api.start_ticket("pt-123", verify="make test", worktrees=True)
    print(run.ticket_id, run.loop.name)  # and run.session_id, known when the first attempt has ended
    while (result := run.poll()) is None:
        time.sleep(1)
    print(result.success, result.error, result.termination_method)

Every error that a caller can act on is a `RalphError`, with a `message`, a `hint` what to do about it, and the exit
code that the program would have: UsageError, NoSuchLoop, NotRunning, AlreadyRunning, PiUnusable; TimedOut where only
the time to wait was over. Whatever else escapes is a bug.
"""

from pathlib import Path

from ralph_rpc.errors import AlreadyRunning, NoSuchLoop, NotRunning, PiUnusable, RalphError, UsageError
from ralph_rpc.files.text import decode_text
from ralph_rpc.loops import start as starting
from ralph_rpc.loops.find import find_project, loops_of
from ralph_rpc.loops.handle import Loop
from ralph_rpc.loops.send import Receipt, Sent
from ralph_rpc.loops.status import LoopStatus
from ralph_rpc.loops.tail import Event, EventStream
from ralph_rpc.loops.ticket_run import TicketResult, TicketRun, launch, see_through
from ralph_rpc.loops.wait import TimedOut
from ralph_rpc.machine import nofollow
from ralph_rpc.options.python import OptionValue, as_given

__all__ = [
    "AlreadyRunning",
    "Event",
    "EventStream",
    "Loop",
    "LoopStatus",
    "NoSuchLoop",
    "NotRunning",
    "OptionValue",
    "PiUnusable",
    "RalphError",
    "Receipt",
    "Sent",
    "TicketResult",
    "TicketRun",
    "TimedOut",
    "UsageError",
    "find",
    "loops",
    "run_ticket",
    "start",
    "start_ticket",
]


def start(
    name: str,
    project: str | Path = ".",
    *,
    task: str | None = None,
    tickets: str | Path | None = None,
    **options: OptionValue,
) -> Loop:
    """Create the loop `name` in `project`, start it, and return once it works or has ended.

    `task` is the text of the task; None uses the `.ralph/<name>/task.md` that is there. `tickets` makes it a ticket
    loop: the folder of the tickets, or "" for the one that `tk` would use. `options` are those of `ralph-rpc start`,
    with _ for -: `model`, `verify`, `max_cost`, `max_time="2h"` … Environment and config files count as they do there.

    Raises UsageError, AlreadyRunning or PiUnusable, with nothing started and nothing left behind.
    """
    folder = None if tickets is None else str(tickets)
    plan = starting.check(name, Path(project), as_given(options), folder, task)
    text = None if task is None else decode_text(task.encode("utf-8", "surrogateescape"), "the task")
    if text is None and folder is None and not nofollow.is_file(plan.paths.task):
        raise UsageError("there is no task", f"give one as task=…, or write {plan.paths.task}")
    creation, runner = starting.start(plan, text)
    starting.await_begun(plan.paths, runner, creation)
    return Loop(plan.paths)


def find(name: str, project: str | Path | None = None) -> Loop:
    """The loop of that name: of `project`, else of the project around the working folder, else one in the registry.

    Raises NoSuchLoop where there is none, or where several projects have one.
    """
    return Loop.find(name, None if project is None else Path(project))


def loops(project: str | Path | None = None) -> list[Loop]:
    """Every loop of `project`, or of the project around the working folder, living or ended, in the order of names."""
    folder = Path(project).expanduser().resolve() if project is not None else find_project(Path.cwd())
    return [Loop(paths) for paths in loops_of(folder)] if folder is not None else []


def start_ticket(
    ticket_id: str,
    project: str | Path = ".",
    *,
    name: str | None = None,
    tickets: str | Path = "",
    **options: OptionValue,
) -> TicketRun:
    """Launch a loop that works on this one ticket, and return at once, before pi has answered.

    `name` is the loop's, by default `ticket-<id>`; `tickets` and `options` as for `start`. Raises UsageError,
    AlreadyRunning or PiUnusable where the loop could not be launched; what goes wrong later is in the result.
    """
    return launch(ticket_id, Path(project), name, str(tickets), as_given(options)).run


def run_ticket(
    ticket_id: str,
    project: str | Path = ".",
    *,
    name: str | None = None,
    tickets: str | Path = "",
    timeout: float | None = None,
    **options: OptionValue,
) -> TicketResult:
    """Work on one ticket and wait until it is closed or set aside.

    After `timeout` seconds, and at a KeyboardInterrupt, the loop is ended, gently at first, and the result is no
    success. The rest is as for `start_ticket`; PiUnusable is raised where pi turns out to be of no use.
    """
    return see_through(launch(ticket_id, Path(project), name, str(tickets), as_given(options)), timeout)
