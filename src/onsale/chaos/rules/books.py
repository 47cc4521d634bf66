"""I1, I2 and I4: the books of both stores."""

from collections.abc import Iterator

from onsale.chaos.history import Outcome
from onsale.chaos.rules.facts import Facts
from onsale.chaos.rules.verdicts import Breach, Verdict, verdict
from onsale.chaos.sales import Sale
from onsale.domain.order import OrderStatus
from onsale.sales.books import Audit
from onsale.sales.invariants import Rule


def i1(facts: Facts) -> Verdict:
    """Both stores balance, hold the same live orders, and say the same of every tier."""

    def breaches() -> Iterator[Breach]:
        yield from _audited(facts, Rule.I1)
        for audit in facts.evidence.audits:
            yield from _left_at_both(audit)

    return verdict(Rule.I1, len(facts.evidence.rows), breaches())


def _left_at_both(audit: Audit) -> Iterator[Breach]:
    tiers = audit.gate.tiers if audit.gate else []
    at_gate = {tier.tier_number: tier.available_units for tier in tiers}
    for number, tier in enumerate(audit.ledger, start=1):
        in_ledger = tier.counted.available_units
        if at_gate.get(number) != in_ledger:
            yield Breach(
                f"{tier.counted.tier_id}: {at_gate.get(number)} left at the gate,"
                f" {in_ledger} in the ledger"
            )


def i2(facts: Facts) -> Verdict:
    """Acknowledged ≤ ledger ≤ acknowledged and unknown, and at no look more than there is."""

    def breaches() -> Iterator[Breach]:
        yield from _audited(facts, Rule.I2)
        for sale in facts.evidence.sales:
            yield from _orders_known(facts, sale)
        for look in facts.evidence.looks:
            for books in look.books.values():
                for tier in books:
                    if tier.oversold_units or not tier.counted.balanced:
                        yield Breach(f"oversold: {tier}", look.at_seconds)

    return verdict(Rule.I2, len(facts.acknowledged), breaches())


def _orders_known(facts: Facts, sale: Sale) -> Iterator[Breach]:
    names = [name for name in facts.placed if name.event_id == sale.event_id]
    acknowledged = sum(name in facts.acknowledged for name in names)
    unknown = sum(
        name not in facts.acknowledged
        and any(op.outcome is Outcome.UNKNOWN for op in facts.placed[name])
        for name in names
    )
    written = sum(
        row.event_id == sale.event_id and row.status is not OrderStatus.ABANDONED
        for row in facts.evidence.rows
    )
    if not acknowledged <= written <= acknowledged + unknown:
        yield Breach(
            f"{sale.name}: {written} orders in the ledger, {acknowledged} acknowledged and"
            f" {unknown} unknown"
        )


def i4(facts: Facts) -> Verdict:
    """No buyer has more than the limit, in the end and at no look."""

    def breaches() -> Iterator[Breach]:
        yield from _audited(facts, Rule.I4)
        for look in facts.evidence.looks:
            for buyers in look.above_limit.values():
                for buyer in buyers:
                    yield Breach(f"{buyer.buyer_id} has {buyer.units} units", look.at_seconds)

    limited = {sale.event_id for sale in facts.evidence.sales if sale.max_per_buyer_units}
    buyers = {(name.event_id, name.buyer_id) for name in facts.placed if name.event_id in limited}
    return verdict(Rule.I4, len(buyers), breaches())


def _audited(facts: Facts, rule: Rule) -> Iterator[Breach]:
    """What the audit found in the end that breaks the rule."""
    for audit in facts.evidence.audits:
        for difference in audit.differences:
            if difference.rule is rule:
                yield Breach(f"{difference.kind} {difference.subject}: {difference.detail}")
