"""Orders that are there before the crowd comes: copied into the ledger, loaded into the gate.

They are as if they had been placed one by one under their keys; a million take half a minute.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import asyncpg

from onsale.bench.databases import tidy
from onsale.bench.probes import Stores, driver_url
from onsale.domain.errors import NotFound
from onsale.domain.event import Event
from onsale.domain.ids import fingerprint, order_id
from onsale.domain.order import Item, OrderStatus
from onsale.sales.loading import load_gate
from onsale.sales.service import Service
from onsale.settings import Settings

# Longer than any run: nobody's hold may end.
_HOLD_LIFETIME = timedelta(days=1)


class Press(NamedTuple):
    """What an order's id follows from, beside its event."""

    buyer_id: str
    key: str


def fill(
    stores: Stores, event_id: str, presses: Sequence[Press], status: OrderStatus
) -> list[bytes]:
    """Place a ticket of the event's first tier for every press: the orders' ids.

    The event has no other orders yet, and `status` is held or confirmed.
    """
    return asyncio.run(_fill(stores, event_id, presses, status))


async def _fill(
    stores: Stores, event_id: str, presses: Sequence[Press], status: OrderStatus
) -> list[bytes]:
    service = Service.of(Settings(database_url=stores.database_url, redis_url=stores.redis_url))
    try:
        event = await service.events.get(event_id)
        if event is None:
            raise NotFound
        ids = [order_id(event_id, press.buyer_id, press.key) for press in presses]
        await copy_orders(stores.database_url, event, list(zip(ids, presses, strict=True)), status)
        await tidy(stores.database_url)
        await load_gate(event, service.gate, service.ledger, service.events, wait=True)
    finally:
        await service.close()
    return ids


async def copy_orders(
    database_url: str, event: Event, named: Sequence[tuple[bytes, Press]], status: OrderStatus
) -> None:
    """Copy orders, each with its id, into the ledger; the gate has not heard of them."""
    now, tier = datetime.now(UTC), event.tiers[0]
    item = Item(tier.number, 1)
    asked = int.from_bytes(fingerprint([item], None), "big", signed=True)
    held = status is OrderStatus.HELD
    connection: Any = await asyncpg.connect(driver_url(database_url))
    try:
        await connection.copy_records_to_table(
            "orders",
            columns=(
                *("event_id", "id", "buyer_id", "status", "fingerprint", "amount_minor_units"),
                *("created_at", "expires_at", "confirmed_at"),
            ),
            records=(
                (event.id, order.hex(), press.buyer_id, status.value, asked)
                + (tier.price_minor_units, now)
                + ((now + _HOLD_LIFETIME, None) if held else (None, now))
                for order, press in named
            ),
        )
        await connection.copy_records_to_table(
            "order_items",
            columns=("event_id", "order_id", "tier_number", "quantity"),
            records=((event.id, order.hex(), *item) for order, _ in named),
        )
        if event.max_per_buyer_units:
            units = Counter(press.buyer_id for _, press in named)
            await connection.copy_records_to_table(
                "buyer_units",
                columns=("event_id", "buyer_id", "units", "limit_units"),
                records=((event.id, *buyer, event.max_per_buyer_units) for buyer in units.items()),
            )
        await connection.execute(
            "UPDATE tiers SET reserved = reserved + $3, sold = sold + $4"
            " WHERE event_id = $1 AND number = $2",
            *(event.id, tier.number, len(named), 0 if held else len(named)),
        )
    finally:
        await connection.close()
