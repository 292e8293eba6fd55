"""One pi run: what its events add up to, and when it has settled. Pure; used by the step.

    streaming --agent_end--> barrier --reply--> settled                  pi without agent_settled
    barrier --auto_retry_start--> retrying --auto_retry_end(false)--> settled
    barrier --compaction_start--> compacting --compaction_end--> settled | expecting
    any --agent_start--> streaming
    any --agent_settled--> settled                                       pi with agent_settled

Old pi (0.73.1) ends a run with agent_end alone, and the same agent_end precedes a retry or a compaction. Those
start in the same tick, so a get_state sent at agent_end is answered after them: a barrier.
"""

from dataclasses import dataclass, replace
from typing import Literal

from ralph_rpc.model.commands import MessageVerb
from ralph_rpc.model.iteration import IterationKind
from ralph_runner.core.inputs import AssistantEnd, ToolStart, Usage

Agent = Literal["prompted", "streaming", "barrier", "retrying", "compacting", "expecting"]
EndReason = Literal["abort", "stop", "kill", "max-cost", "max-tokens", "max-time", "iteration-timeout", "idle"]
"""Why we end a run before it ends itself."""

NOTHING = Usage()


@dataclass(frozen=True, slots=True)
class Run:
    """The facts of the running iteration."""

    iteration: int
    kind: IterationKind
    started_mono: int
    started_wall: int
    last_sign: int
    """When pi last showed life, monotonic milliseconds."""
    prompt_id: str = ""
    host: str = ""
    """Where its pi runs, with a launcher."""
    agent: Agent = "prompted"
    barrier_id: str = ""
    expect_until: int = 0
    tools: tuple[ToolStart, ...] = ()
    """Those that run, in the order in which they began."""
    cut_off: tuple[ToolStart, ...] = ()
    """Those that ran when we ended the run."""
    wrote: bool = False
    """A tool that writes files has succeeded, wherever the file is."""
    turns: int = 0
    tool_calls: int = 0
    usage: Usage = NOTHING
    unpriced: int = 0
    """Requests whose usage nobody told (`core/charges.py`)."""
    asking: bool = False
    """The model has a request whose answer has not ended."""
    begun: bool = False
    """Its answer has begun."""
    summarising: bool = False
    """The model has been asked for a summary."""
    model: str | None = None
    provider: str | None = None
    text: str = ""
    """The last assistant text that was not empty."""
    answer: str = ""
    """The text of the last assistant message; only this can claim that the work is done."""
    stop_reason: str | None = None
    error: str | None = None
    tool_calls_last: int = 0
    answered: bool = False
    """The model has begun to answer."""
    delivered: tuple[str, ...] = ()
    queue: tuple[int, int] = (0, 0)
    """Lengths of pi's steering and follow-up queues."""
    dropped: MessageVerb | None = None
    """The queue that has just become shorter."""
    ending: EndReason | None = None
    """Why we end it before it ends itself."""
    end_deadline: int | None = None
    """An abort that has had no effect by then is followed by a kill."""
    killed: bool = False
    nudge_id: str = ""
    nudge_deadline: int | None = None

    def over(self, answer: AssistantEnd) -> "Run":
        """With one finished assistant message added."""
        return replace(
            self,
            turns=self.turns + 1,
            usage=self.usage.plus(answer.usage),
            model=answer.model or self.model,
            provider=answer.provider or self.provider,
            text=answer.text or self.text,
            answer=answer.text,
            stop_reason=answer.stop_reason,
            error=answer.error,
            tool_calls_last=answer.tool_calls,
        )

    def queued(self, steering: int, follow_up: int) -> "Run":
        """With pi's queues as it now tells them."""
        dropped = "steer" if steering < self.queue[0] else "followup" if follow_up < self.queue[1] else self.dropped
        return replace(self, queue=(steering, follow_up), dropped=dropped)

    @property
    def has_queue(self) -> bool:
        return self.queue != (0, 0)
