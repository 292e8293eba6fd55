"""After a run: its figures, whether the task is done, its record, and what follows. Pure; called by the step.

A claim of completion counts only from a run that ended well, and only when every gate agrees. What a refused claim
lacked becomes the next prompt's first words.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from ralph_rpc.clock import iso
from ralph_rpc.model.iteration import ErrorKind, Iteration, Outcome, Verify
from ralph_rpc.prompts.phrases import cut_off
from ralph_runner.core import budget, charges, completion, exits, failures, far, mailbox, models, policy
from ralph_runner.core.effects import EndIteration, MeasureWork, ReadTask, RunVerify, Save
from ralph_runner.core.failures import Failure
from ralph_runner.core.inputs import TOOL_ARGS, PiExited, Reply, Usage
from ralph_runner.core.phases import Between, Closing, RunResult, Session, Verifying
from ralph_runner.core.results import TaskRead, Verified, WorkMeasured
from ralph_runner.core.run import Run
from ralph_runner.core.state import Loop, PiFacts
from ralph_runner.core.turn import Turn
from ralph_runner.core.verdict import Verdict

STATS_MS = 15_000
SUMMARY_CHARS = 2_000
LAST_TEXT_CHARS = 500
MOST_FORGIVEN = 2
"""Claims of one duty that are refused without using up an attempt: an agent that does not listen comes to its end."""


def close(t: Turn, run: Run, exited: PiExited | None = None, where: str = "") -> None:
    """The run is over: asks for all that its record needs."""
    run = charges.cut(run)
    outcome, failure, kind = _outcome(t.loop.pi, run, exited)
    if outcome == "crashed" and exited is not None and exited.far in ("lost", "outside"):
        failure, kind = Failure("lost", far.told(t, exited, where)), "lost"
    result = RunResult(run, outcome, failure, kind, t.now.mono, t.now.wall)
    t.set(mail=mailbox.run_ended(t.loop.mail))
    t.do(ReadTask(), MeasureWork(t.loop.measure, _ignored_since(t.loop, run, outcome)))
    if t.loop.pi is not None:
        t.send("get_session_stats")
    t.go(Closing(result, t.now.mono + STATS_MS, stats=None if t.loop.pi is not None else {}))


def _ignored_since(loop: Loop, run: Run, outcome: Outcome) -> int | None:
    """Since when ignored files count as work: only where the loop would otherwise end as stalled, as looking takes time."""
    most = loop.config["stallAfter"]
    if not most or outcome != "ok" or run.wrote or loop.unchanged + 1 < most:
        return None
    return run.started_wall if loop.unchanged_since is None else loop.unchanged_since


def _outcome(pi: PiFacts | None, run: Run, exited: PiExited | None) -> tuple[Outcome, Failure | None, ErrorKind | None]:
    """What the run was. Our own reason to end it comes first: pi reports our abort as an error as well."""
    finished = run.stop_reason in ("stop", "length") and run.tool_calls_last == 0 and exited is None
    if run.ending in ("idle", "iteration-timeout") and not finished:
        what = "no sign of life" if run.ending == "idle" else "longer than --iteration-timeout"
        return "timeout", Failure("hang", f"{what}; ended by {'a kill' if run.killed else 'an abort'}"), "hang"
    if run.ending is not None and not finished:
        return "aborted", None, None
    if exited is not None:
        why = f"pi ended in the middle of an iteration ({exits.exit_text(exited)})"
        return "crashed", Failure("crash", why), "crash"
    if run.stop_reason == "aborted":
        return "aborted", None, None
    if run.stop_reason == "error":
        failure = failures.classify(run.error or "unknown error")
        return "failed", failure, failure.kind
    if run.stop_reason is None:
        return "failed", Failure("other", "pi settled without an answer of the model"), "other"
    if not run.text.strip() and not run.tool_calls:
        if budget.tokens_of(run.usage) == 0 and pi is not None and not pi.settles:
            # Old pi takes a connection that closes early for a complete, empty answer.
            return "failed", Failure("network", "the model's answer was cut off before its first word"), "network"
        return "failed", Failure("empty", "the model's answer had neither text nor a tool call"), "empty"
    return "ok", None, None


def collect(t: Turn, phase: Closing, event: Reply | TaskRead | WorkMeasured | None) -> None:
    """One of the three is there; None: pi's figures will not come."""
    if event is None:
        phase = replace(phase, stats=phase.stats or {})
    elif isinstance(event, TaskRead):
        closed = event.ticket is not None and event.ticket.closed
        phase = replace(phase, task=event.task, task_read=True, closed=closed)
    elif isinstance(event, WorkMeasured):
        phase = replace(phase, work=event)
        if t.loop.pi is not None:
            t.set(pi=replace(t.loop.pi, memory=event.pi_memory))
    elif event.request == "get_session_stats":
        phase = _told(phase, event.data)
    elif phase.session is not None and event.id == phase.session.request:
        phase = replace(phase, session=replace(phase.session, reply=event))
    if phase.session is None and not phase.ready and _continues(t, phase):
        phase = replace(phase, session=Session(t.new_session()))
    t.go(phase)
    if phase.ready:
        _judge(t, phase)


