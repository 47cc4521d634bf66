"""The gate of a sale that is over goes once its books have balanced, and the ledger lives on.

Seen red with a gate that retires whether or not they balance.
"""

import asyncio
from datetime import timedelta

import pytest
from redis.asyncio import Redis

from onsale.domain.errors import SaleClosed
from onsale.domain.event import Event, PaymentKind, SaleSwitch
from onsale.domain.order import OrderStatus
from onsale.gate.keys import event_keys
from onsale.ledger.ledger import OrderKey
from onsale.sales.service import Service
from onsale.workers import sweeper
from onsale.workers.reconciler import RETIRED_KEEP_SECONDS, Reconciler
from tests.races.books import audit_at_quiet, place
from tests.support import MakeEvent, wait_until
from tests.workers.mess import only_at_the_gate


async def _retired(service: Service, event: Event) -> bool:
    current = await service.events.get(event.id)
    assert current is not None
    return current.gate_retired


async def test_after_a_closed_sale(
    service: Service, other: Service, redis: Redis, make_event: MakeEvent
) -> None:
    event = await make_event(10, payment=PaymentKind.CARD)
    order = await place(service, event.id, "buyer-1", "press-1", 2)
    await service.paying.pay(OrderKey(event.id, order.id), "buyer-1", "ok")
    reconciler = Reconciler(other)
    await reconciler.run_once(full=True)
    assert not await _retired(service, event), "its sale is on"

    await service.organising.switch(event.id, SaleSwitch.CLOSED)
    await reconciler.run_once(full=True)
    assert await _retired(service, event)
    assert await other.events.with_gate() == []
    for key in event_keys(event.id):
        # Those that were never written have nothing to expire (-2).
        ttl_seconds = await redis.ttl(key)
        assert ttl_seconds == -2 or 0 < ttl_seconds <= RETIRED_KEEP_SECONDS
    assert await redis.ttl(event_keys(event.id).orders) > 0
    assert (await audit_at_quiet(service, event.id)).balanced

    # A process that heard of it before and one that did not: the order is found, no other is made.
    for one in (service, other):
        assert (await place(one, event.id, "buyer-1", "press-1", 2)).id == order.id
        with pytest.raises(SaleClosed):
            await place(one, event.id, "buyer-2", "press-1", 1)
    refunded = await service.ending.refund(OrderKey(event.id, order.id))
    assert refunded.status is OrderStatus.REFUNDED
    assert (await audit_at_quiet(service, event.id)).balanced


async def test_even_when_its_keys_are_gone(
    service: Service, other: Service, redis: Redis, make_event: MakeEvent
) -> None:
    event = await make_event(10)
    order = await place(service, event.id, "buyer-1", "press-1", 2)
    await service.organising.switch(event.id, SaleSwitch.CLOSED)
    await Reconciler(other).run_once(full=True)
    await redis.flushdb()

    for one in (service, other):
        assert (await place(one, event.id, "buyer-1", "press-1", 2)).id == order.id
        with pytest.raises(SaleClosed):
            await place(one, event.id, "buyer-2", "press-1", 1)
    await Reconciler(other).run_once(full=True)
    assert await redis.dbsize() == 0, "nobody loads the gate of a retired event"


async def test_not_while_a_hold_is_left(
    service: Service, other: Service, make_event: MakeEvent
) -> None:
    event = await make_event(10, payment=PaymentKind.CARD, hold_seconds=1)
    await place(service, event.id, "buyer-1", "press-1", 2)
    await service.organising.switch(event.id, SaleSwitch.CLOSED)
    reconciler = Reconciler(other)
    await reconciler.run_once(full=True)
    assert not await _retired(service, event)

    async def swept() -> bool:
        return await sweeper.run_once(other) == 1

    await wait_until(swept)
    await reconciler.run_once(full=True)
    assert await _retired(service, event)


async def test_not_before_the_books_have_balanced(
    service: Service, other: Service, redis: Redis, make_event: MakeEvent
) -> None:
    """Two passes that do not repair this kind of difference, and then one that does."""
    event = await make_event(10)
    await only_at_the_gate(service, redis, event, "buyer-1")
    await service.organising.switch(event.id, SaleSwitch.CLOSED)
    reconciler = Reconciler(other)
    for _ in range(2):
        await reconciler.run_once(full=False)
        assert not await _retired(service, event)
    await reconciler.run_once(full=True)
    assert await _retired(service, event)
    assert (await audit_at_quiet(service, event.id)).balanced


async def test_an_order_on_its_way_when_the_sale_closes_is_kept(
    service: Service, other: Service, make_event: MakeEvent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Admitted before the close and written down after: the buyer was in time."""
    event = await make_event(10)
    at_the_ledger, may = asyncio.Event(), asyncio.Event()
    write = service.ledger.place

    async def late(requests: object) -> object:
        at_the_ledger.set()
        await may.wait()
        return await write(requests)  # type: ignore[arg-type]

    monkeypatch.setattr(service.ledger, "place", late)
    waiting = asyncio.create_task(place(service, event.id, "buyer-1", "press-1", 2))
    await at_the_ledger.wait()
    await other.organising.switch(event.id, SaleSwitch.CLOSED)
    await Reconciler(other).run_once(full=True)
    may.set()
    assert (await waiting).status is OrderStatus.CONFIRMED
    await Reconciler(other).run_once(full=True)
    found = await audit_at_quiet(service, event.id)
    assert found.balanced, found.differences
    (tier,) = found.ledger
    assert tier.counted.sold_units == 2


async def test_after_the_window_ended(
    service: Service, other: Service, make_event: MakeEvent
) -> None:
    event = await make_event(10, opens_in=timedelta(hours=-2), closes_in=timedelta(hours=-1))
    await Reconciler(other).run_once(full=True)
    assert await _retired(service, event)
