"""The audit: do the books balance, in both stores and between them?

At quiet, `available + held + sold = capacity` per tier in both, what the counters say is what the
orders add up to, and both hold the same live orders. While a sale is on, orders are on their way
from one store to the other: ids younger than the grace period are not a difference.
"""

import asyncio
from dataclasses import dataclass, field

from onsale.domain.errors import GateUnavailable
from onsale.domain.event import Event, PaymentKind
from onsale.domain.order import OrderStatus
from onsale.gate.gate import Gate, GateBooks
from onsale.ledger.ledger import Ledger, LedgerTierBooks
from onsale.sales import invariants
from onsale.sales.invariants import Difference
from onsale.sales.loading import ahead

DIFFERENCES_MAX = 100
# A give-back follows its order's end in milliseconds.
SECOND_LOOK_SECONDS = 0.2


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
    async for chunk in ahead(gate.orders(event_id)):
        known = await ledger.known(event_id, chunk)
        for order_id, stored in chunk.items():
            order = known.get(order_id)
            if order is None:
                if stored.admitted_at_seconds < settled_before:
                    comparison.gate_only[order_id] = None
            elif not order.status.live or order.fingerprint != stored.taken.fingerprint:
                comparison.gate_only[order_id] = order.status
    async for order_ids in ahead(ledger.live_ids(event_id)):
        comparison.ledger_only += await gate.missing(event_id, order_ids)
    return comparison


async def audit(event: Event, gate: Gate, ledger: Ledger, grace_seconds: float) -> Audit:
    """Audit one event. Raises `LedgerUnavailable`; a gate that is not there is a difference."""
    ledger_books = await ledger.books(event.id)
    differences = await _ledger_differences(event, ledger, ledger_books)
    gate_books, comparison = None, Comparison()
    if event.gate_epoch is not None:
        try:
            gate_books = await gate.audit(event.id, event.gate_epoch)
            comparison = await compare(event.id, gate, ledger, grace_seconds)
        except GateUnavailable as error:
            differences.append(Difference("gate_unavailable", event.id, error.detail))
        else:
            differences += invariants.gate_adds_up(event, gate_books)
            differences += invariants.same_live_orders(comparison)
    elif not event.gate_retired:
        differences.append(Difference("gate_unavailable", event.id, "the gate is not loaded"))
    return Audit(event, ledger_books, gate_books, comparison, differences)


async def _ledger_differences(
    event: Event, ledger: Ledger, books: list[LedgerTierBooks]
) -> list[Difference]:
    found: list[Difference] = []
    for tier in books:
        found += invariants.ledger_adds_up(tier)
        found += invariants.nothing_oversold(tier)
    limit_units = event.max_per_buyer_units
    if limit_units:
        buyers = await ledger.buyers_above(event.id, limit_units)
        found += invariants.limit_kept(limit_units, buyers)
    if event.payment is PaymentKind.CARD:
        found += invariants.money_follows_orders(await ledger.money_astray(event.id))
    return found
