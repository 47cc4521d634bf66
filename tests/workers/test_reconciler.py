"""Each repair: made, made again, made by two at once, stopped at every step.

Seen red with a fence that gives back whatever it was asked about, no grace period, a loading that
adopts nothing or is authorised whatever its generation, and abandoned ids that are answered.
"""

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from redis.asyncio import Redis
from sqlalchemy import text

from onsale.domain.errors import GateLost, OnsaleError, SalePaused, SoldOut
from onsale.domain.event import Event, PaymentKind, SaleSwitch
from onsale.domain.order import Order, OrderRequest, OrderStatus
from onsale.gate.epoch import make_epoch
from onsale.gate.gate import Gate
from onsale.gate.keys import event_keys
from onsale.ledger.events import Events
from onsale.ledger.ledger import Ledger, OrderKey, Placement
from onsale.sales import books
from onsale.sales.service import Service
from onsale.workers.reconciler import Reconciler, Repairs
from tests.races.books import assert_balanced, audit_at_quiet, place
from tests.support import MakeEvent, live_orders, wait_until
from tests.workers.mess import (
    LONG_AGO_SECONDS,
    ended_unheard_of,
    make_old,
    only_at_the_gate,
    only_in_the_ledger,
)

CLEAN = Repairs()


async def _kinds_of_difference(service: Service, event: Event) -> set[str]:
    return {one.kind for one in (await audit_at_quiet(service, event.id)).differences}


async def _available_units(service: Service, event_id: str) -> dict[int, int]:
    """What the gate says is left, under the epoch that the ledger authorised."""
    event = await service.events.get(event_id)
    assert event is not None
    assert event.gate_epoch is not None
    return (await service.gate.availability(event.id, event.gate_epoch)).available_units


# -- each kind of repair


async def test_fence(service: Service, redis: Redis, make_event: MakeEvent) -> None:
    """Stock that was taken for an order which never arrived comes back, and the id is spent."""
    event = await make_event(10)
    id_ = await only_at_the_gate(service, redis, event, "buyer-1")
    assert await _available_units(service, event.id) == {1: 8}

    reconciler = Reconciler(service)
    assert await reconciler.run_once(full=True) == Repairs(fenced=1, given_back=1)
    abandoned = await service.ledger.get(OrderKey(event.id, id_))
    assert abandoned is not None
    assert abandoned.status is OrderStatus.ABANDONED
    await assert_balanced(service, event.id)
    assert await reconciler.run_once(full=True) == CLEAN


async def test_an_order_on_its_way_is_left_alone(
    service: Service, redis: Redis, make_event: MakeEvent
) -> None:
    """Younger than the grace period: the same as above but for its age."""
    event = await make_event(10)
    on_its_way = await only_at_the_gate(service, redis, event, "buyer-1")
    await make_old(redis, event.id, on_its_way, by_seconds=-LONG_AGO_SECONDS)

    assert await Reconciler(service).run_once(full=True) == CLEAN
    assert await service.ledger.get(OrderKey(event.id, on_its_way)) is None
    assert await _available_units(service, event.id) == {1: 8}


async def test_give_back_what_ended_lately(service: Service, make_event: MakeEvent) -> None:
    """Without the whole comparison: every pass looks at orders that ended lately."""
    event = await make_event(10, payment=PaymentKind.CARD)
    await ended_unheard_of(service, event, "buyer-1")
    reconciler = Reconciler(service)
    assert await reconciler.run_once(full=False) == Repairs(given_back=1)
    await assert_balanced(service, event.id)
    assert await reconciler.run_once(full=False) == CLEAN


async def test_give_back_what_ended_long_ago(service: Service, make_event: MakeEvent) -> None:
    """Only the whole comparison finds it."""
    event = await make_event(10, payment=PaymentKind.CARD)
    order = await ended_unheard_of(service, event, "buyer-1")
    async with service.database.transaction("test") as connection:
        await connection.execute(
            text("UPDATE orders SET ended_at = ended_at - interval '1 h' WHERE id = :id"),
            {"id": order.id.hex()},
        )
    reconciler = Reconciler(service)
    assert await reconciler.run_once(full=False) == CLEAN
    assert await reconciler.run_once(full=True) == Repairs(given_back=1)
    await assert_balanced(service, event.id)
    assert await reconciler.run_once(full=True) == CLEAN


async def test_adopt(service: Service, redis: Redis, make_event: MakeEvent) -> None:
    event = await make_event(10)
    await only_in_the_ledger(service, redis, event, "buyer-1")
    assert await _kinds_of_difference(service, event) == {"ledger_only"}

    reconciler = Reconciler(service)
    assert await reconciler.run_once(full=True) == Repairs(adopted=1)
    await assert_balanced(service, event.id)
    assert await reconciler.run_once(full=True) == CLEAN


