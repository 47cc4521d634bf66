"""Group commit on its own, with batches that land when the test says so."""

import asyncio
from collections.abc import Callable, Sequence
from math import inf
from time import perf_counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from onsale.domain.errors import LedgerUnavailable, Overloaded
from onsale.sales.group_commit import Flush, GroupCommit, Pending
from tests.support import wait_until

# A job that is forgotten is waited for: say so soon.
pytestmark = pytest.mark.timeout(20)


class Airport:
    """A stage and the batches that took off from it; each answers `−job` when it lands."""

    def __init__(
        self,
        *,
        batch_size_max: int = 100,
        in_flight_max: int = 1,
        queue_size_max: int = 100,
        flush: Flush[int, int] | None = None,
    ) -> None:
        self.batches: list[list[int]] = []
        self.landings: list[asyncio.Future[None]] = []
        self.stage: GroupCommit[int, int] = GroupCommit(
            flush or self._fly,
            stage="test",
            batch_size_max=batch_size_max,
            in_flight_max=in_flight_max,
            queue_size_max=queue_size_max,
        )

    async def _fly(self, batch: list[Pending[int, int]]) -> None:
        self.batches.append([pending.job for pending in batch])
        landing = asyncio.get_running_loop().create_future()
        self.landings.append(landing)
        await landing
        for pending in batch:
            pending.answer(-pending.job)

    def submit(self, *jobs: int) -> list["asyncio.Task[int]"]:
        return [asyncio.create_task(self.stage.submit(job)) for job in jobs]

    def land(self, flight: int, error: Exception | None = None) -> None:
        if error is None:
            self.landings[flight].set_result(None)
        else:
            self.landings[flight].set_exception(error)

    async def have_left(self, *batches: Sequence[int]) -> None:
        """Wait until these batches have left, in this order, and no others."""
        await until(lambda: len(self.batches) >= len(batches))
        assert self.batches == [list(batch) for batch in batches]

    async def have_queued(self, size: int) -> None:
        """Wait until so many jobs wait; nothing outside the stage shows it."""
        await until(lambda: len(self.stage._queue) == size)


async def until(reached: Callable[[], bool]) -> None:
    async def holds() -> bool:
        return reached()

    await wait_until(holds, poll_s=0)


async def test_a_lone_job_leaves_at_once() -> None:
    airport = Airport()
    (waiting,) = airport.submit(1)
    await airport.have_left([1])
    airport.land(0)
    assert await waiting == -1


async def test_jobs_that_are_ready_together_leave_together_as_they_came() -> None:
    airport = Airport()
    waiting = airport.submit(*range(10))
    await airport.have_left(range(10))
    airport.land(0)
    assert await asyncio.gather(*waiting) == [-job for job in range(10)]


async def test_what_arrives_while_a_batch_is_in_flight_is_the_next_batch() -> None:
    airport = Airport()
    waiting = airport.submit(1)
    await airport.have_left([1])
    for queued, job in enumerate((2, 3, 4), start=1):
        waiting += airport.submit(job)
        await airport.have_queued(queued)
    airport.land(0)
    await airport.have_left([1], [2, 3, 4])
    airport.land(1)
    assert await asyncio.gather(*waiting) == [-1, -2, -3, -4]


async def test_a_batch_has_a_largest_size() -> None:
    airport = Airport(batch_size_max=4)
    waiting = airport.submit(*range(10))
    wanted = (range(4), range(4, 8), range(8, 10))
    for flight in range(3):
        await airport.have_left(*wanted[: flight + 1])
        airport.land(flight)
    await asyncio.gather(*waiting)


async def test_as_many_are_in_flight_as_allowed_and_the_others_wait() -> None:
    airport = Airport(batch_size_max=1, in_flight_max=2)
    waiting = airport.submit(1, 2, 3)
    await airport.have_left([1], [2])
    airport.land(1)
    assert await waiting[1] == -2, "the second does not wait for the first"
    await airport.have_left([1], [2], [3])
    airport.land(0)
    airport.land(2)
    await asyncio.gather(*waiting)


async def test_whoever_finds_the_queue_full_is_told_at_once() -> None:
    airport = Airport(queue_size_max=3)
    waiting = airport.submit(1)
    await airport.have_left([1])
    waiting += airport.submit(2, 3, 4)
    (too_many,) = airport.submit(5)
    with pytest.raises(Overloaded):
        await too_many
    airport.land(0)
    await airport.have_left([1], [2, 3, 4])
    airport.land(1)
    assert await asyncio.gather(*waiting) == [-1, -2, -3, -4]


@pytest.mark.parametrize("has_left", [True, False])
async def test_whoever_goes_away_cancels_a_wait_and_never_the_batch(has_left: bool) -> None:
    airport = Airport()
    first = airport.submit(0)
    await airport.have_left([0])
    gone, stays = airport.submit(1, 2)
    if has_left:
        airport.land(0)
        await airport.have_left([0], [1, 2])
        gone.cancel()
    else:
        # Its job is in the queue: a client that hangs up cannot take an order back.
        await airport.have_queued(2)
        gone.cancel()
        airport.land(0)
        await airport.have_left([0], [1, 2])
    airport.land(1)
    assert await stays == -2
    assert await first[0] == 0
    with pytest.raises(asyncio.CancelledError):
        await gone


