"""While pi works: its events, the operator's messages, the budgets and the watchdogs. Pure; called by the step.

The watchdogs escalate: ask pi for a sign of life (nudge), abort, kill. Each step has a deadline, so no silence
lasts for ever: old pi never times out a hung request, and no pi times out a tool.
"""

from dataclasses import replace

from ralph_runner.core import budget, charges, closing, far, mailbox, models
from ralph_runner.core.effects import EndPi, Journal, Save
from ralph_runner.core.inputs import (
    AgentEnd,
    AgentStart,
    AssistantEnd,
    AssistantStart,
    Charged,
    CompactionEnd,
    CompactionStart,
    PiExited,
    PiInput,
    QueueUpdate,
    Reply,
    RetryEnd,
    RetryStart,
    Settled,
    ToolEnd,
    ToolStart,
    UserMessage,
)
from ralph_runner.core.phases import Running
from ralph_runner.core.run import NOTHING, EndReason, Run
from ralph_runner.core.turn import Turn

ABORT_MS = 5_000
"""A tool or dialog that ignores the signal keeps an abort from ever being answered."""
HELD_ABORT_MS = 1_000
NUDGE_MS = 5_000
EXPECT_MS = 5_000
"""How long an announced agent_start may take (after an old pi's compaction)."""
ACCEPT_MS = 60_000
"""How long pi may take to answer a prompt and to begin."""
SHOWN_RUNNING_MS = 4_000
"""A loop is shown as running when the model answers, or when nothing has gone wrong for this long."""


def event(t: Turn, phase: Running, e: PiInput) -> None:
    """Something came from pi during a run."""
    run = replace(phase.run, last_sign=t.now.mono)
    if not isinstance(e, Reply):
        run = replace(run, nudge_id="", nudge_deadline=None)
    run = charges.counted(run, e)
    t.go(Running(run))
    match e:
        case AgentStart():
            t.go(Running(replace(run, agent="streaming", tools=())))
            forward(t)
        case UserMessage(text):
            t.set(mail=mailbox.read_by_pi(t.loop.mail, text, run.dropped))
            t.go(Running(replace(run, dropped=None)))
        case AssistantStart(stop_reason):
            if stop_reason not in ("error", "aborted"):
                _answer_begins(t, run)
        case AssistantEnd():
            _answer_ends(t, run, e)
        case ToolStart():
            t.go(Running(replace(run, tools=(*run.tools, e))))
        case ToolEnd(id=ended):
            left = tuple(tool for tool in run.tools if tool.id != ended)
            t.go(Running(replace(run, tools=left, wrote=run.wrote or (not e.is_error and _writes(e.name)))))
        case QueueUpdate(steering, follow_up):
            t.go(Running(run.queued(len(steering), len(follow_up))))
        case Reply():
            _reply(t, run, e)
        case PiExited():
            where = far.place(t)
            t.set(pi=None)
            closing.close(t, run, exited=e, where=where)
        case _:
            _settling(t, run, e)
    if isinstance(e, Charged | CompactionEnd) and charges.usage_of(e) != NOTHING:
        _charged(t)


def _charged(t: Turn) -> None:
    """What was used beside the answers counts against the limits like them."""
    phase = t.loop.phase
    if isinstance(phase, Running) and (over := budget.ends_run(t.loop, phase.run)) is not None:
        end_run(t, over)
    t.do(Save(lazy=True))


def _writes(tool: str) -> bool:
    """A tool whose purpose is to change files: pi's own `write` and `edit`, and what extensions call `multi_edit` or
    `apply_patch`. What `bash` does is seen in the project."""
    return any(word in tool.lower() for word in ("write", "edit", "patch"))


