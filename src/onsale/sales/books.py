"""The audit: do the books balance, in both stores and between them?

At quiet, `available + held + sold = capacity` per tier in both, what the counters say is what the
orders add up to, and both hold the same live orders. While a sale is on, orders are on their way
from one store to the other: ids younger than the grace period are not a difference.
"""

import asyncio
from dataclasses import dataclass, field

from onsale.domain.errors import GateUnavailable
from onsale.domain.event import Event
from onsale.domain.order import OrderStatus
from onsale.gate.gate import Gate, GateBooks
from onsale.ledger.ledger import Ledger, LedgerTierBooks

DIFFERENCES_MAX = 100
# A give-back follows its order's end in milliseconds.
SECOND_LOOK_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that does not add up; `subject` is an order id or a tier id."""

    kind: str
    subject: str
    detail: str


@dataclass(slots=True)
class Comparison:
    """Live order ids that only one of the stores has. Those in flight are left out.

    One that both have for different items, under a key that was used twice, is another order at the
    gate than in the ledger: once the gate has let it go, it lacks the ledger's.
    """

    gate_only: dict[bytes, OrderStatus | None] = field(default_factory=dict)
    ledger_only: list[bytes] = field(default_factory=list)

    @property
    def drift_orders(self) -> int:
        return len(self.gate_only) + len(self.ledger_only)


@dataclass(frozen=True, slots=True)
class Audit:
    """What an auditor found; `gate` is `None` where the event has no gate to ask."""

    event: Event
    ledger: list[LedgerTierBooks]
    gate: GateBooks | None
    comparison: Comparison
    differences: list[Difference]

    @property
    def balanced(self) -> bool:
        return not self.differences

    @property
    def oversold_units(self) -> int:
        return sum(tier.oversold_units for tier in self.ledger)


async def compare(event_id: str, gate: Gate, ledger: Ledger, grace_seconds: float) -> Comparison:
    """Which live order ids only one of the stores has, streamed in chunks.

    `gate_only` maps an id to its status in the ledger: `None` when it never arrived there. An id
    admitted within `grace_seconds` may still arrive, and is left out. Raises `GateUnavailable`,
    `LedgerUnavailable`.
    """
    comparison = await _compare_once(event_id, gate, ledger, grace_seconds)
    if not comparison.drift_orders:
        return comparison
    # Between the looks into the two stores an order may have ended in one and not yet in the
    # other: what is a difference is one at a second look as well.
    await asyncio.sleep(SECOND_LOOK_SECONDS)
    again = await _compare_once(event_id, gate, ledger, grace_seconds)
    in_both_looks = set(comparison.ledger_only)
    return Comparison(
        {id_: status for id_, status in again.gate_only.items() if id_ in comparison.gate_only},
        [id_ for id_ in again.ledger_only if id_ in in_both_looks],
    )


async def _compare_once(
    event_id: str, gate: Gate, ledger: Ledger, grace_seconds: float
) -> Comparison:
    comparison = Comparison()
    settled_before = await gate.now_seconds(event_id) - grace_seconds
    async for chunk in gate.orders(event_id):
        known = await ledger.known(event_id, chunk)
        for order_id, stored in chunk.items():
            order = known.get(order_id)
            if order is None:
                if stored.admitted_at_seconds < settled_before:
                    comparison.gate_only[order_id] = None
            elif not order.status.live or order.fingerprint != stored.taken.fingerprint:
                comparison.gate_only[order_id] = order.status
    async for orders in ledger.live_orders(event_id):
        comparison.ledger_only += await gate.missing(event_id, [order.id for order in orders])
    return comparison


async def audit(event: Event, gate: Gate, ledger: Ledger, grace_seconds: float) -> Audit:
    """Audit one event. Raises `LedgerUnavailable`; a gate that is not there is a difference."""
    ledger_books = await ledger.books(event.id)
    differences = [found for tier in ledger_books for found in _ledger_differences(tier)]
    gate_books, comparison = None, Comparison()
    if event.gate_epoch is not None:
        try:
            gate_books = await gate.audit(event.id, event.gate_epoch)
            comparison = await compare(event.id, gate, ledger, grace_seconds)
        except GateUnavailable as error:
            differences.append(Difference("gate_unavailable", event.id, error.detail))
        else:
            differences += _gate_differences(event, gate_books)
            differences += _order_differences(comparison)
    elif not event.gate_retired:
        differences.append(Difference("gate_unavailable", event.id, "the gate is not loaded"))
    return Audit(event, ledger_books, gate_books, comparison, differences)


def _ledger_differences(tier: LedgerTierBooks) -> list[Difference]:
    counted, found = tier.counted, []
    if not counted.balanced:
        found.append(Difference("ledger_unbalanced", counted.tier_id, f"{counted}"))
    reserved_units = counted.held_units + counted.sold_units
    if (reserved_units, counted.sold_units) != (
        tier.summed_reserved_units,
        tier.summed_sold_units,
    ):
        found.append(
            Difference(
                "ledger_miscounted",
                counted.tier_id,
                f"counted {reserved_units} reserved and {counted.sold_units} sold, orders add up"
                f" to {tier.summed_reserved_units} and {tier.summed_sold_units}",
            )
        )
    if tier.oversold_units:
        found.append(
            Difference("oversold", counted.tier_id, f"{tier.oversold_units} units too many")
        )
    return found


def _gate_differences(event: Event, books: GateBooks) -> list[Difference]:
    found = []
    for tier in books.tiers:
        tier_id = event.tier_by_number[tier.tier_number].id
        if tier.available_units + tier.taken_units != tier.capacity_units:
            found.append(Difference("gate_unbalanced", tier_id, f"{tier}"))
        if tier.capacity_units != event.tier_by_id[tier_id].capacity_units:
            found.append(
                Difference("capacity", tier_id, f"the gate has {tier.capacity_units} units")
            )
    return found


def _order_differences(comparison: Comparison) -> list[Difference]:
    found = [
        Difference(
            "gate_only",
            order_id.hex(),
            f"ledger: {status.value if status else 'never arrived'}",
        )
        for order_id, status in comparison.gate_only.items()
    ]
    found += [
        Difference("ledger_only", order_id.hex(), "live in the ledger, unknown to the gate")
        for order_id in comparison.ledger_only
    ]
    return found
