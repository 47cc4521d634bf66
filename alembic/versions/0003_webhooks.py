"""webhooks"""

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_MOMENT = postgresql.TIMESTAMP(timezone=True)
_ORDER_STATUS = postgresql.ENUM(name="order_status", create_type=False)


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '2s'")
    op.create_table(
        "webhook_endpoints",
        sa.Column("id", sa.Uuid(as_uuid=False), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("secret", sa.Text(), nullable=False),
        sa.Column("statuses", postgresql.ARRAY(_ORDER_STATUS), nullable=False),
        sa.Column("created_at", _MOMENT, server_default=sa.text("now()"), nullable=False),
        sa.Column("disabled_at", _MOMENT, nullable=True),
        sa.CheckConstraint(
            "cardinality(statuses) > 0 AND 'abandoned' <> ALL (statuses)",
            name=op.f("webhook_endpoints_statuses"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("webhook_endpoints_pkey")),
    )
    op.create_table(
        "webhook_deliveries",
        sa.Column("event_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("order_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("status", _ORDER_STATUS, nullable=False),
        sa.Column("endpoint_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("id", sa.Uuid(as_uuid=False), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("created_at", _MOMENT, server_default=sa.text("now()"), nullable=False),
        sa.Column("next_attempt_at", _MOMENT, server_default=sa.text("now()"), nullable=False),
        sa.Column("ended_at", _MOMENT, nullable=True),
        sa.Column(
            "state",
            sa.Enum("pending", "delivered", "dead", name="delivery_state"),
            server_default="pending",
            nullable=False,
        ),
        sa.Column("attempts", sa.SmallInteger(), server_default="0", nullable=False),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.CheckConstraint("attempts >= 0", name=op.f("webhook_deliveries_attempts")),
        sa.CheckConstraint(
            "(state = 'pending') = (ended_at IS NULL)", name=op.f("webhook_deliveries_ended")
        ),
        sa.PrimaryKeyConstraint(
            "event_id",
            "order_id",
            "status",
            "endpoint_id",
            name=op.f("webhook_deliveries_pkey"),
        ),
    )
    op.create_index("webhook_deliveries_by_id", "webhook_deliveries", ["id"], unique=False)
    op.create_index(
        "webhook_deliveries_due",
        "webhook_deliveries",
        ["endpoint_id", "next_attempt_at"],
        unique=False,
        postgresql_where=sa.text("state = 'pending'"),
    )
    op.create_index(
        "webhook_deliveries_undelivered",
        "webhook_deliveries",
        ["state", "id"],
        unique=False,
        postgresql_where=sa.text("state <> 'delivered'"),
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '2s'")
    for table in ("webhook_deliveries", "webhook_endpoints"):
        op.drop_table(table)
    op.execute("DROP TYPE delivery_state")
