"""I10: money taken is that of confirmed orders, and what became of an order is told."""

from collections import Counter, defaultdict
from collections.abc import Iterator

from onsale.chaos.evidence import PaymentRow, Row
from onsale.chaos.rules.facts import Facts
from onsale.chaos.rules.telling import not_told
from onsale.chaos.rules.verdicts import Breach, Verdict, verdict
from onsale.domain.order import OrderStatus
from onsale.domain.payment import PaymentState
from onsale.payments.books import Entry
from onsale.sales.invariants import Rule


def i10(facts: Facts) -> Verdict:
    """Order by order, what was captured in the ledger and what the provider kept is what is due;
    and its webhooks arrived.
    """
    evidence = facts.evidence
    payments: dict[str, list[PaymentRow]] = defaultdict(list)
    for payment in evidence.payments:
        payments[payment.order_id].append(payment)
    kept = _kept_by_provider(facts)
    card = {sale.event_id for sale in evidence.sales if sale.payment == "card"}

    def breaches() -> Iterator[Breach]:
        for row in evidence.rows:
            if row.event_id in card:
                yield from _astray(row, payments[row.order_id], kept)
        for key in kept.keys() - {payment.key for payment in evidence.payments}:
            yield Breach(f"{key}: the provider kept {kept[key]}, and the ledger knows nothing")
        yield from not_told(facts)

    return verdict(Rule.I10, len(evidence.payments) + len(evidence.messages), breaches())


def _astray(row: Row, payments: list[PaymentRow], kept: Counter[str]) -> Iterator[Breach]:
    due = row.amount_minor_units if row.status is OrderStatus.CONFIRMED else 0
    captured = sum(
        payment.amount_minor_units for payment in payments if payment.state is PaymentState.CAPTURED
    )
    at_provider = sum(kept[payment.key] for payment in payments)
    if not captured == at_provider == due:
        yield Breach(
            f"{row.status} {row.order_id}: {due} due, {captured} captured in the ledger,"
            f" {at_provider} kept by the provider"
        )


def _kept_by_provider(facts: Facts) -> Counter[str]:
    """What the provider has taken and not given back, by payment."""
    authorized: dict[str, int] = {}
    captured, refunded = set(), set()
    for entry, key, amount in facts.evidence.provider:
        match entry:
            case Entry.AUTHORIZED:
                authorized[key] = amount
            case Entry.CAPTURED:
                captured.add(key)
            case Entry.REFUNDED:
                refunded.add(key)
    # A capture that nobody had authorised takes what it never may, and counts as one unit astray.
    return Counter({key: authorized.get(key, 1) for key in captured - refunded})
