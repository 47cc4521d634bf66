"""What a sale counts, with the label children at hand: looking one up costs more than counting."""

import asyncio
from collections import Counter
from collections.abc import Collection

from onsale.domain.event import Event, PaymentKind
from onsale.domain.inventory import Outcome
from onsale.domain.order import Order
from onsale.ledger.ledger import OrderKey
from onsale.observability import metrics

_OUTCOME_LABELS = {
    Outcome.SOLD_OUT: "sold_out",
    Outcome.BUYER_LIMIT: "limit",
    Outcome.NOT_OPEN: "not_open",
    Outcome.PAUSED: "not_open",
    Outcome.CLOSED: "not_open",
}


class SaleMeters:
    """The counters of one event."""

    def __init__(self, event: Event) -> None:
        self._event = event
        self._refused: Counter[Outcome] = Counter()
        self._look_up()

    def _look_up(self) -> None:
        event, label = self._event, metrics.event_label(self._event.id)
        self._generation = metrics.event_label.generation
        self._outcomes = {
            outcome: metrics.orders_total.labels(label, outcome)
            for outcome in (
                "held",
                "confirmed",
                "sold_out",
                "limit",
                "replayed",
                "not_open",
                "error",
            )
        }
        self._sold = {
            tier.number: metrics.tickets_sold_total.labels(label, tier.id) for tier in event.tiers
        }
        self._revenue = metrics.revenue_minor_units_total.labels(label, event.currency)

    def _count(self, outcome: str, orders: int = 1) -> None:
        if self._generation != metrics.event_label.generation:
            self._look_up()
        self._outcomes[outcome].inc(orders)

    def placed(self, orders: Collection[Order]) -> None:
        """New orders are in the ledger."""
        if self._event.payment is PaymentKind.CARD:
            self._count("held", len(orders))
        else:
            self._count("confirmed", len(orders))
            self.sold(orders)

    def sold(self, orders: Collection[Order]) -> None:
        """Orders were confirmed."""
        units: dict[int, int] = {}
        for order in orders:
            for tier_number, quantity in order.items:
                units[tier_number] = units.get(tier_number, 0) + quantity
        for tier_number, quantity in units.items():
            self._sold[tier_number].inc(quantity)
        self._revenue.inc(sum(order.amount_minor_units for order in orders))

    def replayed(self) -> None:
        """A repeated request got the order of the first."""
        self._count("replayed")

    def refused(self, outcome: Outcome) -> None:
        """The sale refused an order. A turn of the event loop refuses many: counted at its end."""
        if not self._refused:
            asyncio.get_running_loop().call_soon(self._count_refused)
        self._refused[outcome] += 1

    def _count_refused(self) -> None:
        for outcome, orders in self._refused.items():
            self._count(_OUTCOME_LABELS[outcome], orders)
        self._refused.clear()

    def failed(self) -> None:
        """An order could not be decided or written down."""
        self._count("error")


def ended(key: OrderKey, reason: str, orders: int = 1) -> None:
    """Orders stopped being live."""
    metrics.orders_ended_total.labels(metrics.event_label(key.event_id), reason).inc(orders)
