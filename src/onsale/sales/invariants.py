"""What must hold, each a small named rule; the audit, the reconciler and the fault campaign share
them. Those that the stores' books alone decide are here; those that need to know what clients were
told are in `chaos.rules`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from onsale.domain.event import Event
from onsale.gate.gate import GateBooks
from onsale.ledger.ledger import BuyerUnits, LedgerTierBooks, OrderMoney

if TYPE_CHECKING:
    from onsale.sales.books import Comparison


class Rule(StrEnum):
    """The names of the invariants; `RULES` says what each of them means."""

    I1 = "I1"
    I2 = "I2"
    I3 = "I3"
    I4 = "I4"
    I5 = "I5"
    I6 = "I6"
    I7 = "I7"
    I8 = "I8"
    I9 = "I9"
    I10 = "I10"
    I11 = "I11"
    L1 = "L1"
    L2 = "L2"


RULES = {
    Rule.I1: "at quiet, available + held + sold = capacity in both stores, and both hold the same"
    " live orders",
    Rule.I2: "acknowledged orders ≤ orders in the ledger ≤ acknowledged and unknown ones, and never"
    " more units than there are",
    Rule.I3: "every acknowledged order is in the ledger, once, as its buyer was told; nothing is"
    " there that nobody asked for",
    Rule.I4: "no buyer has more units than the limit",
    Rule.I5: "the same key and body are the same order; another body is refused and changes"
    " nothing",
    Rule.I6: "a hold lives as long as it was promised, by the ledger's clock",
    Rule.I7: "an unpaid hold is back on sale 2 s after it expired, or 10 s after the last fault",
    Rule.I8: "who was refused has no order",
    Rule.I9: "nobody is told that seats are sold out which were there for more than a second",
    Rule.I10: "money taken is that of confirmed orders, in the ledger and at the provider; what"
    " became of an order is told at least once, under one id",
    Rule.I11: "what was acknowledged before a crash of Postgres is there after it",
    Rule.L1: "orders are taken again 10 s after a fault, and never stop for 2 s when Redis alone is"
    " away",
    Rule.L2: "nobody is told of an internal error",
}


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that does not add up; `subject` is an order id, a tier id or a buyer."""

    kind: str
    subject: str
    detail: str

    @property
    def rule(self) -> Rule:
        """The invariant that it breaks."""
        return _RULE_OF_KIND[self.kind]


_RULE_OF_KIND = {
    "ledger_unbalanced": Rule.I1,
    "ledger_miscounted": Rule.I1,
    "gate_unbalanced": Rule.I1,
    "gate_unavailable": Rule.I1,
    "capacity": Rule.I1,
    "gate_only": Rule.I1,
    "ledger_only": Rule.I1,
    "oversold": Rule.I2,
    "limit_exceeded": Rule.I4,
    "money_astray": Rule.I10,
}


def ledger_adds_up(tier: LedgerTierBooks) -> Iterator[Difference]:
    """I1: the ledger's counters balance, and are what its orders add up to."""
    counted = tier.counted
    if not counted.balanced:
        yield Difference("ledger_unbalanced", counted.tier_id, f"{counted}")
    reserved_units = counted.held_units + counted.sold_units
    summed = (tier.summed_reserved_units, tier.summed_sold_units)
    if (reserved_units, counted.sold_units) != summed:
        yield Difference(
            "ledger_miscounted",
            counted.tier_id,
            f"counted {reserved_units} reserved and {counted.sold_units} sold, orders add up"
            f" to {tier.summed_reserved_units} and {tier.summed_sold_units}",
        )


def gate_adds_up(event: Event, books: GateBooks) -> Iterator[Difference]:
    """I1: at the gate available and taken units are the capacity, which is the ledger's."""
    for tier in books.tiers:
        tier_id = event.tier_by_number[tier.tier_number].id
        if tier.available_units + tier.taken_units != tier.capacity_units:
            yield Difference("gate_unbalanced", tier_id, f"{tier}")
        if tier.capacity_units != event.tier_by_id[tier_id].capacity_units:
            yield Difference("capacity", tier_id, f"the gate has {tier.capacity_units} units")


def same_live_orders(comparison: "Comparison") -> Iterator[Difference]:
    """I1: the sets of live order ids are equal."""
    for order_id, status in comparison.gate_only.items():
        detail = f"ledger: {status.value if status else 'never arrived'}"
        yield Difference("gate_only", order_id.hex(), detail)
    for order_id in comparison.ledger_only:
        yield Difference("ledger_only", order_id.hex(), "live in the ledger, unknown to the gate")


def nothing_oversold(tier: LedgerTierBooks) -> Iterator[Difference]:
    """I2: the units of live orders are at most the capacity."""
    if tier.oversold_units:
        detail = f"{tier.oversold_units} units too many"
        yield Difference("oversold", tier.counted.tier_id, detail)


def limit_kept(limit_units: int, buyers: list[BuyerUnits]) -> Iterator[Difference]:
    """I4, of those that the ledger finds above the limit."""
    for buyer in buyers:
        detail = f"{buyer.units} units where {limit_units} are allowed"
        yield Difference("limit_exceeded", buyer.buyer_id, detail)


def money_follows_orders(orders: list[OrderMoney]) -> Iterator[Difference]:
    """I10, of those for which the ledger does not find one payment that is taken, or about to be,
    when they are confirmed; one that is given back when they are refunded; and none otherwise.
    """
    for order in orders:
        yield Difference(
            "money_astray",
            order.order_id.hex(),
            f"{order.status.value}: {order.payments_taken} payments taken,"
            f" {order.payments_given_back} given back",
        )
