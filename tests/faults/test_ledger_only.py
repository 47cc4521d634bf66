"""The sale goes on by the ledger alone when its gate does not decide, exactly as before, and by the
gate again when that is back.
"""

import asyncio
import os
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from itertools import count

import pytest
import redis as blocking_redis
from prometheus_client import REGISTRY
from sqlalchemy import text

from onsale.domain.errors import LedgerUnavailable, OnsaleError, SoldOut
from onsale.domain.event import Event
from onsale.domain.order import Order, OrderRequest, OrderStatus
from onsale.embedded import free_port
from onsale.gate import scripts
from onsale.gate.scripts import ScriptName
from onsale.ledger.ledger import Placement
from onsale.observability.runtime import stop
from onsale.sales.service import Service
from onsale.settings import Settings
from onsale.workers.loop import repeat
from onsale.workers.reconciler import Reconciler
from tests.faults.conftest import Stores, admitted_by_ledger, reconcile
from tests.ledger.books import assert_limit_kept
from tests.races.books import assert_balanced, code_of, gate_answers, place
from tests.races.conftest import running
from tests.support import MakeEvent, count_rows, live_orders, wait_until

TICKETS = 100
BUYERS = 300

_SLOW = "slow"
# Far longer than the deadline of `impatient`, and short enough to wait for in the end.
_SLOW_SCRIPT = f"if redis.call('EXISTS', '{_SLOW}') == 1 then for i = 1, 2e7 do end end\n"


# -- what may befall a gate


@contextmanager
def killed(stores: Stores) -> Iterator[None]:
    """It is gone, and comes back with what it had."""
    stores.valkey.kill()
    yield
    stores.valkey.start()


