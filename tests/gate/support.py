"""Events and orders for the gate alone: it knows nothing of the ledger, so neither do its tests."""

import secrets
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from onsale.domain.event import Event, PaymentKind, SaleSwitch
from onsale.domain.ids import buyer_ref, fingerprint, order_id
from onsale.domain.inventory import TakenOrder
from onsale.domain.order import Item
from onsale.domain.tier import Tier
from onsale.gate.epoch import make_epoch
from onsale.gate.gate import Gate

HOUR = timedelta(hours=1)


class OpenSale(NamedTuple):
    """An event at the gate, and the epoch under which it was loaded."""

    event: Event
    epoch: str


class AnOrder(NamedTuple):
    """An order as the gate takes it (`id`, `body`) and as the model takes it (`taken`)."""

    id: bytes
    body: bytes
    taken: TakenOrder

    @property
    def pair(self) -> tuple[bytes, bytes]:
        return self.id, self.body


def an_event(
    *capacities_units: int,
    limit_units: int = 0,
    opens_at: datetime | None = None,
    closes_at: datetime | None = None,
) -> Event:
    """An event that is on sale unless asked otherwise, with tiers 1, 2, …"""
    now = datetime.now(UTC)
    return Event(
        id=secrets.token_hex(16),
        name="A night to test",
        venue=None,
        starts_at=now + 24 * HOUR,
        sale_opens_at=opens_at or now - HOUR,
        sale_closes_at=closes_at or now + HOUR,
        hold_seconds=600,
        max_per_buyer_units=limit_units,
        payment=PaymentKind.NONE,
        currency="EUR",
        switch=SaleSwitch.OPEN,
        tiers=tuple(
            Tier(f"t{number}", number, f"Tier {number}", 1_000, units)
            for number, units in enumerate(capacities_units, start=1)
        ),
        created_at=now,
    )


def with_capacities(event: Event, switch: SaleSwitch, capacities_units: Sequence[int]) -> Event:
    """The event as its organiser changed it."""
    tiers = (
        replace(tier, capacity_units=units)
        for tier, units in zip(event.tiers, capacities_units, strict=True)
    )
    # A new event, not a changed one: `Event` keeps what it derives from its tiers.
    return replace(event, switch=switch, tiers=tuple(tiers))


def an_order(buyer: str, key: str, *items: tuple[int, int]) -> AnOrder:
    """The buyer's order under this key; items are (tier number, quantity), one of tier 1 if none.

    The id is the same at every event, which no script could tell: each event has keys of its own.
    """
    asked = tuple(sorted(Item(*item) for item in items or ((1, 1),)))
    taken = TakenOrder(
        order_id("event", buyer, key), buyer_ref(buyer), fingerprint(asked, None), asked
    )
    return AnOrder(taken.order_id, body_of(taken), taken)


def body_of(order: TakenOrder) -> bytes:
    """The order's body as the scripts take it."""
    flat = bytes(number for item in order.items for number in item)
    return order.fingerprint + order.buyer + flat


def orders_of_many(size: int, *items: tuple[int, int]) -> list[AnOrder]:
    """Equal orders of as many buyers."""
    return [an_order(f"buyer-{number}", "key", *items) for number in range(size)]


def pairs(*orders: AnOrder) -> list[tuple[bytes, bytes]]:
    """What the gate's methods take."""
    return [order.pair for order in orders]


async def load(gate: Gate, event: Event, generation: int = 1) -> OpenSale:
    """Begin to load an event under a generation."""
    epoch = make_epoch(generation, await gate.run_id(event.id))
    await gate.load(event, epoch)
    return OpenSale(event, epoch)


async def on_sale(gate: Gate, event: Event, generation: int = 1) -> OpenSale:
    """Load an event and open it."""
    sale = await load(gate, event, generation)
    await gate.open(event.id, sale.epoch)
    return sale
