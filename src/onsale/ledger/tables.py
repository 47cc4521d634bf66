"""The ledger's tables. Their constraints state the invariants; every key leads with the event, so
that the tables can be partitioned or distributed by it.

Foreign keys stand where rows are few. On `orders` and `order_items` one statement writes the rows
of both and the tiers' counters together, and a row-by-row check of what it just read would be paid
by every buyer.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Enum,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, TIMESTAMP

from onsale.domain.event import PaymentKind, SaleSwitch
from onsale.domain.order import QUANTITY_PER_ITEM_MAX, OrderStatus
from onsale.domain.payment import PaymentState
from onsale.domain.webhook import DeliveryState

metadata = MetaData(
    naming_convention={
        "ix": "%(table_name)s_by_%(column_0_N_name)s",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ck": "%(table_name)s_%(constraint_name)s",
        "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
        "pk": "%(table_name)s_pkey",
    }
)

STOCK_CONSTRAINT = "tiers_stock"
LIMIT_CONSTRAINT = "buyer_units_limit"

_MOMENT = TIMESTAMP(timezone=True)


def _enum(
    values: type[PaymentKind | SaleSwitch | OrderStatus | PaymentState | DeliveryState], name: str
) -> Enum:
    return Enum(values, name=name, values_callable=lambda kinds: [kind.value for kind in kinds])


_ORDER_STATUS = _enum(OrderStatus, "order_status")

events = Table(
    "events",
    metadata,
    Column("id", Uuid(as_uuid=False), primary_key=True, server_default=text("uuidv7()")),
    Column("name", Text, nullable=False),
    Column("venue", Text),
    Column("starts_at", _MOMENT, nullable=False),
    Column("sale_opens_at", _MOMENT, nullable=False),
    Column("sale_closes_at", _MOMENT, nullable=False),
    Column("hold_seconds", Integer, nullable=False),
    Column("max_per_buyer_units", Integer, nullable=False),
    Column("payment", _enum(PaymentKind, "payment_kind"), nullable=False),
    Column("currency", Text, nullable=False),
    Column(
        "switch",
        _enum(SaleSwitch, "sale_switch"),
        nullable=False,
        server_default="open",
    ),
    Column("created_at", _MOMENT, nullable=False, server_default=text("now()")),
    # Counted up for every change of switch or capacity, so that the gate takes no older word.
    Column("version", Integer, nullable=False, server_default="1"),
    # Counted up for every loading of the gate, so that of two loadings the later one is known.
    Column("gate_generation", Integer, nullable=False, server_default="0"),
    Column("gate_epoch", Text),
    # Set once the sale is over, no hold is left and the books balanced.
    Column("gate_retired", Boolean, nullable=False, server_default=text("false")),
    CheckConstraint("sale_opens_at < sale_closes_at", name="window"),
    CheckConstraint("hold_seconds > 0 AND max_per_buyer_units >= 0", name="limits"),
)

tiers = Table(
    "tiers",
    metadata,
    Column("event_id", Uuid(as_uuid=False), ForeignKey("events.id"), primary_key=True),
    Column("number", SmallInteger, primary_key=True, autoincrement=False),
    Column("id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("price_minor_units", BigInteger, nullable=False),
    Column("capacity", Integer, nullable=False),
    # Units of live orders, and those of them that are confirmed.
    Column("reserved", Integer, nullable=False, server_default="0"),
    Column("sold", Integer, nullable=False, server_default="0"),
    UniqueConstraint("event_id", "id"),
    CheckConstraint("number BETWEEN 1 AND 255", name="number"),
    CheckConstraint("price_minor_units >= 0", name="price"),
    # The last line of defence against overselling.
    CheckConstraint("0 <= sold AND sold <= reserved AND reserved <= capacity", name="stock"),
    # Room on the page for the next version of a row that every batch of a sale rewrites.
    postgresql_with={"fillfactor": "20"},
)

orders = Table(
    "orders",
    metadata,
    Column("event_id", Uuid(as_uuid=False), primary_key=True),
    Column("id", Uuid(as_uuid=False), primary_key=True),
    Column("created_at", _MOMENT, nullable=False),
    Column("expires_at", _MOMENT),
    Column("confirmed_at", _MOMENT),
    Column("ended_at", _MOMENT),
    Column("fingerprint", BigInteger, nullable=False),
    Column("amount_minor_units", BigInteger, nullable=False),
    Column("status", _ORDER_STATUS, nullable=False),
    Column("buyer_id", Text, nullable=False),
    # Admitted by the ledger alone, and not known yet to have been told to the gate.
    Column("unheard", Boolean, nullable=False, server_default=text("false")),
    CheckConstraint("amount_minor_units >= 0", name="amount"),
    CheckConstraint("status <> 'held' OR expires_at IS NOT NULL", name="hold_expires"),
    CheckConstraint("(status IN ('held', 'confirmed')) = (ended_at IS NULL)", name="ended"),
)
Index(
    "orders_by_buyer",
    orders.c.buyer_id,
    orders.c.created_at,
    orders.c.event_id,
    orders.c.id,
)
Index(
    "orders_due",
    orders.c.expires_at,
    postgresql_where=orders.c.status == text("'held'::order_status"),
)
Index(
    "orders_by_end",
    orders.c.event_id,
    orders.c.ended_at,
    postgresql_where=orders.c.ended_at.is_not(None),
)

Index(
    "orders_unheard",
    orders.c.event_id,
    postgresql_where=orders.c.unheard,
)

# Units of live orders by buyer, for events with a limit. The gate decides by its own count; here is
# where orders meet that were admitted in different ways.
buyer_units = Table(
    "buyer_units",
    metadata,
    Column("event_id", Uuid(as_uuid=False), ForeignKey("events.id"), primary_key=True),
    Column("buyer_id", Text, primary_key=True),
    Column("units", Integer, nullable=False),
    Column("limit_units", Integer, nullable=False),
    CheckConstraint("0 <= units AND units <= limit_units", name="limit"),
)

order_items = Table(
    "order_items",
    metadata,
    Column("event_id", Uuid(as_uuid=False), primary_key=True),
    Column("order_id", Uuid(as_uuid=False), primary_key=True),
    Column("tier_number", SmallInteger, primary_key=True, autoincrement=False),
    Column("quantity", SmallInteger, nullable=False),
    CheckConstraint(f"quantity BETWEEN 1 AND {QUANTITY_PER_ITEM_MAX}", name="quantity"),
)

payments = Table(
    "payments",
    metadata,
    Column("event_id", Uuid(as_uuid=False), primary_key=True),
    Column("order_id", Uuid(as_uuid=False), primary_key=True),
    Column("attempt", SmallInteger, primary_key=True, autoincrement=False),
    Column("method", Text, nullable=False),
    Column("amount_minor_units", BigInteger, nullable=False),
    Column("state", _enum(PaymentState, "payment_state"), nullable=False),
    Column("created_at", _MOMENT, nullable=False, server_default=text("now()")),
    Column("changed_at", _MOMENT, nullable=False, server_default=text("now()")),
    ForeignKeyConstraint(["event_id", "order_id"], ["orders.event_id", "orders.id"]),
    CheckConstraint("attempt >= 1 AND amount_minor_units >= 0", name="amount"),
)
# At most one attempt of an order can lead to money: the others are over or on their way out.
Index(
    "payments_one_open",
    payments.c.event_id,
    payments.c.order_id,
    unique=True,
    postgresql_where=text("state IN ('started', 'authorized', 'captured')"),
)
Index(
    "payments_to_settle",
    payments.c.changed_at,
    postgresql_where=text("state IN ('started', 'authorized', 'void_due', 'refund_due')"),
)

webhook_endpoints = Table(
    "webhook_endpoints",
    metadata,
    Column("id", Uuid(as_uuid=False), primary_key=True, server_default=text("uuidv7()")),
    Column("url", Text, nullable=False),
    # Not hashed like a password: each message is signed with it.
    Column("secret", Text, nullable=False),
    # Told of every order that enters one of these.
    Column("statuses", ARRAY(_ORDER_STATUS), nullable=False),
    Column("created_at", _MOMENT, nullable=False, server_default=text("now()")),
    # Set when the receiver said that it is gone for good; nothing is written or sent until enabled.
    Column("disabled_at", _MOMENT),
    CheckConstraint("cardinality(statuses) > 0 AND 'abandoned' <> ALL (statuses)", name="statuses"),
)

# One message for each order that entered a status, and each endpoint that wants to know. Written
# by the statement that changes the order; a foreign key to the endpoint would fail a purchase whose
# endpoint is being removed, so deliveries outlive it, unseen, until they are purged.
webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("event_id", Uuid(as_uuid=False), primary_key=True),
    Column("order_id", Uuid(as_uuid=False), primary_key=True),
    Column("status", _ORDER_STATUS, primary_key=True),
    Column("endpoint_id", Uuid(as_uuid=False), primary_key=True),
    # The message's name at the receiver, the same at every attempt.
    Column("id", Uuid(as_uuid=False), nullable=False, server_default=text("uuidv7()")),
    Column("created_at", _MOMENT, nullable=False, server_default=text("now()")),
    Column("next_attempt_at", _MOMENT, nullable=False, server_default=text("now()")),
    Column("ended_at", _MOMENT),
    Column(
        "state", _enum(DeliveryState, "delivery_state"), nullable=False, server_default="pending"
    ),
    Column("attempts", SmallInteger, nullable=False, server_default="0"),
    Column("last_error", Text),
    CheckConstraint("(state = 'pending') = (ended_at IS NULL)", name="ended"),
    CheckConstraint("attempts >= 0", name="attempts"),
)
Index("webhook_deliveries_by_id", webhook_deliveries.c.id)
Index(
    "webhook_deliveries_due",
    webhook_deliveries.c.endpoint_id,
    webhook_deliveries.c.next_attempt_at,
    postgresql_where=text("state = 'pending'"),
)
Index(
    "webhook_deliveries_undelivered",
    webhook_deliveries.c.state,
    webhook_deliveries.c.id,
    postgresql_where=text("state <> 'delivered'"),
)
