"""After a run: its figures, whether the task is done, its record, and what follows. Pure; called by the step.

A claim of completion counts only from a run that ended well, and only when every gate agrees. What a refused claim
lacked becomes the next prompt's first words.
"""

from dataclasses import replace
from typing import Any, Literal

from ralph_rpc.clock import iso
from ralph_rpc.model.iteration import ErrorKind, Iteration, Outcome, Verify
from ralph_rpc.model.state import Stats
from ralph_runner.core import boot, completion, failures, flow, mailbox
from ralph_runner.core.effects import EndIteration, MeasureWork, ReadTask, RunVerify, Save
from ralph_runner.core.failures import Failure
from ralph_runner.core.inputs import PiExited, Reply, Usage
from ralph_runner.core.reports import TaskRead, Verified, WorkMeasured
from ralph_runner.core.run import Run, tokens
from ralph_runner.core.state import Closing, Result, Session, Verifying
from ralph_runner.core.turn import Turn
from ralph_runner.core.verdict import Verdict

STATS_MS = 15_000
SUMMARY_CHARS = 2_000
LAST_TEXT_CHARS = 500


def close(t: Turn, run: Run, exited: PiExited | None = None) -> None:
    """The run is over: asks for all that its record needs."""
    outcome, failure, kind = _outcome(run, exited)
    result = Result(run, outcome, failure, kind, t.now.mono, t.now.wall)
    t.set(mail=mailbox.run_ended(t.loop.mail))
    t.do(ReadTask(), MeasureWork(t.loop.measure))
    if t.loop.pi is not None:
        t.send("get_session_stats")
    t.go(Closing(result, t.now.mono + STATS_MS, stats=None if t.loop.pi is not None else {}))


def _outcome(run: Run, exited: PiExited | None) -> tuple[Outcome, Failure | None, ErrorKind | None]:
    """What the run was. Whoever ended it knows best: pi reports our own abort as an error, too."""
    finished = run.stop_reason in ("stop", "length") and run.tool_calls_last == 0 and exited is None
    if run.ending in ("idle", "iteration-timeout") and not finished:
        what = "no sign of life" if run.ending == "idle" else "longer than --iteration-timeout"
        return "timeout", Failure("hang", f"{what}; ended by {'a kill' if run.killed else 'an abort'}"), "hang"
    if run.ending is not None and not finished:
        return "aborted", None, None
    if exited is not None:
        why = f"pi ended in the middle of an iteration ({boot.exit_text(exited)})"
        return "crashed", Failure("crash", why), "crash"
    if run.stop_reason == "aborted":
        return "aborted", None, None
    if run.stop_reason == "error":
        failure = failures.classify(run.error or "unknown error")
        return "failed", failure, failure.kind
    if run.stop_reason is None:
        return "failed", Failure("other", "pi settled without an answer of the model"), "other"
    if not run.text and not run.tool_calls and tokens(run.usage) == 0:
        # Old pi takes a connection that closes early for a complete, empty answer.
        return "failed", Failure("network", "the model's answer was empty"), "network"
    return "ok", None, None


def collect(t: Turn, phase: Closing, event: Reply | TaskRead | WorkMeasured | None) -> None:
    """One of the three is there, or (None) pi's figures are not to be had."""
    if event is None:
        phase = replace(phase, stats=phase.stats or {})
    elif isinstance(event, TaskRead):
        closed = event.ticket is not None and event.ticket.closed
        phase = replace(phase, task=event.task, task_read=True, closed=closed)
    elif isinstance(event, WorkMeasured):
        phase = replace(phase, work=event)
    elif event.request == "get_session_stats":
        phase = replace(phase, stats=dict(event.data))
    elif phase.session is not None and event.id == phase.session.request:
        phase = replace(phase, session=replace(phase.session, reply=event))
    if phase.session is None and not phase.ready and _goes_on(t, phase):
        phase = replace(phase, session=Session(t.send("new_session")))
    t.go(phase)
    if phase.ready:
        _judge(t, phase)


def _goes_on(t: Turn, phase: Closing) -> bool:
    """Whether another iteration will follow, by all that is known before the project is measured.

    pi makes the next session meanwhile, which takes about as long. Where the guess is wrong (a limit, a stall, a
    command that comes right now) the session stays unused, and the next iteration asks for its own.
    """
    loop, result = t.loop, phase.result
    if phase.stats is None or not phase.task_read or loop.pi is None or loop.orders:
        return False
    if result.failure is not None or _claim(t, phase) is not None or flow.requested_end(t) is not None:
        return False
    duty = loop.duty
    most, made = (loop.config["maxIterations"], 0) if duty is None else (duty.attempts, duty.tried)
    return not most or made + loop.stats["iterations"] + 1 < most