async def test_adopt_more_than_is_left(
    service: Service, redis: Redis, make_event: MakeEvent
) -> None:
    """The lost seats were admitted again: the gate owes them, and sells nothing until it has."""
    event = await make_event(4, payment=PaymentKind.CARD)
    lost = await only_in_the_ledger(service, redis, event, "buyer-1")
    on_their_way = [await only_at_the_gate(service, redis, event, f"late-{n}") for n in range(2)]
    for id_ in on_their_way:
        await make_old(redis, event.id, id_, by_seconds=-LONG_AGO_SECONDS)
    assert await Reconciler(service).run_once(full=True) == Repairs(adopted=1)
    assert await _available_units(service, event.id) == {1: -2}
    with pytest.raises(SoldOut):
        await place(service, event.id, "buyer-2", "press-1", 1)
    await service.ending.release(OrderKey(event.id, lost.id), "buyer-1")
    assert await _available_units(service, event.id) == {1: 0}

    # Those on their way never arrive, and their seats are on sale again.
    for id_ in on_their_way:
        await make_old(redis, event.id, id_)
    assert await Reconciler(service).run_once(full=True) == Repairs(fenced=2, given_back=2)
    (tier,) = await assert_balanced(service, event.id)
    assert tier.available_units == 4


async def test_rebuild_an_empty_gate(
    service: Service, other: Service, redis: Redis, make_event: MakeEvent
) -> None:
    event = await make_event(10, 5, max_per_buyer_units=4)
    before = await place(service, event.id, "buyer-1", "press-1", 2, 1)
    await redis.flushdb()

    reconciler = Reconciler(other)
    assert await reconciler.run_once(full=True) == Repairs(rebuilt=1)
    await assert_balanced(service, event.id)
    assert await reconciler.run_once(full=True) == CLEAN
    # This process learns of the new epoch when it meets it, and the gate knows the limit again.
    assert await place(service, event.id, "buyer-1", "press-1", 2, 1) == before
    await place(service, event.id, "buyer-2", "press-1", 1)
    with pytest.raises(OnsaleError, match="over the number of tickets"):
        await place(service, event.id, "buyer-1", "press-2", 2)


async def test_rebuild_an_empty_gate_that_the_sale_went_on_without(
    service: Service, redis: Redis, make_event: MakeEvent
) -> None:
    """What the ledger admitted meanwhile is loaded with everything else, and told of once."""
    event = await make_event(10)
    await redis.flushdb()
    await place(service, event.id, "buyer-1", "press-1", 2)
    assert await service.ledger.unheard(event.id, 10)

    assert await Reconciler(service).run_once(full=False) == Repairs(rebuilt=1)
    await assert_balanced(service, event.id)
    assert not await service.ledger.unheard(event.id, 10)
    assert await Reconciler(service).run_once(full=True) == CLEAN


async def test_rebuild_a_gate_half_loaded(service: Service, make_event: MakeEvent) -> None:
    """Somebody began to load it and died before it was open: it admits nobody meanwhile, and the
    ledger does.
    """
    event = await make_event(10)
    await place(service, event.id, "buyer-1", "press-1", 2)
    generation = await service.events.next_gate_generation(event.id)
    await service.gate.load(event, make_epoch(generation, await service.gate.run_id(event.id)))
    await place(service, event.id, "buyer-2", "press-1", 2)
    assert len(await service.ledger.unheard(event.id, 10)) == 1

    assert await Reconciler(service).run_once(full=True) == Repairs(rebuilt=1)
    (tier,) = await assert_balanced(service, event.id)
    assert tier.sold_units == 4


async def test_load_a_gate_that_was_never_loaded(service: Service, make_event: MakeEvent) -> None:
    event = await make_event(10)
    async with service.database.transaction("test") as connection:
        await connection.execute(text("UPDATE events SET gate_epoch = NULL, gate_generation = 0"))
    await service.gate.retire(event.id, 0)
    assert await Reconciler(service).run_once(full=True) == Repairs(rebuilt=1)
    await assert_balanced(service, event.id)


async def test_configure(service: Service, other: Service, make_event: MakeEvent) -> None:
    """The ledger was told of a pause and of a capacity, and the gate was not."""
    event = await make_event(10)
    await service.events.set_switch(event.id, SaleSwitch.PAUSED)
    await service.events.set_capacity(event.id, "t1", 7)
    assert await _kinds_of_difference(service, event) == {"capacity"}

    await Reconciler(other).run_once(full=False)
    (tier,) = await assert_balanced(service, event.id)
    assert tier.available_units == 7
    with pytest.raises(SalePaused):
        await place(service, event.id, "buyer-1", "press-1", 1)


