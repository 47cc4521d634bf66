"""A small sound history, from which one thing at a time is taken."""

from datetime import UTC, datetime, timedelta

from onsale.chaos.evidence import Evidence, PaymentRow, Row
from onsale.chaos.history import History, Kind, Operation, OrderName, Outcome
from onsale.chaos.incidents import Course, Incident
from onsale.chaos.receiver import Message
from onsale.chaos.sales import Sale
from onsale.chaos.watcher import Look
from onsale.domain.event import Event, PaymentKind, SaleSwitch
from onsale.domain.ids import order_id
from onsale.domain.order import OrderStatus
from onsale.domain.payment import PaymentState
from onsale.domain.tier import Tier, TierBooks
from onsale.gate.gate import GateBooks, GateTierBooks
from onsale.ledger.ledger import LedgerTierBooks
from onsale.payments.books import Entry, ProviderLine
from onsale.sales.books import Audit, Comparison
from onsale.sales.invariants import Difference

EVENT, PROBE = "e" * 32, "b" * 32
T = 1_000_000.0
HOLD_SECONDS = 4

CARD = Sale(EVENT, "card", "card", {"ga": 10}, max_per_buyer_units=4, hold_seconds=HOLD_SECONDS)
FREE = Sale(PROBE, "probe", "none", {"ga": 100}, max_per_buyer_units=0, hold_seconds=600)


def id_of(name: OrderName) -> str:
    return order_id(*name).hex()


PAID, FORGOTTEN, REFUSED = (OrderName(EVENT, buyer, "press-1") for buyer in ("ann", "bob", "cid"))


def operation(kind: Kind, name: OrderName, at: float, **more: object) -> Operation:
    """One that went well, a tenth of a second long."""
    fields: dict[str, object] = {
        "outcome": Outcome.OK,
        "answered_at_seconds": T + at + 0.1,
        "status": 200,
        "items": (("ga", 1),) if kind is Kind.PLACE else (),
        "order_id": id_of(name),
    }
    return Operation(kind, "api-1", name, T + at, **(fields | more))  # type: ignore[arg-type]


def refused(name: OrderName, at: float, code: str = "sold_out", status: int = 409) -> Operation:
    return operation(
        Kind.PLACE, name, at, outcome=Outcome.FAILED, status=status, code=code, order_id=None
    )


def probe(number: int, at: float) -> tuple[Operation, Row, Message]:
    """An order of the sale that cannot sell out: asked for, in the ledger, told."""
    name = OrderName(PROBE, f"probe-{number}", "press-1")
    asked = operation(Kind.PLACE, name, at, order_status="confirmed")
    order = row(name, FREE, OrderStatus.CONFIRMED, at)
    return asked, order, Message(f"m-{order.order_id}", order.order_id, "confirmed")


def row(name: OrderName, sale: Sale, status: OrderStatus, at: float) -> Row:
    expired = status is OrderStatus.EXPIRED
    return Row(
        name.event_id,
        id_of(name),
        name.buyer_id,
        status,
        1_000,
        created_at_seconds=T + at,
        expires_at_seconds=T + at + sale.hold_seconds if expired else None,
        ended_at_seconds=T + at + sale.hold_seconds + 0.2 if expired else None,
        items=(("ga", 1),),
    )


def books(capacity: int, sold: int) -> LedgerTierBooks:
    return LedgerTierBooks(TierBooks("ga", capacity, capacity - sold, 0, sold), sold, sold)


def audit(sale: Sale, sold: int, *differences: Difference) -> Audit:
    capacity = sale.capacities_units["ga"]
    now = datetime.now(UTC)
    event = Event(
        id=sale.event_id,
        name=sale.name,
        venue=None,
        starts_at=now,
        sale_opens_at=now,
        sale_closes_at=now + timedelta(days=1),
        hold_seconds=sale.hold_seconds,
        max_per_buyer_units=sale.max_per_buyer_units,
        payment=PaymentKind(sale.payment),
        currency="EUR",
        switch=SaleSwitch.OPEN,
        tiers=(Tier("ga", 1, "ga", 1_000, capacity),),
        created_at=now,
    )
    gate = GateBooks(sold, [GateTierBooks(1, capacity, capacity - sold, sold)])
    return Audit(event, [books(capacity, sold)], gate, Comparison(), list(differences))


def look(at: float, sold: int = 10) -> Look:
    return Look(T + at, {EVENT: [books(10, sold)]}, {EVENT: []}, [])


def sound() -> Evidence:
    """Ann paid, Bob forgot to, Cid was refused; a crash of Postgres from 20 to 21, mended."""
    probes = [probe(number, at) for number, at in enumerate((1, 19, 21.5, 30))]
    payment = PaymentRow(EVENT, id_of(PAID), 1, 1_000, PaymentState.CAPTURED)
    operations = [
        operation(Kind.PLACE, PAID, 2.0, order_status="held"),
        operation(Kind.PLACE, FORGOTTEN, 2.1, order_status="held"),
        operation(Kind.PAY, PAID, 2.5, order_status="confirmed", method="ok"),
        operation(Kind.PLACE, PAID, 3.0, order_status="confirmed"),
        refused(PAID, 3.5, "idempotency_key_reused", 422),
        operation(Kind.READ, PAID, 4.0, order_status="confirmed"),
        operation(Kind.LIST, PAID, 4.1, order_id=None, listed=(id_of(PAID),)),
        refused(REFUSED, 4.2),
    ]
    operations[4].items = (("ga", 2),)
    every = sorted(
        [*operations, *(asked for asked, _, _ in probes)], key=lambda op: op.invoked_at_seconds
    )
    told = {PAID: ("held", "confirmed"), FORGOTTEN: ("held", "expired")}
    return Evidence(
        sales=(CARD, FREE),
        probe=FREE,
        apis=("api-1",),
        history=History(every),
        course=Course([Incident("kill-postgres", T + 20, T + 21, ledger_crashed=True)]),
        looks=[look(at / 4) for at in range(160)],
        audits=[audit(CARD, 1), audit(FREE, 4)],
        rows=[
            row(PAID, CARD, OrderStatus.CONFIRMED, 2.0),
            row(FORGOTTEN, CARD, OrderStatus.EXPIRED, 2.1),
            *(order for _, order, _ in probes),
        ],
        payments=[payment],
        provider=[
            ProviderLine(Entry.AUTHORIZED, payment.key, 1_000),
            ProviderLine(Entry.CAPTURED, payment.key, 0),
        ],
        messages=[
            *(
                Message(f"{id_of(name)}-{status}", id_of(name), status)
                for name, statuses in told.items()
                for status in statuses
            ),
            *(message for _, _, message in probes),
        ],
    )