def _settling(t: Turn, run: Run, e: PiInput) -> None:
    """The events that decide whether the run is over; see the diagram in `core/run.py`."""
    pi = t.loop.pi
    assert pi is not None
    match e:
        case Settled():
            t.set(pi=replace(pi, settles=True))
            closing.close(t, run)
        case AgentEnd() if not pi.settles:
            request = t.send("get_state")
            t.go(Running(replace(run, agent="barrier", barrier_id=request, tools=())))
        case RetryStart():
            t.go(Running(replace(run, agent="retrying")))
        case RetryEnd(success=False) if run.agent == "retrying" and not pi.settles:
            closing.close(t, run)
        case CompactionStart() if run.agent == "barrier":
            t.go(Running(replace(run, agent="compacting")))
        case CompactionEnd(will_retry=will_retry) if run.agent == "compacting":
            if will_retry or run.has_queue:
                _expect(t, run)
            else:
                closing.close(t, run)
        case _:
            pass


def _expect(t: Turn, run: Run) -> None:
    t.go(Running(replace(run, agent="expecting", expect_until=t.now.mono + EXPECT_MS)))


def _reply(t: Turn, run: Run, reply: Reply) -> None:
    if reply.id == run.prompt_id and not reply.success:
        closing.close(t, replace(run, error=reply.error or "pi refused the prompt", stop_reason="error"))
    elif reply.id == run.barrier_id and run.agent == "barrier":
        if run.has_queue and run.ending is None:
            _expect(t, run)
        else:
            closing.close(t, run)
    elif reply.id == run.nudge_id:
        idle = reply.success and not reply.data.get("isStreaming") and not reply.data.get("isCompacting")
        if idle and run.agent in ("streaming", "prompted", "barrier"):
            t.notice("warning", "pi is idle although it never said that the run is over; taken as its end")
            closing.close(t, run)
        else:
            end_run(t, "idle")
    elif reply.request in ("steer", "follow_up"):
        _message_answered(t, reply)


def _message_answered(t: Turn, reply: Reply) -> None:
    id = reply.id.partition(":")[2]
    message = next((m for m in t.loop.mail if m.id == id and m.place == "sent"), None)
    if message is None:
        return
    if reply.success:
        t.set(mail=mailbox.move(t.loop.mail, frozenset({id}), "queued"))
        t.receipt(message, "queued")
    else:
        held = replace(message, place="held", next_only=True)
        t.set(mail=tuple(held if m.id == id else m for m in t.loop.mail))
        t.notice("warning", f"pi refused a {message.verb} ({reply.error}); it heads the next prompt")


def forward(t: Turn) -> None:
    """Sends held messages into the running session; into an idle pi they would be lost."""
    phase = t.loop.phase
    if not isinstance(phase, Running) or phase.run.agent != "streaming" or phase.run.ending is not None:
        return
    for message in mailbox.forwardable(t.loop.mail):
        t.do(Journal(message.id, message.verb, "sent", t.loop.iteration))
        command = "steer" if message.verb == "steer" else "follow_up"
        t.send(command, mark=f":{message.id}", message=message.text)
        t.set(mail=mailbox.move(t.loop.mail, frozenset({message.id}), "sent"))


def _answer_begins(t: Turn, run: Run) -> None:
    left, delivered = mailbox.answered(t.loop.mail)
    for message in delivered:
        t.receipt(message, "delivered")
    t.set(mail=left, ever_answered=True, losses=0, lost_since=None)
    t.go(Running(replace(run, answered=True, delivered=(*run.delivered, *(m.id for m in delivered)))))
    if t.loop.status == "starting":
        t.status("running")
    elif delivered:
        t.do(Save())


def _answer_ends(t: Turn, run: Run, answer: AssistantEnd) -> None:
    if answer.stop_reason not in ("error", "aborted") and t.loop.pi is not None:
        t.set(outages=models.answered(t.loop.config, t.loop.outages, t.loop.pi.model))
    over: EndReason | None = budget.ends_run(t.loop, run)
    if answer.usage.cost == 0 and budget.tokens_of(answer.usage) > 0:
        over = over or _without_price(t, run)
    # A last answer ends by itself; aborting it would throw a finished run away.
    if over is not None and (run.tool_calls_last > 0 or mailbox.in_pi(t.loop.mail)):
        end_run(t, over)
    t.do(Save(lazy=True))