def _told(phase: Closing, stats: Mapping[str, object]) -> Closing:
    """With pi's own statistics of the session, which are asked for once, when the run has settled.

    Whatever pi told before its answer is in both sums, what comes later only in ours. pi 0.73.1 forgets in its own what
    a compaction dropped, and does not know what the summary cost; ours misses a usage inside a line that was too long to
    be read. Neither ever counts anything twice, so the larger of each figure is right.
    """
    run, told, cost = phase.result.run, stats.get("tokens"), stats.get("cost")
    if isinstance(told, dict) and isinstance(cost, int | float):
        counts = {key: int(told.get(key) or 0) for key in ("input", "output", "cacheRead", "cacheWrite")}
        theirs = Usage(counts["input"], counts["output"], counts["cacheRead"], counts["cacheWrite"], float(cost))
        run = replace(run, usage=run.usage.at_least(theirs))
    return replace(phase, stats=dict(stats), result=replace(phase.result, run=run))


def _continues(t: Turn, phase: Closing) -> bool:
    """Whether another iteration will follow, by all that is known before the project is measured.

    pi makes the next session meanwhile, which takes about as long. Where the guess is wrong (a limit, a stall, a
    command that comes right now) the session stays unused, and the next iteration asks for its own.
    """
    loop, result = t.loop, phase.result
    if phase.stats is None or not phase.task_read or loop.pi is None or loop.orders:
        return False
    if result.failure is not None or _claim(t, phase) is not None or policy.requested_end(t) is not None:
        return False
    return budget.forbids_iteration(loop, after=result.run) is None


def _judge(t: Turn, phase: Closing) -> None:
    claim = _claim(t, phase)
    verify = t.loop.config["verify"]
    if claim is None:
        _record(t, phase, None, None)
    elif verify is None and t.loop.duty is None:
        _record(t, phase, None, Verdict("completed", claim))
    elif policy.requested_end(t) is not None and (t.loop.duty is None or t.loop.terminate or t.loop.broken is not None):
        # A worker's finished ticket is worth the verification, else the whole work would be done again.
        _record(t, phase, None, None)
    else:
        # The next iteration's, should the claim be refused; a verification takes long enough for pi to warm the old one.
        if phase.session is None and t.loop.pi is not None:
            phase = replace(phase, session=Session(t.new_session()))
        said = completion.beside_marker(phase.result.run.answer, t.loop.config["marker"])
        t.do(RunVerify(verify, t.loop.config["toolTimeoutMs"], said if t.loop.duty is not None else ""))
        t.go(Verifying(phase, claim))


def _claim(t: Turn, phase: Closing) -> Literal["marker", "checklist"] | None:
    run = phase.result.run
    if phase.result.outcome != "ok" or run.stop_reason != "stop":
        return None
    if not run.answer.strip():
        return None  # an empty last message claims nothing, whatever came before
    if completion.claims_by_marker(run.answer, t.loop.config["marker"]):
        return "marker"
    if t.loop.duty is not None:
        return "marker" if phase.closed else None
    return "checklist" if phase.task is not None and completion.claims_by_checklist(phase.task) else None


def _nearly(t: Turn, phase: Closing) -> str | None:
    """What of the last message or of the checklist came near to a claim, for the next prompt; None: nothing did."""
    run = phase.result.run
    if phase.result.outcome != "ok" or _claim(t, phase) is not None:
        return None
    told = [completion.near_marker(run.answer, t.loop.config["marker"])]
    if t.loop.duty is None and phase.task is not None:
        told.append(completion.near_checklist(phase.task))
    if run.stop_reason == "length":
        told.append("The last message was cut off at the model's limit for one answer; it claims nothing.")
    return "\n".join(sentence for sentence in told if sentence) or None