def _judge(t: Turn, phase: Closing) -> None:
    claim = _claim(t, phase)
    verify = t.loop.config["verify"]
    if claim is None:
        _record(t, phase, None, None)
    elif verify is None:
        _record(t, phase, None, Verdict("completed", claim))
    elif flow.requested_end(t) is not None and (t.loop.duty is None or t.loop.terminate or t.loop.broken is not None):
        # A worker's finished ticket is worth the verification, else the whole work would be done again.
        _record(t, phase, None, None)
    else:
        t.do(RunVerify(verify, t.loop.config["toolTimeoutMs"]))
        t.go(Verifying(phase, claim))


def _claim(t: Turn, phase: Closing) -> Literal["marker", "checklist"] | None:
    run = phase.result.run
    if phase.result.outcome != "ok" or run.stop_reason != "stop":
        return None
    if completion.claims_by_marker(run.text, t.loop.config["marker"]):
        return "marker"
    if t.loop.duty is not None:
        return "marker" if phase.closed else None
    return "checklist" if phase.task is not None and completion.claims_by_checklist(phase.task) else None


def verified(t: Turn, phase: Verifying, report: Verified) -> None:
    """The verify command has spoken."""
    verify = report.verify
    t.set(measure=None)
    if verify is None:
        _record(t, phase.closing, None, None)
        return
    if verify["exitCode"] == 0:
        _record(t, phase.closing, verify, Verdict("completed", "verified"))
        return
    tail = verify["tail"].strip() or "(no output)"
    _record(t, phase.closing, verify, None)
    t.set(refusal=f"`{verify['command']}` ended with exit code {verify['exitCode']}. Its output ends:\n\n{tail}")


def _record(t: Turn, phase: Closing, verify: Verify | None, done: Verdict | None) -> None:
    result, run, work = phase.result, phase.result.run, phase.work
    assert work is not None
    usage, session_id, session_file = _figures(run, phase.stats or {})
    record: Iteration = {
        "iteration": run.iteration, "kind": run.kind, "outcome": result.outcome,
        "startedAt": iso(run.started_wall), "endedAt": iso(result.ended_wall),
        "durationMs": result.ended_mono - run.started_mono,
        "turns": run.turns, "toolCalls": run.tool_calls,
        "tokensIn": usage.input, "tokensOut": usage.output,
        "cacheRead": usage.cache_read, "cacheWrite": usage.cache_write, "cost": usage.cost,
        "model": run.model or t.loop.model, "provider": run.provider or t.loop.provider,
        "sessionId": session_id, "sessionFile": session_file,
        "summary": run.text[-SUMMARY_CHARS:],
        "commits": list(work.commits), "filesChanged": work.files_changed,
        "steering": list(run.delivered), "eventsFrom": 0, "eventsTo": 0,
    }  # fmt: skip
    if t.loop.duty is not None:
        record["ticket"] = t.loop.duty.ticket
        record["attempt"] = t.loop.duty.tried + t.loop.stats["iterations"] + 1
    if result.failure is not None:
        record["error"] = result.failure.message[:SUMMARY_CHARS]
    if result.error_kind is not None:
        record["errorKind"] = result.error_kind
    if verify is not None:
        record["verify"] = verify
    t.do(EndIteration(record))
    _count(t, phase, record)
    _follow(t, phase, done)


def counts(record: Iteration) -> bool:
    """True if the iteration counts towards the limits: crashes and outages of the provider are not the task's."""
    return record["outcome"] != "crashed" and record.get("errorKind") not in failures.TRANSIENT