async def test_an_error_reaches_those_that_the_flush_left() -> None:
    async def flush(batch: list[Pending[int, int]]) -> None:
        batch[0].answer(-batch[0].job)
        raise LedgerUnavailable

    airport = Airport(flush=flush)
    answered, *left = airport.submit(1, 2, 3)
    assert await answered == -1
    for waiting in left:
        with pytest.raises(LedgerUnavailable):
            await waiting


async def test_after_an_error_the_next_batch_leaves() -> None:
    airport = Airport()
    (failing,) = airport.submit(1)
    await airport.have_left([1])
    (waiting,) = airport.submit(2)
    airport.land(0, LedgerUnavailable())
    with pytest.raises(LedgerUnavailable):
        await failing
    await airport.have_left([1], [2])
    airport.land(1)
    assert await waiting == -2


async def test_a_later_stage_answers_for_an_earlier_one() -> None:
    """As the ledger does for the gate: one waiter, two batches."""
    ledger = Airport()

    async def pass_on(batch: list[Pending[int, int]]) -> None:
        for pending in batch:
            ledger.stage.enqueue(pending)

    gate = Airport(flush=pass_on)
    waiting = gate.submit(1, 2)
    await ledger.have_left([1, 2])
    ledger.land(0)
    assert await asyncio.gather(*waiting) == [-1, -2]


async def test_drain_waits_for_the_queue_and_for_every_flight() -> None:
    airport = Airport(batch_size_max=1)
    await airport.stage.drain()
    waiting = airport.submit(1, 2)
    await airport.have_left([1])
    drained = asyncio.create_task(airport.stage.drain())
    airport.land(0)
    await airport.have_left([1], [2])
    assert not drained.done()
    airport.land(1)
    await drained
    assert all(task.done() for task in waiting)


async def test_the_time_of_every_job_is_counted() -> None:
    """Of those that wait as of those in flight: more than flights take, less than all that passed.

    Without the count at arrival a job that waits for the next batch takes no time.
    """
    before = _counted()
    began = perf_counter()
    airport = Airport()
    waiting = airport.submit(1)
    await airport.have_left([1])
    waiting += airport.submit(2, 3)
    await airport.have_queued(2)
    arrived = perf_counter()
    await asyncio.sleep(0.02)  # time is what is counted
    left = perf_counter()
    airport.land(0)
    await airport.have_left([1], [2, 3])
    airport.land(1)
    await asyncio.gather(*waiting)
    await airport.stage.drain()
    # All three were here between the two looks.
    assert 3 * (left - arrived) <= _counted() - before <= 3 * (perf_counter() - began)


def _counted() -> float:
    labels = {"stage": "test"}
    return REGISTRY.get_sample_value("onsale_batch_job_seconds_total", labels) or 0.0


# What happens at a stage: a number of jobs arrives, or the flight that left first, or last, lands.
happenings = st.lists(st.one_of(st.integers(1, 5), st.sampled_from(["first", "last"])), max_size=40)


@given(happenings, st.integers(1, 4), st.integers(1, 3), st.integers(1, 8))
def test_whatever_happens_jobs_leave_as_they_came(
    happenings: list[int | str], batch_size_max: int, in_flight_max: int, queue_size_max: int
) -> None:
    async def run() -> None:
        airport = Airport(
            batch_size_max=batch_size_max,
            in_flight_max=in_flight_max,
            queue_size_max=queue_size_max,
        )
        waiting: dict[int, asyncio.Task[int]] = {}

        def in_flight() -> list[int]:
            return [at for at, landing in enumerate(airport.landings) if not landing.done()]

        async def settle() -> None:
            """Until everybody has been asked whether they can leave."""
            for _ in range(6):
                await asyncio.sleep(0)

        for happening in happenings:
            if isinstance(happening, int):
                jobs = range(len(waiting), len(waiting) + happening)
                waiting |= dict(zip(jobs, airport.submit(*jobs), strict=True))
            elif in_flight():
                airport.land(in_flight()[0 if happening == "first" else -1])
            await settle()
            assert len(in_flight()) <= in_flight_max
            assert all(len(batch) <= batch_size_max for batch in airport.batches)
        while in_flight():
            airport.land(in_flight()[0])
            await settle()
        await airport.stage.drain()
        answers = await asyncio.gather(*waiting.values(), return_exceptions=True)
        accepted = [job for job, answer in enumerate(answers) if not isinstance(answer, Overloaded)]
        assert [job for batch in airport.batches for job in batch] == accepted
        assert [answers[job] for job in accepted] == [-job for job in accepted]

    asyncio.run(run())


async def test_an_idle_stage_carries_any_number() -> None:
    assert Airport().stage.carried(1.0) == inf


async def test_what_a_stage_carries_follows_from_how_long_its_batches_take() -> None:
    """By the last one, or by one that is not back yet: who asks a frozen store is not to wait for
    the first failure. Seen red with the age of the flight left out.
    """
    airport = Airport(batch_size_max=10, in_flight_max=2)
    (first,) = airport.submit(1)
    await airport.have_left([1])

    async def little() -> bool:
        return airport.stage.carried(0.1) < 10 * 2

    await wait_until(little)
    airport.land(0)
    await first
    (second,) = airport.submit(2)
    await airport.have_left([1], [2])
    assert airport.stage.carried(0.1) < 10 * 2, "the last one took more than a tenth of a second"
    airport.land(1)
    await second