def session_opened(t: Turn, phase: Verifying, reply: Reply) -> None:
    """The session that was asked for ahead is there, while the verify command runs."""
    closing = phase.closing
    if closing.session is not None and reply.id == closing.session.request:
        t.go(replace(phase, closing=replace(closing, session=replace(closing.session, reply=reply))))


def verified(t: Turn, phase: Verifying, result: Verified) -> None:
    """The verify command has ended, or was cancelled."""
    verify = result.verify
    t.set(measure=None)
    if result.own is not None:
        # Neither the claim nor the agent's work is at fault: no refusal, no attempt.
        t.set(broken=t.loop.broken or result.own)
        ours = replace(phase.closing.result, outcome="failed", failure=Failure("own", result.own), error_kind="own")
        _record(t, replace(phase.closing, result=ours), None, None)
        return
    if result.refusal is not None:
        if (duty := t.loop.duty) is not None and duty.forgiven < MOST_FORGIVEN:
            t.set(duty=replace(duty, attempts=duty.attempts + 1, forgiven=duty.forgiven + 1))
        _record(t, phase.closing, None, None)
        t.set(refusal=result.refusal)
        return
    if verify is None:
        _record(t, phase.closing, None, Verdict("completed", phase.claim) if result.passed else None)
        return
    if verify["exitCode"] == 0:
        _record(t, phase.closing, verify, Verdict("completed", "verified"))
        return
    tail = verify["tail"].strip() or "(no output)"
    _record(t, phase.closing, verify, None)
    t.set(refusal=f"`{verify['command']}` ended with exit code {verify['exitCode']}. The end of its output:\n\n{tail}")


def _record(t: Turn, phase: Closing, verify: Verify | None, done: Verdict | None) -> None:
    result, run, work = phase.result, phase.result.run, phase.work
    assert work is not None
    usage = run.usage
    session_id, session_file = ((phase.stats or {}).get(key) for key in ("sessionId", "sessionFile"))
    record: Iteration = {
        "iteration": run.iteration,
        "kind": run.kind,
        "outcome": result.outcome,
        "startedAt": iso(run.started_wall),
        "endedAt": iso(result.ended_wall),
        "durationMs": result.ended_mono - run.started_mono,
        "turns": run.turns,
        "toolCalls": run.tool_calls,
        "tokensIn": usage.input,
        "tokensOut": usage.output,
        "cacheRead": usage.cache_read,
        "cacheWrite": usage.cache_write,
        "cost": usage.cost,
        "unpricedRequests": run.unpriced,
        "model": run.model or t.loop.model,
        "provider": run.provider or t.loop.provider,
        "sessionId": session_id if isinstance(session_id, str) else None,
        "sessionFile": session_file if isinstance(session_file, str) else None,
        "summary": run.text[-SUMMARY_CHARS:],
        "commits": list(work.commits),
        "filesChanged": work.files_changed,
        "steering": list(run.delivered),
        "eventsFrom": 0,
        "eventsTo": 0,
    }
    if t.loop.duty is not None:
        record["ticket"] = t.loop.duty.ticket
        record["attempt"] = t.loop.duty.tried + t.loop.stats["iterations"] + 1
    if run.host:
        record["host"] = run.host
    if result.failure is not None:
        record["error"] = result.failure.message[:SUMMARY_CHARS]
    if result.error_kind is not None:
        record["errorKind"] = result.error_kind
    if verify is not None:
        record["verify"] = verify
    if result.outcome in ("timeout", "crashed") and (calls := run.cut_off or run.tools):
        record["cutOff"] = [f"{call.name} {call.args}".strip()[:TOOL_ARGS] for call in calls]
    t.set(last_record=record)
    t.do(EndIteration(record))
    _count(t, phase, record)
    _follow(t, phase, done)


