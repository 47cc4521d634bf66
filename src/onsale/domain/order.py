"""An order: `held` → `confirmed` → `refunded`, or `held` → `released` / `expired`.

`abandoned` marks an id that took stock at the gate and never reached the ledger.
"""

from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

ITEMS_PER_ORDER_MAX = 10
QUANTITY_PER_ITEM_MAX = 100


class OrderStatus(StrEnum):
    HELD = "held"
    CONFIRMED = "confirmed"
    RELEASED = "released"
    EXPIRED = "expired"
    REFUNDED = "refunded"
    ABANDONED = "abandoned"

    @property
    def live(self) -> bool:
        """Whether an order in this status occupies seats."""
        return self in LIVE_STATUSES


LIVE_STATUSES = frozenset({OrderStatus.HELD, OrderStatus.CONFIRMED})


class Item(NamedTuple):
    """So many units of one tier; the tier by its number in the event."""

    tier_number: int
    quantity: int


class OrderRequest(NamedTuple):
    """What a buyer asked for, checked and named, on its way through gate and ledger.

    `order_id` and `fingerprint` are as derived in `ids`; `items` are sorted by tier number, each
    tier once, so that every store meets the tiers in one order.
    """

    event_id: str
    order_id: bytes
    buyer_id: str
    fingerprint: bytes
    items: tuple[Item, ...]
    status: OrderStatus
    amount_minor_units: int
    currency: str
    hold_seconds: int

    @property
    def units(self) -> int:
        return sum(item.quantity for item in self.items)


class Order(NamedTuple):
    """An order as the ledger remembers it; `expires_at` is set while it is held."""

    event_id: str
    id: bytes
    buyer_id: str
    status: OrderStatus
    fingerprint: bytes
    items: tuple[Item, ...]
    amount_minor_units: int
    currency: str
    created_at: datetime
    expires_at: datetime | None
