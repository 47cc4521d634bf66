"""I10, the other half: whatever became of an order was told, at least once and under one id."""

from collections import defaultdict
from collections.abc import Iterator

from onsale.chaos.evidence import Row
from onsale.chaos.rules.facts import Facts
from onsale.chaos.rules.verdicts import Breach
from onsale.chaos.sales import Sale
from onsale.domain.order import OrderStatus


def not_told(facts: Facts) -> Iterator[Breach]:
    """What the receiver does not know, or knows twice over, or better than the ledger."""
    ids: dict[tuple[str, str], set[str]] = defaultdict(set)
    for message in facts.evidence.messages:
        ids[message.order_id, message.status].add(message.id)
    happened = {
        (row.order_id, str(status))
        for row in facts.evidence.rows
        for status in statuses_of(facts.evidence.sale(row.event_id), row)
    }
    for order_id, status in happened - ids.keys():
        yield Breach(f"{order_id}: nobody was told that it was {status}")
    for order_id, status in ids.keys() - happened:
        yield Breach(f"{order_id}: it was told to be {status}, which it never was")
    for (order_id, status), under in ids.items():
        if len(under) > 1:
            yield Breach(f"{order_id}: told to be {status} under {len(under)} ids")


def statuses_of(sale: Sale, row: Row) -> Iterator[OrderStatus]:
    """Every status that an order went through, by what it is in the end."""
    if row.status is OrderStatus.ABANDONED:
        return
    paid_at_once = sale.payment == "none"
    if not paid_at_once:
        yield OrderStatus.HELD
    if paid_at_once or row.status in (OrderStatus.CONFIRMED, OrderStatus.REFUNDED):
        yield OrderStatus.CONFIRMED
    if not row.status.live:
        yield row.status