def _count(t: Turn, phase: Closing, record: Iteration) -> None:
    loop, result, run = t.loop, phase.result, phase.result.run
    assert phase.work is not None
    failed = result.outcome in ("failed", "timeout", "crashed")
    refused = result.error_kind == "refused"
    same = loop.measure is not None and phase.work.measure == loop.measure and phase.task == loop.task_seen
    unchanged, since = loop.unchanged, loop.unchanged_since
    if not same or run.wrote or phase.work.wrote_ignored:
        unchanged, since = 0, None
    elif result.outcome == "ok":
        unchanged, since = unchanged + 1, run.started_wall if since is None else since
    news = cut_off(record) or _nearly(t, phase)
    t.set(
        stats=budget.with_iteration(loop.stats, record),
        last_outcome=result.outcome,
        last_text=run.text[:LAST_TEXT_CHARS] or loop.last_text,
        consecutive_failures=(
            0
            if result.outcome == "ok"
            else loop.consecutive_failures + (failed and result.error_kind not in failures.WAITS)
        ),
        refusals=loop.refusals + 1 if refused else loop.refusals if failed else 0,
        unchanged=unchanged,
        unchanged_since=since,
        refusal=None if run.answered else loop.refusal,
        # What no model has read yet is the older and the more telling news.
        news=news if run.answered or loop.news is None else loop.news,
        last_reflection=run.iteration if run.kind == "reflect" and run.answered else loop.last_reflection,
        measure=None if "verify" in record else phase.work.measure,
        task_seen=phase.task,
    )


def _follow(t: Turn, phase: Closing, done: Verdict | None) -> None:
    """What comes after the record is written."""
    result, loop = phase.result, t.loop
    failure = result.failure
    if done is not None:
        t.conclude(done)
        return
    asked = policy.requested_end(t)
    if asked is not None:
        t.end(asked, graceful=not loop.terminate)
        return
    if failure is not None and _must_be_fixed(t, failure):
        return
    if policy.end_by_limit(t):
        return
    most = loop.config["maxFailures"]
    if failure is not None and most and loop.consecutive_failures >= most and failure.kind not in failures.WAITS:
        why = f"{loop.consecutive_failures} iterations failed in a row; the last: {_once(failure.message)}"
        verdict = Verdict("error", "failures", why)
        # Without an answer of the model, the fault is not the ticket's.
        (t.end if failure.kind in failures.NO_ANSWER else t.conclude)(verdict)
        return
    if loop.config["stallAfter"] and loop.unchanged >= loop.config["stallAfter"]:
        why = f"{loop.unchanged} iterations in a row changed nothing in the project, task.md and ignored files included, and wrote no file elsewhere"
        t.conclude(Verdict("error", "stalled", why))
        return
    _settle_aborts(t)
    if failure is None or any(o.verb == "pause" for o in t.loop.orders):
        t.do(Save())
        t.go(Between(phase.session))
    elif failure.kind == "lost":
        policy.lost(t, _once(failure.message))
    elif result.outcome == "crashed":
        policy.restart(t, _once(failure.message))
    elif failure.kind in failures.WAITS:
        index = 0 if loop.pi is None else loop.pi.model
        t.set(outages=models.failed(loop.config, loop.outages, index, failure, t.now))
        t.go(Between())
    elif failure.kind in failures.NO_ANSWER:
        delay = failures.backoff(loop.consecutive_failures, failure.kind, t.now.rand)
        policy.wait(t, delay, f"{failure.kind}: {_once(failure.message)}", failure.kind)
    else:
        t.do(Save())
        t.go(Between())


def _must_be_fixed(t: Turn, failure: Failure) -> bool:
    """Ends the loop if only a person can help; a fallback model that cannot be used is only left out."""
    loop = t.loop
    if not failure.fatal and loop.refusals < failures.REFUSALS:
        return False
    if loop.pi is not None and loop.pi.model > 0:
        name = models.names(loop.config)[loop.pi.model]
        t.notice("error", f"fallback model {name} cannot be used and is left out: {_once(failure.message)}")
        t.set(outages=models.unusable(loop.config, loop.outages, loop.pi.model, failure, t.now), refusals=0)
        t.go(Between())
        return True
    if failure.kind == "refused" and not failure.fatal:
        why = f"the provider refused {loop.refusals} requests in a row: {_once(failure.message)}"
    else:
        why = _once(failure.message)
    t.end(Verdict("error", "auth" if failure.kind == "auth" else "failures", why))
    return True


def _settle_aborts(t: Turn) -> None:
    """Orders to abort have had their effect; one that also pauses stays until the pause."""
    for order in t.loop.orders:
        if order.verb == "abort" and order.then == "continue":
            t.receipt(order, "delivered")
    t.set(orders=tuple(o for o in t.loop.orders if not (o.verb == "abort" and o.then == "continue")))


def _once(message: str) -> str:
    """One line of at most 300 characters."""
    return " ".join(message.split())[:300]
