"""Events, orders and books of the ledger alone."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from onsale.domain.event import Event, PaymentKind
from onsale.domain.ids import fingerprint, order_id
from onsale.domain.order import Item, OrderRequest, OrderStatus
from onsale.ledger.engine import Database
from onsale.ledger.events import Events, NewEvent, NewTier
from onsale.ledger.ledger import Ledger, OrderKey

MakeLedgers = Callable[[int], Awaitable[list[Ledger]]]


async def new_event(events: Events, *capacities_units: int, **changed: Any) -> Event:
    """A card event that is on sale, with tiers 1, 2, … of these capacities, but for what is changed
    of the `NewEvent`.
    """
    now = datetime.now(UTC)
    made = NewEvent(
        name="A night to test",
        venue=None,
        starts_at=now + timedelta(days=30),
        sale_opens_at=now - timedelta(hours=1),
        sale_closes_at=now + timedelta(days=1),
        hold_seconds=600,
        max_per_buyer_units=0,
        payment=PaymentKind.CARD,
        currency="EUR",
        tiers=tuple(
            NewTier(f"t{number}", f"Tier {number}", 1_000, units)
            for number, units in enumerate(capacities_units, start=1)
        ),
    )
    return await events.create(replace(made, **changed))


def request(
    event: Event,
    *items: tuple[int, int],
    buyer: str = "buyer",
    key: str | None = None,
    status: OrderStatus = OrderStatus.HELD,
    hold_seconds: int = 600,
) -> OrderRequest:
    """A request of this buyer, under a new key unless one is given; a unit of tier 1 if no items.

    A hold of −1 s is overdue as soon as it is there.
    """
    asked = tuple(sorted(Item(*item) for item in items or ((1, 1),)))
    return OrderRequest(
        event_id=event.id,
        order_id=order_id(event.id, buyer, key or secrets.token_hex(8)),
        buyer_id=buyer,
        fingerprint=fingerprint(asked, None),
        items=asked,
        status=status,
        amount_minor_units=1_000 * sum(quantity for _, quantity in asked),
        currency=event.currency,
        hold_seconds=hold_seconds,
    )


def key_of(placed: OrderRequest) -> OrderKey:
    """Its primary key."""
    return OrderKey(placed.event_id, placed.order_id)


async def assert_balanced(ledger: Ledger, event: Event) -> tuple[int, int]:
    """The counters are what the orders add up to; units (reserved, sold) of all tiers."""
    books = await ledger.books(event.id)
    for tier in books:
        counted = tier.counted
        assert counted.balanced, counted
        assert counted.held_units + counted.sold_units == tier.summed_reserved_units
        assert counted.sold_units == tier.summed_sold_units
    return (
        sum(tier.summed_reserved_units for tier in books),
        sum(tier.summed_sold_units for tier in books),
    )


async def assert_limit_kept(database: Database, event: Event) -> dict[str, int]:
    """Each buyer's units are counted as what their live orders add up to, and are within the limit;
    the units by buyer. Events without a limit count nobody's.
    """
    async with database.transaction("test") as connection:
        counted = await connection.execute(
            text("SELECT buyer_id, units, limit_units FROM buyer_units WHERE event_id = :event"),
            {"event": event.id},
        )
        rows = counted.all()
        summed = await connection.execute(
            text(
                "SELECT buyer_id, sum(quantity) FROM orders o"
                " JOIN order_items i ON i.event_id = o.event_id AND i.order_id = o.id"
                " WHERE o.event_id = :event AND status IN ('held', 'confirmed') GROUP BY 1"
            ),
            {"event": event.id},
        )
        units = {buyer: int(taken) for buyer, taken in summed}
    if not event.max_per_buyer_units:
        assert not rows
        return units
    assert {limit_units for _, _, limit_units in rows} <= {event.max_per_buyer_units}
    assert {buyer: units for buyer, units, _ in rows if units} == units
    assert all(taken <= event.max_per_buyer_units for taken in units.values())
    return units


def execute(url: str, *statements: str) -> None:
    """Run statements, each a transaction of its own. Not from within an event loop."""

    async def run() -> None:
        engine = create_async_engine(url, isolation_level="AUTOCOMMIT")
        async with engine.connect() as connection:
            for statement in statements:
                await connection.execute(text(statement))
        await engine.dispose()

    asyncio.run(run())
