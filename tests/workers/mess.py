"""Differences between gate and ledger as crashes leave them, made with the stores themselves."""

import struct

from redis.asyncio import Redis

from onsale.domain.event import Event
from onsale.domain.ids import fingerprint, order_id
from onsale.domain.order import Item, Order
from onsale.gate.codec import encode_body
from onsale.gate.keys import event_keys
from onsale.ledger.ledger import OrderKey
from onsale.sales.service import Service
from tests.races.books import place

# Older than any grace period of the tests' settings.
LONG_AGO_SECONDS = 3_600


async def only_at_the_gate(service: Service, redis: Redis, event: Event, buyer_id: str) -> bytes:
    """An order of two units whose process died between gate and ledger, long ago; its id."""
    items = (Item(1, 2),)
    id_ = order_id(event.id, buyer_id, "press-1")
    body = encode_body(buyer_id, fingerprint(items, None), items)
    assert event.gate_epoch is not None
    await service.gate.admit(event.id, event.gate_epoch, [(id_, body)])
    await make_old(redis, event.id, id_)
    return id_


async def make_old(
    redis: Redis, event_id: str, id_: bytes, by_seconds: int = LONG_AGO_SECONDS
) -> None:
    """Let an order have been admitted so much earlier."""
    orders = event_keys(event_id).orders
    stored = await redis.hget(orders, id_)
    assert isinstance(stored, bytes)
    (stamp,) = struct.unpack_from(">I", stored)
    old = struct.pack(">I", stamp - by_seconds) + stored[4:]
    await redis.hset(orders, id_, old)


async def ended_unheard_of(service: Service, event: Event, buyer_id: str) -> Order:
    """A hold of two units that the ledger released and the gate still has."""
    order = await place(service, event.id, buyer_id, "press-1", 2)
    assert await service.ledger.release(OrderKey(event.id, order.id), buyer_id)
    return order


async def only_in_the_ledger(service: Service, redis: Redis, event: Event, buyer_id: str) -> Order:
    """A live order of two units that the gate has lost."""
    order = await place(service, event.id, buyer_id, "press-1", 2)
    keys = event_keys(event.id)
    await redis.hdel(keys.orders, order.id)
    await redis.hincrby(keys.avail, "1", 2)
    return order
