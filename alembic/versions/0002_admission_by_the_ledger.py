"""admission by the ledger"""

from collections.abc import Sequence

import sqlalchemy as sa

from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    # A migration that cannot have its lock soon gives up rather than make a sale queue behind it.
    op.execute("SET LOCAL lock_timeout = '2s'")
    op.add_column(
        "orders",
        sa.Column("unheard", sa.Boolean(), server_default=sa.text("false"), nullable=False),
    )
    op.create_index("orders_unheard", "orders", ["event_id"], postgresql_where=sa.text("unheard"))
    op.create_table(
        "buyer_units",
        sa.Column("event_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("buyer_id", sa.Text(), nullable=False),
        sa.Column("units", sa.Integer(), nullable=False),
        sa.Column("limit_units", sa.Integer(), nullable=False),
        sa.CheckConstraint("0 <= units AND units <= limit_units", name=op.f("buyer_units_limit")),
        sa.ForeignKeyConstraint(
            ["event_id"], ["events.id"], name=op.f("buyer_units_event_id_fkey")
        ),
        sa.PrimaryKeyConstraint("event_id", "buyer_id", name=op.f("buyer_units_pkey")),
    )
    # A gate that was lost at a bad moment may have let a buyer have more than the limit.
    op.execute("""
        INSERT INTO buyer_units (event_id, buyer_id, units, limit_units)
        SELECT o.event_id, o.buyer_id, sum(i.quantity),
               greatest(e.max_per_buyer_units, sum(i.quantity))
        FROM orders o
        JOIN events e ON e.id = o.event_id AND e.max_per_buyer_units > 0
        JOIN order_items i ON i.event_id = o.event_id AND i.order_id = o.id
        WHERE o.status IN ('held', 'confirmed')
        GROUP BY o.event_id, o.buyer_id, e.max_per_buyer_units
    """)


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '2s'")
    op.drop_table("buyer_units")
    op.drop_index("orders_unheard", "orders")
    op.drop_column("orders", "unheard")
