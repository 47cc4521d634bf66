"""All that the rules are held against: the history, the course, the looks, and the final books."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from onsale.chaos.history import History
from onsale.chaos.incidents import Course
from onsale.chaos.receiver import Message
from onsale.chaos.sales import Sale
from onsale.chaos.watcher import Look
from onsale.domain.order import OrderStatus
from onsale.domain.payment import PaymentState
from onsale.payments.books import ProviderLine, read_books
from onsale.sales.books import Audit, audit
from onsale.sales.service import Service

# Before the present second: at quiet every order must be in both stores, however young it is.
_NO_GRACE_SECONDS = -1.0

_ORDERS = """
SELECT o.event_id, o.id, o.buyer_id, o.status::text, o.amount_minor_units,
       o.created_at, o.expires_at, o.ended_at,
       ARRAY(SELECT t.id || ' ' || i.quantity FROM order_items i
             JOIN tiers t ON t.event_id = i.event_id AND t.number = i.tier_number
             WHERE i.event_id = o.event_id AND i.order_id = o.id) AS items
FROM orders o WHERE o.event_id = ANY($1::uuid[])
"""
_PAYMENTS = """
SELECT event_id, order_id, attempt, amount_minor_units, state::text FROM payments
WHERE event_id = ANY($1::uuid[])
"""


@dataclass(frozen=True, slots=True)
class Row:
    """An order as the ledger has it in the end; `items` are (tier id, quantity)."""

    event_id: str
    order_id: str
    buyer_id: str
    status: OrderStatus
    amount_minor_units: int
    created_at_seconds: float
    expires_at_seconds: float | None
    ended_at_seconds: float | None
    items: tuple[tuple[str, int], ...]


class PaymentRow(NamedTuple):
    """A payment attempt as the ledger has it in the end."""

    event_id: str
    order_id: str
    attempt: int
    amount_minor_units: int
    state: PaymentState

    @property
    def key(self) -> str:
        """Its name at the provider."""
        return f"{self.event_id}.{self.order_id}.{self.attempt}"


@dataclass(frozen=True, slots=True)
class Evidence:
    """See the module."""

    sales: tuple[Sale, ...]
    probe: Sale
    apis: tuple[str, ...]
    history: History
    course: Course
    looks: list[Look]
    audits: list[Audit]
    rows: list[Row]
    payments: list[PaymentRow]
    provider: list[ProviderLine]
    messages: list[Message]

    def sale(self, event_id: str) -> Sale:
        """The sale of an event."""
        return next(sale for sale in self.sales if sale.event_id == event_id)


async def audits_of(service: Service, sales: Sequence[Sale]) -> list[Audit]:
    """The books of every sale, as the audit has them. Raises `LedgerUnavailable`."""
    found = []
    for sale in sales:
        event = await service.events.get(sale.event_id)
        assert event is not None
        found.append(await audit(event, service.gate, service.ledger, _NO_GRACE_SECONDS))
    return found


async def rows_of(service: Service, sales: Sequence[Sale]) -> list[Row]:
    """Every order of the sales. Raises `LedgerUnavailable`."""
    async with service.database.driver("evidence") as connection:
        found = await connection.fetch(_ORDERS, [sale.event_id for sale in sales])
    return [
        Row(
            event_id=row["event_id"].hex,
            order_id=row["id"].hex,
            buyer_id=row["buyer_id"],
            status=OrderStatus(row["status"]),
            amount_minor_units=row["amount_minor_units"],
            created_at_seconds=row["created_at"].timestamp(),
            expires_at_seconds=_seconds(row["expires_at"]),
            ended_at_seconds=_seconds(row["ended_at"]),
            items=tuple(sorted(_item(text) for text in row["items"])),
        )
        for row in found
    ]


async def payments_of(service: Service, sales: Sequence[Sale]) -> list[PaymentRow]:
    """Every payment for the sales. Raises `LedgerUnavailable`."""
    async with service.database.driver("evidence") as connection:
        found = await connection.fetch(_PAYMENTS, [sale.event_id for sale in sales])
    return [
        PaymentRow(event_id.hex, order_id.hex, attempt, amount, PaymentState(state))
        for event_id, order_id, attempt, amount, state in found
    ]


def provider_lines(path: Path, sales: Sequence[Sale]) -> list[ProviderLine]:
    """What the provider did for the sales."""
    event_ids = {sale.event_id for sale in sales}
    return [line for line in read_books(path) if line.key.partition(".")[0] in event_ids]


def _seconds(moment: datetime | None) -> float | None:
    return moment.timestamp() if moment is not None else None


def _item(text: str) -> tuple[str, int]:
    tier, quantity = text.split()
    return tier, int(quantity)