def _without_price(t: Turn, run: Run) -> EndReason | None:
    """The answer has tokens and no price: said once, and the end of a loop whose only cap is in dollars."""
    name, pi = f"{run.provider}/{run.model}", t.loop.pi
    if not t.loop.price_warned:
        t.set(price_warned=True)
        t.notice("warning", f"pi knows no prices for {name}: what it costs is not counted, only its tokens are")
    is_free = pi is not None and pi.has_prices is True and run.model == t.loop.model
    if is_free or not budget.cap_is_blind(t.loop.config):
        return None
    t.set(blind=t.loop.blind or budget.no_prices(name))
    return "max-cost"


def end_run(t: Turn, why: EndReason) -> None:
    """Ends the run before it ends itself: the abort now, the kill when that has no effect."""
    phase = t.loop.phase
    assert isinstance(phase, Running)
    if phase.run.ending is not None:
        return
    # What pi holds would run on after the abort or leak into the next prompt; it is held here.
    if t.loop.pi is not None and t.loop.pi.clear_queue:
        t.send("clear_queue")
    t.send("abort")
    # A pi that is held cannot say that it obeyed.
    patience = ABORT_MS if t.loop.blocked_since is None else HELD_ABORT_MS
    run = replace(phase.run, ending=why, cut_off=phase.run.tools)
    t.go(Running(replace(run, end_deadline=t.now.mono + patience, nudge_deadline=None)))


def deadlines(t: Turn, run: Run) -> list[int]:
    """All moments at which `tick` would act."""
    config = t.loop.config
    found: list[int | None] = [run.end_deadline if not run.killed else None, run.nudge_deadline]
    if run.agent == "expecting":
        found.append(run.expect_until)
    if run.ending is None:
        if config["iterationTimeoutMs"]:
            found.append(run.started_mono + config["iterationTimeoutMs"])
        found.append(budget.deadline(t.loop))
        if run.nudge_deadline is None:
            found.append(_quiet_until(t, run))
    if t.loop.status == "starting":
        found.append(run.started_mono + SHOWN_RUNNING_MS)
    return [deadline for deadline in found if deadline is not None]


def _quiet_until(t: Turn, run: Run) -> int | None:
    """When silence becomes suspicious; None: never."""
    if run.agent == "prompted":
        return run.last_sign + ACCEPT_MS
    limit = t.loop.config["toolTimeoutMs"] if run.tools else t.loop.config["idleTimeoutMs"]
    return run.last_sign + limit if limit else None


def tick(t: Turn, phase: Running) -> None:
    """Carries out what is due."""
    run, config, mono = phase.run, t.loop.config, t.now.mono
    if t.loop.status == "starting" and mono >= run.started_mono + SHOWN_RUNNING_MS:
        t.status("running")
    if run.agent == "expecting" and mono >= run.expect_until:
        closing.close(t, run)
        return
    if run.ending is not None:
        if run.end_deadline is not None and mono >= run.end_deadline and not run.killed:
            t.notice("warning", "pi did not end in time after an abort; killing it")
            _kill(t, run)
        return
    if run.nudge_deadline is not None and mono >= run.nudge_deadline:
        t.notice("warning", "pi does not answer; killing it")
        _kill(t, replace(run, ending="idle", cut_off=run.tools))
        return
    if config["iterationTimeoutMs"] and mono >= run.started_mono + config["iterationTimeoutMs"]:
        end_run(t, "iteration-timeout")
        return
    if budget.time_is_up(t.loop):
        end_run(t, "max-time")
        return
    quiet = _quiet_until(t, run)
    if quiet is not None and mono >= quiet and run.nudge_deadline is None:
        t.notice("warning", f"no sign of life from pi for {(mono - run.last_sign) // 1000} s; asking it")
        request = t.send("get_state")
        t.go(Running(replace(run, nudge_id=request, nudge_deadline=mono + NUDGE_MS)))


def _kill(t: Turn, run: Run) -> None:
    t.go(Running(replace(run, killed=True, nudge_deadline=None)))
    t.do(EndPi(graceful=False))
