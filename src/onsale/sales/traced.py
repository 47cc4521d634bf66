"""What tracing puts around the use cases, when a service is made and only where it is on.

A request waits for batches that it shares with others, so batches are traces of their own, linked
with those of their requests that are traced. Below each such request stand the batches that it went
through, from joining the queue to the batch's end; below each batch, what it asked of the stores.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from time import time_ns
from typing import Any, NamedTuple

from opentelemetry.trace import Span, SpanKind

from onsale.gate.gate import Admission, EventBatch
from onsale.observability.tracing import ROOT, Attributes, Tracing, below, current, leave
from onsale.sales.group_commit import Answer, Flush, GroupCommit, Job, Pending

# A batch has hundreds of orders; the rest of the sampled ones have their link to it all the same.
LINKS_MAX = 32
_NAMED_MAX = 10
_NANOSECONDS = 1e-9


@dataclass(slots=True)
class _Traveller:
    """A request that is traced, on its way through the stages."""

    span: Span
    joined_ns: int


class Stages:
    """Makes the stages of one service: called as `GroupCommit` is, it makes a traced one."""

    def __init__(self, tracing: Tracing) -> None:
        self._tracing = tracing
        # By who waits for the answer, which goes from stage to stage with a job.
        self._travellers: dict[asyncio.Future[Any], _Traveller] = {}

    def __call__(
        self, flush: Flush[Job, Answer], *, stage: str, **limits: int
    ) -> "TracedGroupCommit[Job, Answer]":
        return TracedGroupCommit(
            flush, tracing=self._tracing, travellers=self._travellers, stage=stage, **limits
        )


class TracedGroupCommit(GroupCommit[Job, Answer]):
    """A stage that has a span for every batch with a request that is traced."""

    def __init__(
        self,
        flush: Flush[Job, Answer],
        *,
        tracing: Tracing,
        travellers: dict[asyncio.Future[Any], _Traveller],
        stage: str,
        **limits: int,
    ) -> None:
        super().__init__(self._flush_traced, stage=stage, **limits)
        self._flush_batch = flush
        self._tracing = tracing
        self._travellers = travellers
        self._stage = stage

    def submit(self, job: Job) -> Coroutine[Any, Any, Answer]:
        """See `GroupCommit.submit`."""
        span = current()
        return super().submit(job) if span is None else self._submit_traced(job, span)

    async def _submit_traced(self, job: Job, span: Span) -> Answer:
        waiter: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._travellers[waiter] = _Traveller(span, 0)
        try:
            self.enqueue(Pending(job, waiter))
            return await waiter
        finally:
            del self._travellers[waiter]

    def enqueue(self, pending: Pending[Job, Answer]) -> None:
        """See `GroupCommit.enqueue`."""
        super().enqueue(pending)
        traveller = self._travellers.get(pending.waiter)
        if traveller is not None:
            traveller.joined_ns = time_ns()

    async def _flush_traced(self, batch: list[Pending[Job, Answer]]) -> None:
        # As of now: the next stage that a request joins writes down when it did.
        aboard = [
            (traveller.span, traveller.joined_ns)
            for pending in batch
            if (traveller := self._travellers.get(pending.waiter)) is not None
        ]
        if not aboard:
            # Its task began in the context of a request that may be long answered.
            leave()
            await self._flush_batch(batch)
            return
        departed_ns = time_ns()
        attributes: Attributes = {
            "onsale.stage": self._stage,
            "onsale.batch.size": len(batch),
            "onsale.batch.traced": len(aboard),
        }
        links = [span for span, _ in aboard[:LINKS_MAX]]
        with self._tracing.span(
            f"{self._stage} batch", ROOT, attributes=attributes, links=links
        ) as span:
            try:
                await self._flush_batch(batch)
            finally:
                self._tell_travellers(aboard, span, departed_ns, attributes)

    def _tell_travellers(
        self,
        aboard: Sequence[tuple[Span, int]],
        batch: Span,
        departed_ns: int,
        attributes: Attributes,
    ) -> None:
        for request, joined_ns in aboard:
            queued_seconds = max(0, departed_ns - joined_ns) * _NANOSECONDS
            with self._tracing.span(
                f"in {self._stage} batch",
                below(request),
                attributes={**attributes, "onsale.queued_seconds": queued_seconds},
                links=[batch],
                started_ns=joined_ns,
            ):
                pass  # it is over already


class Call(NamedTuple):
    """A collaborator's method that has a span where it is called for something traced.

    With `alone` it is also sampled by itself where it is not, as the workers' calls are.
    """

    collaborator: str
    method: str
    asked: Callable[..., Attributes] = lambda *args: {}
    answered: Callable[[Any], Attributes] = lambda answer: {}
    alone: bool = False


def _orders(jobs: Sequence[object]) -> Attributes:
    return {"onsale.orders": len(jobs)}


def _questions(questions: Sequence[EventBatch]) -> Attributes:
    return {
        "onsale.events": len(questions),
        "onsale.event_ids": [question.event_id for question in questions[:_NAMED_MAX]],
        "onsale.epochs": [question.epoch for question in questions[:_NAMED_MAX]],
        "onsale.orders": sum(len(question.orders) for question in questions),
    }


def _admissions(answers: Sequence[object]) -> Attributes:
    unanswered = [answer for answer in answers if not isinstance(answer, Admission)]
    return {"error.type": type(unanswered[0]).__name__} if unanswered else {}


CALLS = (
    Call("gate", "admit_all", _questions, _admissions),
    Call("ledger", "place", _orders),
    Call("ledger", "admit", _orders),
    Call("ledger", "begin_payments", _orders),
    Call("ledger", "confirm_orders", _orders),
    Call("provider", "authorize"),
    Call("provider", "capture", alone=True),
    Call("provider", "void", alone=True),
    Call("provider", "refund", alone=True),
    Call(
        "sender", "send", answered=lambda attempt: {"onsale.outcome": attempt.outcome}, alone=True
    ),
)


def trace_calls(tracing: Tracing, collaborators: Mapping[str, Any]) -> None:
    """Wrap the methods of `CALLS` of these collaborators, by the names that it calls them."""
    for call in CALLS:
        if call.collaborator in collaborators:
            collaborator = collaborators[call.collaborator]
            method = getattr(collaborator, call.method)
            setattr(collaborator, call.method, _traced(tracing, method, call))


def _traced(
    tracing: Tracing, method: Callable[..., Awaitable[Any]], call: Call
) -> Callable[..., Awaitable[Any]]:
    name = f"{call.collaborator}.{call.method}"

    async def traced(*args: Any) -> Any:
        if current() is None and not (call.alone and tracing.chosen()):
            return await method(*args)
        with tracing.span(name, kind=SpanKind.CLIENT, attributes=call.asked(*args)) as span:
            answer = await method(*args)
            span.set_attributes(call.answered(answer))
            return answer

    return traced
