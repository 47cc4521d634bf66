"""Group commit: what arrives while a batch is in flight is the next batch.

No timer: an idle stage sends a lone order at once, a busy one gathers more the longer the last
batch takes, so that the batches grow with the load and the cost of a round trip is shared. A batch
belongs to its stage, not to a request: a client that goes away cancels its wait, never the commit.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable
from functools import partial
from math import inf
from time import perf_counter
from typing import Any, Generic, NamedTuple, TypeVar
from weakref import WeakSet

from onsale.domain.errors import Overloaded
from onsale.observability import metrics

Job = TypeVar("Job")
Answer = TypeVar("Answer")


class Pending(NamedTuple, Generic[Job, Answer]):
    """A job and whoever waits for it; a later stage may answer instead of this one."""

    job: Job
    waiter: "asyncio.Future[Answer]"

    def answer(self, answer: Answer) -> None:
        """Answer, unless nobody waits any more."""
        if not self.waiter.done():
            self.waiter.set_result(answer)

    def fail(self, error: BaseException) -> None:
        """Fail, unless nobody waits any more."""
        if not self.waiter.done():
            self.waiter.set_exception(error)


Flush = Callable[[list[Pending[Job, Answer]]], Awaitable[object]]


class GroupCommit(Generic[Job, Answer]):
    """One stage. `flush` answers or passes on every job of its batch; if it raises, that error is
    the answer to those it left.
    """

    def __init__(
        self,
        flush: Flush[Job, Answer],
        *,
        stage: str,
        batch_size_max: int,
        in_flight_max: int,
        queue_size_max: int,
    ) -> None:
        self._flush = flush
        self._batch_size_max = batch_size_max
        self._in_flight_max = in_flight_max
        self._queue_size_max = queue_size_max
        self._queue: deque[Pending[Job, Answer]] = deque()
        # With when each departed; the oldest is the first.
        self._flights: dict[asyncio.Task[None], float] = {}
        self._duration_seconds = 0.0
        # Of all jobs that were here since the last landing, up to when they were last counted.
        self._job_seconds = 0.0
        self._jobs, self._counted_at = 0, perf_counter()
        self._departure_called = False
        self._size = metrics.batch_size.labels(stage)
        self._duration = metrics.batch_duration_seconds.labels(stage)
        self._job_seconds_total = metrics.batch_job_seconds_total.labels(stage)
        _stages[stage].add(self)
        # Asked for, not told at departures: of a queue that stands nothing departs.
        metrics.batch_queue_depth.labels(stage).set_function(partial(_waiting, stage))

    async def submit(self, job: Job) -> Answer:
        """The answer to a job. Raises `Overloaded` when too many wait, or what its batch raised."""
        waiter: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.enqueue(Pending(job, waiter))
        return await waiter

    def enqueue(self, pending: Pending[Job, Answer]) -> None:
        """Let a job join the next batch. Raises `Overloaded` when too many wait."""
        if len(self._queue) >= self._queue_size_max:
            raise Overloaded
        self._count(1)
        self._queue.append(pending)
        if not self._departure_called and len(self._flights) < self._in_flight_max:
            # Soon, not now: whatever else the loop has ready joins the same batch.
            self._departure_called = True
            asyncio.get_running_loop().call_soon(self._depart)

    def carried(self, seconds: float) -> float:
        """How many jobs are answered within a time, as long as the batches of now take; an idle
        stage carries any number.
        """
        if not self._flights:
            return inf
        oldest_seconds = perf_counter() - next(iter(self._flights.values()))
        batch_seconds = max(oldest_seconds, self._duration_seconds)
        return self._batch_size_max * self._in_flight_max * seconds / batch_seconds

    async def drain(self) -> None:
        """Wait until nothing waits and nothing is in flight."""
        while self._queue or self._flights:
            if self._flights:
                await asyncio.wait(self._flights)
            else:
                await asyncio.sleep(0)

    def _depart(self) -> None:
        self._departure_called = False
        while self._queue and len(self._flights) < self._in_flight_max:
            size = min(len(self._queue), self._batch_size_max)
            batch = [self._queue.popleft() for _ in range(size)]
            flight = asyncio.create_task(self._fly(batch))
            self._flights[flight] = perf_counter()
            flight.add_done_callback(partial(self._land, size))

    def _land(self, size: int, flight: "asyncio.Task[None]") -> None:
        self._duration_seconds = perf_counter() - self._flights.pop(flight)
        self._duration.observe(self._duration_seconds)
        self._count(-size)
        self._job_seconds_total.inc(self._job_seconds)
        self._job_seconds = 0.0
        self._depart()

    def _count(self, more: int) -> None:
        """So many more jobs are here from now on: how many, for how long, is what they wait."""
        now = perf_counter()
        self._job_seconds += self._jobs * (now - self._counted_at)
        self._jobs, self._counted_at = self._jobs + more, now

    async def _fly(self, batch: list[Pending[Job, Answer]]) -> None:
        try:
            await self._flush(batch)
        except BaseException as error:
            for pending in batch:
                pending.fail(error)
            if not isinstance(error, Exception):
                raise
        self._size.observe(len(batch))


# What makes stages: the class itself, or what traces them (`sales.traced`).
MakeStage = Callable[..., GroupCommit[Any, Any]]

# A process has one for each server of the gate, which are one stage.
_stages: "defaultdict[str, WeakSet[GroupCommit[Any, Any]]]" = defaultdict(WeakSet)


def _waiting(stage: str) -> int:
    return sum(len(commit._queue) for commit in _stages[stage])