async def test_one_event_in_trouble_does_not_keep_the_others_from_it(
    service: Service, redis: Redis, make_event: MakeEvent
) -> None:
    events = [await make_event(10) for _ in range(3)]
    for event in events:
        await only_at_the_gate(service, redis, event, "buyer-1")
    # Somebody is loading the second one right now, with a generation from the future.
    await redis.hset(event_keys(events[1].id).sale, "epoch", "1000.elsewhere")

    with pytest.raises(GateLost):
        await Reconciler(service).run_once(full=True)
    for event in (events[0], events[2]):
        await assert_balanced(service, event.id)


# -- by two at once


async def test_two_at_once_repair_everything_once(
    service: Service, other: Service, redis: Redis, make_event: MakeEvent
) -> None:
    event = await make_event(100, payment=PaymentKind.CARD)
    for number in range(10):
        await only_at_the_gate(service, redis, event, f"gate-{number}")
        await ended_unheard_of(service, event, f"ended-{number}")
        await only_in_the_ledger(service, redis, event, f"ledger-{number}")

    both = [Reconciler(service).run_once(full=True), Reconciler(other).run_once(full=True)]
    one, two = await asyncio.gather(*both)
    # What one gives back the other no longer finds there, also of the ids that it fenced.
    assert one.fenced + two.fenced == 10
    assert one.given_back + two.given_back == 20
    assert one.adopted + two.adopted == 10
    await assert_balanced(service, event.id)
    assert await Reconciler(other).run_once(full=True) == CLEAN


async def test_two_at_once_rebuild(
    service: Service, other: Service, redis: Redis, make_event: MakeEvent
) -> None:
    """One of them may be told that the other began later; the gate is whole either way."""
    event = await make_event(100)
    for number in range(10):
        await place(service, event.id, f"buyer-{number}", "press-1", 2)
    for _ in range(5):
        await redis.flushdb()
        told = await asyncio.gather(
            *(Reconciler(one).run_once(full=True) for one in (service, other, service)),
            return_exceptions=True,
        )
        assert all(isinstance(one, Repairs | GateLost) for one in told)
        await Reconciler(service).run_once(full=True)
        (tier,) = await assert_balanced(service, event.id)
        assert tier.sold_units == 20