@contextmanager
def frozen(stores: Stores) -> Iterator[None]:
    """It says nothing, and goes on where it stopped."""
    os.kill(stores.valkey.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(stores.valkey.pid, signal.SIGCONT)


@contextmanager
def emptied(stores: Stores) -> Iterator[None]:
    """It is well, and knows of nothing."""
    with blocking_redis.Redis.from_url(stores.valkey.url) as client:
        client.flushall()
    yield


@contextmanager
def slow(stores: Stores) -> Iterator[None]:
    """It decides, and too late."""
    with blocking_redis.Redis.from_url(stores.valkey.url) as client:
        client.set(_SLOW, 1)
        yield
        client.delete(_SLOW)


Fault = Callable[[Stores], AbstractContextManager[None]]
faults = pytest.mark.parametrize("fault", [killed, frozen, emptied, slow])


@pytest.fixture
def impatient(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Processes that do not wait long for their gate, whose script may be told to be slow."""
    source = scripts.source

    def altered(name: ScriptName) -> str:
        return _SLOW_SCRIPT * (name is ScriptName.ADMIT) + source(name)

    monkeypatch.setattr(scripts, "source", altered)
    return settings.model_copy(update={"gate_deadline_seconds": 0.05, "redis_rest_seconds": 0.1})


@pytest.fixture
async def processes(impatient: Settings) -> AsyncIterator[list[Service]]:
    """Two that sell."""
    async with AsyncExitStack() as exits:
        yield [await exits.enter_async_context(running(impatient)) for _ in range(2)]


# -- a sale whose gate is struck in the middle of it


class Sale:
    """Buyers of one ticket each, who may have one; what each was told, and the orders they have.

    A word that is not a refusal is raised: nobody is to be told to come again.
    """

    def __init__(self, processes: Sequence[Service], event: Event) -> None:
        self.told: Counter[str] = Counter()
        self.orders: dict[str, Order] = {}
        self._processes = processes
        self._event = event
        self._pressing = 0

    async def run(self, buyers: range) -> None:
        """In waves of 30, at both processes."""
        for first in buyers[::30]:
            await asyncio.gather(*(self._buy(n) for n in range(first, first + 30)))

    async def is_pressing(self) -> bool:
        """Whether somebody waits for a word."""
        return self._pressing > 0

    async def _buy(self, number: int) -> None:
        self._pressing += 1
        answer = await self._press(number % 2, f"buyer-{number}")
        self._pressing -= 1
        self.told[code_of(answer)] += 1
        if isinstance(answer, Order):
            self.orders[f"buyer-{number}"] = answer

    async def _press(self, process: int, buyer: str, key: str = "press-1") -> object:
        placing = place(self._processes[process], self._event.id, buyer, key, 1)
        return (await asyncio.gather(placing, return_exceptions=True))[0]

    async def press_again(self) -> None:
        """At both processes: who has an order gets it and no other, who has none hears the same."""
        buyers = [f"buyer-{number}" for number in range(BUYERS)]
        for process in (0, 1):
            told = await asyncio.gather(*(self._press(process, buyer) for buyer in buyers))
            answers = dict(zip(buyers, told, strict=True))
            orders = {b: answer for b, answer in answers.items() if isinstance(answer, Order)}
            assert orders == self.orders
            assert {code_of(answer) for answer in told} == {"confirmed", "sold_out"}

    async def try_for_more(self) -> None:
        """Each who has a ticket presses under a second key."""
        answers = await asyncio.gather(*(self._press(0, buyer, "press-2") for buyer in self.orders))
        # Both are true; the ledger looks at the stock first.
        assert {code_of(answer) for answer in answers} <= {"sold_out", "buyer_limit_reached"}


@faults
async def test_a_sale_whose_gate_is_struck_in_the_middle_of_it(
    stores: Stores,
    service: Service,
    other: Service,
    processes: list[Service],
    make_event: MakeEvent,
    fault: Fault,
) -> None:
    """Every ticket is sold, each to somebody else, everybody hears a word that stands; and when the
    gate is back one pass of the reconciler tells it of everything.
    """
    event = await make_event(TICKETS, max_per_buyer_units=1)
    sale = Sale(processes, event)
    await sale.run(range(60))
    selling = asyncio.create_task(sale.run(range(60, BUYERS)))
    await wait_until(sale.is_pressing, poll_s=0)
    with fault(stores):
        await selling
        assert sale.told == {"confirmed": TICKETS, "sold_out": BUYERS - TICKETS}
        assert await live_orders(service, event.id) == TICKETS
        assert await admitted_by_ledger(service, event) > 0
        await sale.try_for_more()
        if fault is not slow:
            # A gate that is merely slow has a picture, and strangers in it until a pass tells it.
            await sale.press_again()

    await _one_pass(other)
    assert await admitted_by_ledger(service, event) == 0
    await wait_until(partial(gate_answers, service))
    await wait_until(partial(_everybody_knows, service, processes, event))
    await sale.press_again()
    await reconcile(other, event.id)
    await assert_balanced(other, event.id)
    await assert_limit_kept(service.database, event)


async def _everybody_knows(service: Service, processes: Sequence[Service], event: Event) -> bool:
    """Whether the processes' pictures and lists are of after what the gate was last told."""
    current = await service.events.get(event.id)
    assert current is not None
    assert current.gate_epoch is not None
    at_gate = await service.gate.availability(event.id, current.gate_epoch)
    for process in processes:
        sale = await process.catalog.require(event.id)
        if sale.view is None or not sale.knows_everybody:
            return False
        if sale.view.orders_ever_admitted != at_gate.orders_ever_admitted:
            return False
    return True


async def _one_pass(service: Service) -> None:
    """The first pass of the reconciler that finds a gate to speak to."""

    async def passed() -> bool:
        try:
            await Reconciler(service).run_once(full=False)
        except OnsaleError:
            return False
        return True

    await wait_until(passed)


@faults
async def test_the_gate_decides_again_by_itself(
    stores: Stores,
    service: Service,
    other: Service,
    processes: list[Service],
    make_event: MakeEvent,
    fault: Fault,
) -> None:
    """At each of the processes, as soon as the reconciler has made it whole."""
    event = await make_event(100_000)
    numbers = count()

    async def mode_of(process: Service) -> str:
        """Who decides an order there."""
        await place(process, event.id, f"buyer-{next(numbers)}", "press-1", 1)
        (mode,) = [
            sample.labels["mode"]
            for metric in REGISTRY.collect()
            for sample in metric.samples
            if sample.name == "onsale_gate_mode" and sample.value
        ]
        return mode

    async def gate_decides() -> bool:
        return [await mode_of(process) for process in processes] == ["redis", "redis"]

    await wait_until(gate_decides)
    with fault(stores):
        assert [await mode_of(process) for process in processes] == ["ledger_only"] * 2
    reconciling = asyncio.create_task(repeat("reconciler", Reconciler(other).run_once, 0.05))
    await wait_until(gate_decides)
    await stop(reconciling)
    await reconcile(service, event.id)
    (tier,) = await assert_balanced(service, event.id)
    assert tier.sold_units == next(numbers)


async def test_a_process_that_starts_beside_a_frozen_gate(
    stores: Stores, impatient: Settings, make_event: MakeEvent
) -> None:
    """It has no connection yet, and waits for none longer than for an answer: seen red with a
    deadline for the script alone.
    """
    event = await make_event(TICKETS)
    with frozen(stores):
        async with running(impatient.model_copy(update={"redis_timeout_seconds": 60})) as fresh:
            async with asyncio.timeout(30):
                order = await place(fresh, event.id, "buyer-1", "press-1", 1)
    assert order.status is OrderStatus.CONFIRMED


# -- processes that do not agree


@asynccontextmanager
async def without_gate(settings: Settings) -> AsyncIterator[Service]:
    """A process that was told of a gate where there is none."""
    nowhere = f"redis://127.0.0.1:{free_port()}/0"
    async with running(settings.model_copy(update={"redis_url": nowhere})) as made:
        yield made


@pytest.mark.parametrize("limit_units", [0, 2])
async def test_one_process_asks_the_gate_and_one_the_ledger(
    service: Service, settings: Settings, make_event: MakeEvent, limit_units: int
) -> None:
    """The same buyers press the same keys at one or the other or both at once: never a seat twice,
    never one buyer over the limit, one order for each key; and no seat is left over for it.
    """
    event = await make_event(50, max_per_buyer_units=limit_units)
    chance = random.Random(8)
    presses = [(f"buyer-{number % 30}", f"press-{number // 30}") for number in range(120)] * 2
    chance.shuffle(presses)
    orders: dict[tuple[str, str], set[bytes]] = {press: set() for press in presses}
    async with without_gate(settings) as alone:
        for first in range(0, len(presses), 40):
            wave = [
                (press, process)
                for press in presses[first : first + 40]
                for process in chance.sample([service, alone], k=chance.randint(1, 2))
            ]
            answers = await asyncio.gather(
                *(place(process, event.id, *press, 1) for press, process in wave),
                return_exceptions=True,
            )
            told = {code_of(answer) for answer in answers}
            assert told <= {"confirmed", "sold_out", "buyer_limit_reached"}
            for (press, _), answer in zip(wave, answers, strict=True):
                if isinstance(answer, Order):
                    orders[press].add(answer.id)
            units = await assert_limit_kept(service.database, event)
            assert sum(units.values()) <= 50
        assert {len(ids) for ids in orders.values()} == {0, 1}
        assert await admitted_by_ledger(service, event) > 0

        await reconcile(service, event.id)
        await assert_balanced(service, event.id)
        for press, ids in orders.items():
            for process in (service, alone):
                if ids:
                    again = await place(process, event.id, *press, 1)
                    assert {again.id} == ids
        late = [place(service, event.id, f"late-{number}", "press-1", 1) for number in range(50)]
        answers = await asyncio.gather(*late, return_exceptions=True)
        assert "sold_out" in map(code_of, answers)
    assert await live_orders(service, event.id) == 50
    await assert_limit_kept(service.database, event)


async def test_who_has_an_order_that_the_gate_does_not_know_is_no_loser(
    service: Service,
    other: Service,
    settings: Settings,
    make_event: MakeEvent,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The ledger alone gave him the last seat; at the gate it is taken by somebody on his way. He
    presses again where the gate is asked. Seen red without `has_unheard` asked: he was told that it
    is sold out.
    """
    event = await make_event(1)
    async with without_gate(settings) as alone:
        order = await place(alone, event.id, "buyer-1", "press-1", 1)
    with monkeypatch.context() as broken:
        broken.setattr(other.ledger, "place", _unavailable)
        with pytest.raises(LedgerUnavailable):
            await place(other, event.id, "buyer-2", "press-1", 1)
    sale = await service.catalog.require(event.id)

    async def refuses_strangers() -> bool:
        await service.catalog.require(event.id)
        return sale.refuses and sale.knows_everybody and sale.has_unheard

    await wait_until(refuses_strangers)
    assert await place(service, event.id, "buyer-1", "press-1", 1) == order
    with pytest.raises(SoldOut):
        await place(service, event.id, "buyer-3", "press-1", 1)


async def _unavailable(_: Sequence[OrderRequest]) -> list[Placement]:
    raise LedgerUnavailable


# -- batches that are answered twice, or never


async def _wait_for_a_lock(service: Service) -> None:
    async def somebody_waits() -> bool:
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        return await count_rows(service, waiting) > 0

    await wait_until(somebody_waits)


async def _break_who_waits_for_a_lock(service: Service) -> None:
    """Its client finds the connection gone, and cannot tell what became of the statement."""
    await _wait_for_a_lock(service)
    broken = await count_rows(
        service,
        "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity"
        " WHERE wait_event_type = 'Lock'",
    )
    assert broken == 1


@pytest.mark.parametrize("has_gate", [True, False])
@pytest.mark.parametrize("seats_left", [0, 1])
async def test_a_try_that_may_still_arrive_is_no_refusal(
    service: Service,
    other: Service,
    settings: Settings,
    make_event: MakeEvent,
    has_gate: bool,
    seats_left: int,
) -> None:
    """The connection breaks with the batch on its way; the second try finds the seat gone, or
    there. What the first has come to is not known: "sold out" could turn out to be wrong.
    """
    event = await make_event(1)
    async with running(settings) if has_gate else without_gate(settings) as process:
        async with other.database.transaction("test") as connection:
            locked = text("UPDATE tiers SET capacity = :seats WHERE event_id = :event")
            await connection.execute(locked, {"seats": seats_left, "event": event.id})
            placing = asyncio.create_task(place(process, event.id, "buyer-1", "press-1", 1))
            await _break_who_waits_for_a_lock(service)
            await _wait_for_a_lock(service)
        if seats_left:
            order = await placing
            assert order.status is OrderStatus.CONFIRMED
        else:
            with pytest.raises(LedgerUnavailable):
                await placing
            with pytest.raises(SoldOut):
                await place(process, event.id, "buyer-1", "press-1", 1)
    assert await live_orders(service, event.id) == seats_left
    await reconcile(service, event.id)
    await assert_balanced(service, event.id)


async def test_committed_and_the_answer_lost(
    service: Service, settings: Settings, make_event: MakeEvent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that breaks between commit and answer: the second try finds the orders."""
    event = await make_event(3)
    async with without_gate(settings) as alone:
        admit = alone.ledger.admit
        tries: list[int] = []

        async def lost_once(requests: Sequence[OrderRequest]) -> object:
            answers = await admit(requests)
            tries.append(len(requests))
            if len(tries) == 1:
                raise LedgerUnavailable
            return answers

        monkeypatch.setattr(alone.ledger, "admit", lost_once)
        answers = await asyncio.gather(
            *(place(alone, event.id, f"buyer-{number}", "press-1", 1) for number in range(5)),
            return_exceptions=True,
        )
    assert tries == [5, 5]
    assert [isinstance(answer, Order) for answer in answers] == [True] * 3 + [False] * 2
    assert all(isinstance(answer, LedgerUnavailable) for answer in answers[3:])
    assert await live_orders(service, event.id) == 3
    await reconcile(service, event.id)
    await assert_balanced(service, event.id)


async def test_only_the_order_at_fault_fails(
    service: Service, settings: Settings, make_event: MakeEvent
) -> None:
    """One that the ledger cannot hold shares a batch with fifteen that it can."""
    event = await make_event(TICKETS)
    async with without_gate(settings) as alone:
        buyers = [f"buyer-{number}" for number in range(16)]
        buyers[7] = "a text that Postgres cannot hold\x00"
        answers = await asyncio.gather(
            *(place(alone, event.id, buyer, "press-1", 1) for buyer in buyers),
            return_exceptions=True,
        )
    failed = [at for at, answer in enumerate(answers) if not isinstance(answer, Order)]
    assert failed == [7]
    assert not isinstance(answers[7], OnsaleError), "asking again would not help"
    assert await admitted_by_ledger(service, event) == 15
