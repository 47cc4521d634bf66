"""The moments between two steps, one at a time: a process that gets no further, and what becomes
of its orders.

Seen red with a ledger that is asked only once, and in the audit before each repair.
"""

import asyncio
from collections.abc import Sequence

import pytest

from onsale.domain.errors import GateUnavailable, LedgerUnavailable
from onsale.domain.event import PaymentKind
from onsale.domain.order import OrderRequest, OrderStatus
from onsale.ledger.ledger import OrderKey, Placement
from onsale.sales.service import Service
from tests.faults.conftest import reconcile
from tests.races.books import assert_balanced, audit_at_quiet, place
from tests.support import MakeEvent, live_orders

GATE_ONLY = ["gate_only"]


async def test_gate_took_stock_and_the_ledger_does_not_answer(
    service: Service, other: Service, make_event: MakeEvent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is promised; the stock comes back, and the key buys when the ledger is back."""
    event = await make_event(2)
    with monkeypatch.context() as broken:
        broken.setattr(service.ledger, "place", _unavailable)
        with pytest.raises(LedgerUnavailable):
            await place(service, event.id, "buyer-1", "press-1", 2)
    found = await audit_at_quiet(service, event.id)
    assert [one.kind for one in found.differences] == GATE_ONLY

    await reconcile(other, event.id)
    (tier,) = await assert_balanced(other, event.id)
    assert tier.available_units == 2
    order = await place(service, event.id, "buyer-1", "press-1", 2)
    assert order.status is OrderStatus.CONFIRMED
    await assert_balanced(other, event.id)


async def test_the_same_key_before_the_reconciler_came(
    service: Service, other: Service, make_event: MakeEvent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stock it took is its own: pressed again, with none left, it goes on to the ledger."""
    event = await make_event(2)
    with monkeypatch.context() as broken:
        broken.setattr(service.ledger, "place", _unavailable)
        with pytest.raises(LedgerUnavailable):
            await place(service, event.id, "buyer-1", "press-1", 2)
    order = await place(other, event.id, "buyer-1", "press-1", 2)
    assert order.status is OrderStatus.CONFIRMED
    await assert_balanced(other, event.id)


async def _unavailable(requests: Sequence[OrderRequest]) -> list[Placement]:
    raise LedgerUnavailable


async def test_committed_and_the_answer_lost(
    service: Service, other: Service, make_event: MakeEvent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process dies after the commit: the same key gets the same order at another one."""
    event = await make_event(2)
    write = service.ledger.place

    async def commits_and_is_lost(requests: Sequence[OrderRequest]) -> list[Placement]:
        await write(requests)
        raise asyncio.CancelledError

    monkeypatch.setattr(service.ledger, "place", commits_and_is_lost)
    with pytest.raises(asyncio.CancelledError):
        await place(service, event.id, "buyer-1", "press-1", 2)
    assert await live_orders(other, event.id) == 1

    order = await place(other, event.id, "buyer-1", "press-1", 2)
    assert order.status is OrderStatus.CONFIRMED
    assert await live_orders(other, event.id) == 1
    (tier,) = await assert_balanced(other, event.id)
    assert tier.sold_units == 2


async def test_the_ledger_loses_the_answer_to_a_commit_and_is_asked_again(
    service: Service, make_event: MakeEvent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that breaks between commit and answer: writing the batch again is harmless."""
    event = await make_event(10)
    write = service.ledger.place
    tries: list[int] = []

    async def lost_once(requests: Sequence[OrderRequest]) -> list[Placement]:
        placements = await write(requests)
        tries.append(len(requests))
        if len(tries) == 1:
            raise LedgerUnavailable
        return placements

    monkeypatch.setattr(service.ledger, "place", lost_once)
    orders = await asyncio.gather(
        *(place(service, event.id, f"buyer-{n}", "press-1", 1) for n in range(5))
    )
    assert tries == [5, 5]
    assert {order.status for order in orders} == {OrderStatus.CONFIRMED}
    assert await live_orders(service, event.id) == 5
    await assert_balanced(service, event.id)


@pytest.mark.parametrize("end", ["release", "refund"])
async def test_ended_in_the_ledger_and_the_gate_not_told(
    service: Service,
    other: Service,
    make_event: MakeEvent,
    monkeypatch: pytest.MonkeyPatch,
    end: str,
) -> None:
    """The reconciler gives the seats back, once, also when the buyer ends it once more."""
    event = await make_event(2, payment=PaymentKind.CARD)
    order = await place(service, event.id, "buyer-1", "press-1", 2)
    key = OrderKey(event.id, order.id)
    if end == "refund":
        await service.paying.pay(key, "buyer-1", "ok")

    async def ends(one: Service) -> None:
        if end == "refund":
            await one.ending.refund(key)
        else:
            await one.ending.release(key, "buyer-1")

    async def no_answer(*_: object) -> None:
        raise GateUnavailable

    with monkeypatch.context() as broken:
        broken.setattr(service.gate, "give_back", no_answer)
        await ends(service)
    found = await audit_at_quiet(service, event.id)
    assert [one.kind for one in found.differences] == GATE_ONLY

    await asyncio.gather(ends(other), reconcile(other, event.id), reconcile(service, event.id))
    (tier,) = await assert_balanced(other, event.id)
    assert tier.available_units == 2
    await place(other, event.id, "buyer-2", "press-1", 2)
    await assert_balanced(other, event.id)