def _count(t: Turn, phase: Closing, record: Iteration) -> None:
    loop, result, run = t.loop, phase.result, phase.result.run
    assert phase.work is not None
    counted = counts(record)
    stats: Stats = {
        "iterations": loop.stats["iterations"] + counted,
        "turns": loop.stats["turns"] + record["turns"],
        "toolCalls": loop.stats["toolCalls"] + record["toolCalls"],
        "durationMs": loop.stats["durationMs"] + record["durationMs"],
        "tokensIn": loop.stats["tokensIn"] + record["tokensIn"],
        "tokensOut": loop.stats["tokensOut"] + record["tokensOut"],
        "cacheRead": loop.stats["cacheRead"] + record["cacheRead"],
        "cacheWrite": loop.stats["cacheWrite"] + record["cacheWrite"],
        "cost": loop.stats["cost"] + record["cost"],
    }
    failed = result.outcome in ("failed", "timeout", "crashed")
    waits_for_reset = failed and _reset(t, phase) is not None
    same = loop.measure is not None and phase.work.measure == loop.measure and phase.task == loop.task_seen
    unchanged = loop.unchanged
    if not same:
        unchanged = 0
    elif counted:
        unchanged += 1
    t.set(
        stats=stats,
        last_outcome=result.outcome,
        last_text=run.text[:LAST_TEXT_CHARS] or loop.last_text,
        consecutive_failures=(
            0 if result.outcome == "ok" else loop.consecutive_failures + (failed and not waits_for_reset)
        ),
        unchanged=unchanged,
        refusal=None if run.answered else loop.refusal,
        last_reflection=run.iteration if run.kind == "reflect" and run.answered else loop.last_reflection,
        measure=None if "verify" in record else phase.work.measure,
        task_seen=phase.task,
    )


def _reset(t: Turn, phase: Closing) -> int | None:
    failure = phase.result.failure
    if failure is None or failure.kind not in ("rate-limit", "quota"):
        return None
    return failures.named_reset(failure.message, t.now.wall)


def _figures(run: Run, stats: dict[str, object]) -> tuple[Usage, str | None, str | None]:
    """Tokens and cost, and where pi keeps the session.

    pi's own statistics miss what compaction dropped (old pi), our sum misses what summaries cost: the larger counts.
    """
    usage = run.usage
    told: Any = stats.get("tokens")
    cost: Any = stats.get("cost")
    if isinstance(told, dict) and isinstance(cost, int | float):
        counts = {key: int(told.get(key) or 0) for key in ("input", "output", "cacheRead", "cacheWrite")}
        theirs = Usage(counts["input"], counts["output"], counts["cacheRead"], counts["cacheWrite"], float(cost))
        if (tokens(theirs), theirs.cost) > (tokens(usage), usage.cost):
            usage = theirs
    id, file = stats.get("sessionId"), stats.get("sessionFile")
    return usage, id if isinstance(id, str) else None, file if isinstance(file, str) else None


def _follow(t: Turn, phase: Closing, done: Verdict | None) -> None:
    """What comes after the record is written."""
    result, loop = phase.result, t.loop
    failure = result.failure
    if done is not None:
        t.conclude(done)
        return
    asked = flow.requested_end(t)
    if asked is not None:
        t.end(asked, graceful=not loop.terminate)
        return
    if failure is not None and failure.fatal:
        reason: Literal["auth", "failures"] = "auth" if failure.kind == "auth" else "failures"
        t.end(Verdict("error", reason, _once(failure.message)))
        return
    limit = flow.limit_reached(t)
    if limit is not None:
        flow.end_by_limit(t, limit)
        return
    most = loop.config["maxFailures"]
    if failure is not None and most and loop.consecutive_failures >= most:
        why = f"{loop.consecutive_failures} iterations failed in a row; the last: {_once(failure.message)}"
        t.conclude(Verdict("error", "failures", why))
        return
    if loop.config["stallAfter"] and loop.unchanged >= loop.config["stallAfter"]:
        why = f"{loop.unchanged} iterations in a row changed nothing in the project or in task.md"
        t.conclude(Verdict("error", "stalled", why))
        return
    _settle_aborts(t)
    if failure is None or any(o.verb == "pause" for o in t.loop.orders):
        t.do(Save())
        flow.next_iteration(t, phase.session)
    elif result.outcome == "crashed":
        flow.restart(t, _once(failure.message))
    elif failure.kind in failures.TRANSIENT:
        reset = _reset(t, phase)
        what = f"{failure.kind}: {_once(failure.message)}"
        delay = failures.backoff(loop.consecutive_failures, failure.kind, t.now.rand)
        flow.wait(t, delay, what, until_wall=reset)
    else:
        t.do(Save())
        flow.next_iteration(t)


def _settle_aborts(t: Turn) -> None:
    """Orders to abort have had their effect; one that also pauses stays until the pause."""
    for order in t.loop.orders:
        if order.verb == "abort" and order.then == "continue":
            t.receipt(order, "delivered")
    t.set(orders=tuple(o for o in t.loop.orders if not (o.verb == "abort" and o.then == "continue")))


def _once(message: str) -> str:
    """One line of at most 300 characters."""
    return " ".join(message.split())[:300]
