"""the ledger"""

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from alembic import op

revision: str = "0001"
down_revision: str | None = None
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    # A migration that cannot have its lock soon gives up rather than make a sale queue behind it.
    op.execute("SET LOCAL lock_timeout = '2s'")
    op.create_table(
        "events",
        sa.Column("id", sa.Uuid(as_uuid=False), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("venue", sa.Text(), nullable=True),
        sa.Column("starts_at", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("sale_opens_at", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("sale_closes_at", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("hold_seconds", sa.Integer(), nullable=False),
        sa.Column("max_per_buyer_units", sa.Integer(), nullable=False),
        sa.Column("payment", sa.Enum("none", "card", name="payment_kind"), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column(
            "switch",
            sa.Enum("open", "paused", "closed", name="sale_switch"),
            server_default="open",
            nullable=False,
        ),
        sa.Column(
            "created_at",
            postgresql.TIMESTAMP(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("version", sa.Integer(), server_default="1", nullable=False),
        sa.Column("gate_generation", sa.Integer(), server_default="0", nullable=False),
        sa.Column("gate_epoch", sa.Text(), nullable=True),
        sa.Column("gate_retired", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.CheckConstraint(
            "hold_seconds > 0 AND max_per_buyer_units >= 0", name=op.f("events_limits")
        ),
        sa.CheckConstraint("sale_opens_at < sale_closes_at", name=op.f("events_window")),
        sa.PrimaryKeyConstraint("id", name=op.f("events_pkey")),
    )
    op.create_table(
        "order_items",
        sa.Column("event_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("order_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("tier_number", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("quantity", sa.SmallInteger(), nullable=False),
        sa.CheckConstraint("quantity BETWEEN 1 AND 100", name=op.f("order_items_quantity")),
        sa.PrimaryKeyConstraint(
            "event_id", "order_id", "tier_number", name=op.f("order_items_pkey")
        ),
    )
    op.create_table(
        "orders",
        sa.Column("event_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("created_at", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("expires_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("confirmed_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("ended_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("fingerprint", sa.BigInteger(), nullable=False),
        sa.Column("amount_minor_units", sa.BigInteger(), nullable=False),
        sa.Column(
            "status",
            sa.Enum(
                "held",
                "confirmed",
                "released",
                "expired",
                "refunded",
                "abandoned",
                name="order_status",
            ),
            nullable=False,
        ),
        sa.Column("buyer_id", sa.Text(), nullable=False),
        sa.CheckConstraint(
            "(status IN ('held', 'confirmed')) = (ended_at IS NULL)", name=op.f("orders_ended")
        ),
        sa.CheckConstraint(
            "status <> 'held' OR expires_at IS NOT NULL", name=op.f("orders_hold_expires")
        ),
        sa.CheckConstraint("amount_minor_units >= 0", name=op.f("orders_amount")),
        sa.PrimaryKeyConstraint("event_id", "id", name=op.f("orders_pkey")),
    )
    op.create_index(
        "orders_by_buyer", "orders", ["buyer_id", "created_at", "event_id", "id"], unique=False
    )
    op.create_index(
        "orders_by_end",
        "orders",
        ["event_id", "ended_at"],
        unique=False,
        postgresql_where=sa.text("ended_at IS NOT NULL"),
    )
    op.create_index(
        "orders_due",
        "orders",
        ["expires_at"],
        unique=False,
        postgresql_where=sa.text("status = 'held'::order_status"),
    )
    op.create_table(
        "payments",
        sa.Column("event_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("order_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("attempt", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("method", sa.Text(), nullable=False),
        sa.Column("amount_minor_units", sa.BigInteger(), nullable=False),
        sa.Column(
            "state",
            sa.Enum(
                "started",
                "authorized",
                "captured",
                "declined",
                "void_due",
                "voided",
                "refund_due",
                "refunded",
                name="payment_state",
            ),
            nullable=False,
        ),
        sa.Column(
            "created_at",
            postgresql.TIMESTAMP(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column(
            "changed_at",
            postgresql.TIMESTAMP(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "attempt >= 1 AND amount_minor_units >= 0", name=op.f("payments_amount")
        ),
        sa.ForeignKeyConstraint(
            ["event_id", "order_id"],
            ["orders.event_id", "orders.id"],
            name=op.f("payments_event_id_order_id_fkey"),
        ),
        sa.PrimaryKeyConstraint("event_id", "order_id", "attempt", name=op.f("payments_pkey")),
    )
    op.create_index(
        "payments_one_open",
        "payments",
        ["event_id", "order_id"],
        unique=True,
        postgresql_where=sa.text("state IN ('started', 'authorized', 'captured')"),
    )
    op.create_index(
        "payments_to_settle",
        "payments",
        ["changed_at"],
        unique=False,
        postgresql_where=sa.text("state IN ('started', 'authorized', 'void_due', 'refund_due')"),
    )
    op.create_table(
        "tiers",
        sa.Column("event_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("number", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("price_minor_units", sa.BigInteger(), nullable=False),
        sa.Column("capacity", sa.Integer(), nullable=False),
        sa.Column("reserved", sa.Integer(), server_default="0", nullable=False),
        sa.Column("sold", sa.Integer(), server_default="0", nullable=False),
        sa.CheckConstraint(
            "0 <= sold AND sold <= reserved AND reserved <= capacity", name=op.f("tiers_stock")
        ),
        sa.CheckConstraint("number BETWEEN 1 AND 255", name=op.f("tiers_number")),
        sa.CheckConstraint("price_minor_units >= 0", name=op.f("tiers_price")),
        sa.ForeignKeyConstraint(["event_id"], ["events.id"], name=op.f("tiers_event_id_fkey")),
        sa.PrimaryKeyConstraint("event_id", "number", name=op.f("tiers_pkey")),
        sa.UniqueConstraint("event_id", "id", name=op.f("tiers_event_id_id_key")),
        postgresql_with={"fillfactor": "20"},
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '2s'")
    for table in ("payments", "order_items", "orders", "tiers", "events"):
        op.drop_table(table)
    for kind in ("payment_state", "order_status", "sale_switch", "payment_kind"):
        op.execute(f"DROP TYPE {kind}")
