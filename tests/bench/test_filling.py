"""Orders that were there before: as if each had been placed by its buyer."""

import asyncio
from itertools import count

import httpx
import pytest

from onsale.bench.filling import Press, fill
from onsale.bench.probes import Stores
from onsale.domain.event import PaymentKind
from onsale.domain.ids import order_id
from onsale.domain.order import OrderStatus
from onsale.embedded import EmbeddedPostgres, EmbeddedValkey
from onsale.sales.books import audit
from onsale.sales.service import Service
from tests.support import MakeEvent, as_buyer, count_rows, items

_serial = count()


def presses(number: int) -> list[Press]:
    """Of buyers of this test alone."""
    test = next(_serial)
    return [Press(f"earlier-{test}-{buyer}", f"press-{buyer}") for buyer in range(number)]


@pytest.fixture
def stores(postgres: EmbeddedPostgres, valkey: EmbeddedValkey) -> Stores:
    return Stores(postgres.url, valkey.url)


async def test_confirmed_orders_balance_and_are_found_by_their_keys(
    client: httpx.AsyncClient, service: Service, make_event: MakeEvent, stores: Stores
) -> None:
    """More than the gate is loaded with at once; one is pressed again, and a stranger buys."""
    event = await make_event(5_000, max_per_buyer_units=1)
    earlier = presses(2_500)
    ids = await asyncio.to_thread(fill, stores, event.id, earlier, OrderStatus.CONFIRMED)
    assert ids == [order_id(event.id, *press) for press in earlier]
    orders = f"/v1/events/{event.id}/orders"
    again = await client.post(orders, headers=as_buyer(*earlier[1_234]), json=items())
    assert (again.status_code, again.json()["id"]) == (201, ids[1_234].hex())
    assert again.headers["Idempotent-Replayed"] == "true"
    one_more = await client.post(orders, headers=as_buyer(earlier[7].buyer_id), json=items())
    assert one_more.json()["code"] == "buyer_limit_reached"
    new = await client.post(orders, headers=as_buyer("a-stranger"), json=items())
    assert new.status_code == 201
    assert "Idempotent-Replayed" not in new.headers
    loaded = await service.events.get(event.id)
    assert loaded is not None
    found = await audit(loaded, service.gate, service.ledger, grace_seconds=0)
    assert found.balanced
    assert found.gate is not None
    assert found.gate.live_orders == 2_501
    units = "SELECT sum(units) FROM buyer_units WHERE event_id = :event"
    assert await count_rows(service, units, event=event.id) == 2_501


async def test_holds_can_be_paid_by_their_buyers(
    client: httpx.AsyncClient, make_event: MakeEvent, stores: Stores
) -> None:
    event = await make_event(10, payment=PaymentKind.CARD)
    (mine, theirs) = presses(2)
    hold, _ = await asyncio.to_thread(fill, stores, event.id, [mine, theirs], OrderStatus.HELD)
    payment = f"/v1/events/{event.id}/orders/{hold.hex()}/payment"
    refused = await client.post(payment, headers=as_buyer(theirs.buyer_id), json={"method": "ok"})
    assert refused.status_code == 404
    paid = await client.post(payment, headers=as_buyer(mine.buyer_id), json={"method": "ok"})
    assert (paid.status_code, paid.json()["status"]) == (200, "confirmed")