async def test_a_loading_that_another_one_has_overtaken_is_not_authorised(
    service: Service, redis: Redis, make_event: MakeEvent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The later one has only begun to count; whoever is late by then gives way to it."""
    event = await make_event(10)
    await place(service, event.id, "buyer-1", "press-1", 2)
    await redis.flushdb()
    open_gate = service.gate.open

    async def overtaken(event_id: str, epoch: str) -> None:
        await open_gate(event_id, epoch)
        await service.events.next_gate_generation(event_id)

    with monkeypatch.context() as patched:
        patched.setattr(service.gate, "open", overtaken)
        with pytest.raises(GateLost):
            await Reconciler(service).run_once(full=True)
    current = await service.events.get(event.id)
    assert current is not None
    assert current.gate_epoch is None
    assert await Reconciler(service).run_once(full=True) == Repairs(rebuilt=1)
    await assert_balanced(service, event.id)


# -- stopped at every step


class Stopped(Exception):
    """The reconciler's process died here."""


class Stopper:
    """Ends the process at the n-th call to a store, before it was made or after it was done."""

    def __init__(self, at_call: int, *, done: bool) -> None:
        self._calls_left = at_call
        self._done = done
        self.stopped = False

    def within(self, service: Service) -> Service:
        """The same service, its stores watched."""
        stores: dict[str, Any] = {
            name: Watched(getattr(service, name), self) for name in ("gate", "ledger", "events")
        }
        return dataclasses.replace(service, **stores)

    async def call(self, method: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        self._calls_left -= 1
        if self._calls_left != 0:
            return await method(*args)
        self.stopped = True
        if self._done:
            # What it answers, or that it fails, nobody hears any more.
            await asyncio.gather(method(*args), return_exceptions=True)
        raise Stopped


class Watched:
    """A gate or a ledger whose coroutines pass the stopper."""

    def __init__(self, store: Gate | Ledger | Events, stopper: Stopper) -> None:
        self._store = store
        self._stopper = stopper

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        if not asyncio.iscoroutinefunction(method):
            return method
        return lambda *args: self._stopper.call(method, *args)


@pytest.mark.parametrize("done", [False, True], ids=["before the call", "after the call"])
@pytest.mark.parametrize("flushed", [False, True], ids=["differences", "empty gate"])
async def test_stopped_at_every_step(
    service: Service,
    redis: Redis,
    make_event: MakeEvent,
    monkeypatch: pytest.MonkeyPatch,
    flushed: bool,
    done: bool,
) -> None:
    """However far a pass came, the next one leaves a clean slate."""
    # Nobody else is at work here, so what is a difference is one at the second look.
    monkeypatch.setattr(books, "SECOND_LOOK_SECONDS", 0)
    event = await make_event(100, payment=PaymentKind.CARD)
    sold = 0
    for step in range(1, 100):
        await only_at_the_gate(service, redis, await _current(service, event), f"gate-{step}")
        await ended_unheard_of(service, event, f"ended-{step}")
        await only_in_the_ledger(service, redis, event, f"ledger-{step}")
        sold += 2
        if flushed:
            await redis.flushdb()

        stopper = Stopper(step, done=done)
        try:
            await Reconciler(stopper.within(service)).run_once(full=True)
        except Stopped:
            pass
        else:
            break  # there is no such step any more
        reconciler = Reconciler(service)
        await reconciler.run_once(full=True)
        (tier,) = await assert_balanced(service, event.id)
        assert tier.held_units == sold
        assert await reconciler.run_once(full=True) == CLEAN
    assert not stopper.stopped
    assert step > 8, "a pass takes more steps than that"


async def _current(service: Service, event: Event) -> Event:
    """The event with its present epoch."""
    return (await service.catalog.reload(event.id)).event


# -- an order that comes late


class LateLedger:
    """A ledger at which placing takes until it may."""

    def __init__(self, ledger: Ledger) -> None:
        self._place = ledger.place
        self.asked: list[OrderRequest] = []
        self.may = asyncio.Event()

    async def place(self, requests: Sequence[OrderRequest]) -> list[Placement]:
        self.asked += requests
        await self.may.wait()
        return await self._place(requests)


@pytest.fixture
def late(service: Service, monkeypatch: pytest.MonkeyPatch) -> LateLedger:
    """The service's ledger, slow to write orders down."""
    made = LateLedger(service.ledger)
    monkeypatch.setattr(service.ledger, "place", made.place)
    return made


async def _fenced_on_its_way(
    service: Service, other: Service, redis: Redis, late: LateLedger, event: Event
) -> "asyncio.Task[Order]":
    """A buyer's request whose order was fenced before the ledger heard of it."""
    waiting = asyncio.create_task(place(service, event.id, "buyer-1", "press-1", 2))

    async def at_the_ledger() -> bool:
        return bool(late.asked)

    await wait_until(at_the_ledger)
    await make_old(redis, event.id, late.asked[0].order_id)
    assert await Reconciler(other).run_once(full=True) == Repairs(fenced=1, given_back=1)
    return waiting


async def test_an_order_that_arrives_after_the_fence_is_placed_anew(
    service: Service, other: Service, redis: Redis, late: LateLedger, make_event: MakeEvent
) -> None:
    event = await make_event(10)
    waiting = await _fenced_on_its_way(service, other, redis, late, event)
    late.may.set()
    order = await waiting

    assert order.status is OrderStatus.CONFIRMED
    assert order.id != late.asked[0].order_id
    # Pressed again, here and elsewhere, the key is that order's.
    for one in (service, other):
        assert await place(one, event.id, "buyer-1", "press-1", 2) == order
    assert await live_orders(service, event.id) == 1
    (tier,) = await assert_balanced(service, event.id)
    assert tier.sold_units == 2


async def test_an_order_that_arrives_after_the_fence_and_the_last_seat(
    service: Service, other: Service, redis: Redis, late: LateLedger, make_event: MakeEvent
) -> None:
    """Its seats went to somebody else meanwhile: it is refused, now and when pressed again."""
    event = await make_event(2)
    waiting = await _fenced_on_its_way(service, other, redis, late, event)
    await place(other, event.id, "buyer-2", "press-1", 2)
    late.may.set()
    with pytest.raises(SoldOut):
        await waiting

    for one in (service, other):
        with pytest.raises(SoldOut):
            await place(one, event.id, "buyer-1", "press-1", 2)
    assert await live_orders(service, event.id) == 1
    await assert_balanced(service, event.id)


async def test_an_order_that_arrives_before_the_fence_is_not_given_back(
    service: Service,
    other: Service,
    redis: Redis,
    late: LateLedger,
    make_event: MakeEvent,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Between the comparison and the fence: the insert of the fence does not win."""
    event = await make_event(10)
    waiting = asyncio.create_task(place(service, event.id, "buyer-1", "press-1", 2))
    fence = other.ledger.fence

    async def after_the_order(keys: Sequence[OrderKey]) -> list[OrderKey]:
        late.may.set()
        await waiting
        return await fence(keys)

    async def at_the_ledger() -> bool:
        return bool(late.asked)

    await wait_until(at_the_ledger)
    await make_old(redis, event.id, late.asked[0].order_id)
    monkeypatch.setattr(other.ledger, "fence", after_the_order)
    assert await Reconciler(other).run_once(full=True) == CLEAN
    assert (await waiting).status is OrderStatus.CONFIRMED
    (tier,) = await assert_balanced(service, event.id)
    assert tier.sold_units == 2
