"""The reference model of the gate: what its scripts must do, in the plainest Python there is.

Nothing here runs in production. The stateful tests send the same commands to this model and to
real servers and require the same answers, so it is kept obviously right rather than fast: stock
is never counted down, it is always `capacity − Σ orders`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from onsale.domain.event import SaleState, SaleSwitch, sale_state
from onsale.domain.order import Item


class Outcome(IntEnum):
    """What the gate says of one order; the numbers are the scripts' answers."""

    ADMITTED = 0
    SEEN = 1
    SEEN_WITH_OTHER_BODY = 2
    SOLD_OUT = 3
    BUYER_LIMIT = 4
    NOT_OPEN = 5
    PAUSED = 6
    CLOSED = 7


@dataclass(frozen=True, slots=True)
class TakenOrder:
    """An order as the gate holds it."""

    order_id: bytes
    buyer: bytes
    fingerprint: bytes
    items: tuple[Item, ...]

    @property
    def units(self) -> int:
        return sum(item.quantity for item in self.items)


@dataclass(slots=True)
class Inventory:
    """The stock of one event's sale. `limit_units` of 0 means no limit per buyer."""

    capacity_units: dict[int, int]
    limit_units: int = 0
    switch: SaleSwitch = SaleSwitch.OPEN
    opens_at_ms: int = 0
    closes_at_ms: int = 2**53
    orders: dict[bytes, TakenOrder] = field(default_factory=dict)

    def admit(self, batch: Sequence[TakenOrder], now_ms: int) -> list[Outcome]:
        """Decide each order of the batch in turn, all of its items or none."""
        return [self._admit_one(order, now_ms) for order in batch]

    def _admit_one(self, order: TakenOrder, now_ms: int) -> Outcome:
        seen = self.orders.get(order.order_id)
        if seen is not None:
            same = seen.fingerprint == order.fingerprint
            return Outcome.SEEN if same else Outcome.SEEN_WITH_OTHER_BODY
        refusal = self._state_refusal(now_ms)
        if refusal is not None:
            return refusal
        if self.limit_units and self.units_of(order.buyer) + order.units > self.limit_units:
            return Outcome.BUYER_LIMIT
        if any(item.quantity > self.available_units(item.tier_number) for item in order.items):
            return Outcome.SOLD_OUT
        self.orders[order.order_id] = order
        return Outcome.ADMITTED

    def _state_refusal(self, now_ms: int) -> Outcome | None:
        return {
            SaleState.SCHEDULED: Outcome.NOT_OPEN,
            SaleState.PAUSED: Outcome.PAUSED,
            SaleState.CLOSED: Outcome.CLOSED,
        }.get(sale_state(self.switch, now_ms, self.opens_at_ms, self.closes_at_ms))

    def give_back(self, order_ids: Sequence[bytes]) -> int:
        """Return the stock of those that are here; how many that were."""
        return sum(self.orders.pop(order_id, None) is not None for order_id in order_ids)

    def adopt(self, orders: Sequence[TakenOrder]) -> int:
        """Take stock for orders the ledger has, whatever is left; how many were new here."""
        before = len(self.orders)
        for order in orders:
            self.orders.setdefault(order.order_id, order)
        return len(self.orders) - before

    def configure(self, switch: SaleSwitch, capacity_units: Mapping[int, int]) -> None:
        """Set switch and capacities outright; orders stay, so availability may go below zero."""
        self.switch = switch
        self.capacity_units = dict(capacity_units)

    def units_of(self, buyer: bytes) -> int:
        return sum(order.units for order in self.orders.values() if order.buyer == buyer)

    def available_units(self, tier_number: int) -> int:
        taken = sum(
            item.quantity
            for order in self.orders.values()
            for item in order.items
            if item.tier_number == tier_number
        )
        return self.capacity_units[tier_number] - taken
