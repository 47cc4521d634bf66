"""The schema states the invariants: what must not be, cannot be written down by anybody."""

from typing import Any

import pytest
from sqlalchemy import text

from onsale.domain.event import PaymentKind, SaleSwitch
from onsale.domain.order import OrderStatus
from onsale.domain.payment import PaymentState
from onsale.domain.webhook import DeliveryState
from onsale.ledger.engine import ConstraintRefused, Database
from onsale.ledger.events import Events
from onsale.ledger.ledger import Ledger
from tests.ledger.books import new_event, request

# A message to an endpoint that need not be there.
_DELIVERY = (
    "INSERT INTO webhook_deliveries (event_id, order_id, status, endpoint_id)"
    " SELECT :e, :o, 'held', '00000000-0000-7000-8000-000000000001'::uuid"
)

# By constraint: direct statements that violate it, on event :e with tiers 1 and 2 of 10 units and
# the held order :o of one unit of tier 1.
VIOLATIONS = {
    "events_window": [
        "UPDATE events SET sale_closes_at = sale_opens_at WHERE id = :e",
        "UPDATE events SET sale_closes_at = sale_opens_at - interval '1 s' WHERE id = :e",
    ],
    "events_limits": [
        "UPDATE events SET hold_seconds = 0 WHERE id = :e",
        "UPDATE events SET max_per_buyer_units = -1 WHERE id = :e",
    ],
    "tiers_number": [
        "UPDATE tiers SET number = 0 WHERE event_id = :e AND number = 2",
        "UPDATE tiers SET number = 256 WHERE event_id = :e AND number = 2",
    ],
    "tiers_price": ["UPDATE tiers SET price_minor_units = -1 WHERE event_id = :e"],
    "tiers_stock": [
        "UPDATE tiers SET reserved = 11 WHERE event_id = :e",
        "UPDATE tiers SET reserved = -1 WHERE event_id = :e",
        "UPDATE tiers SET sold = -1 WHERE event_id = :e",
        "UPDATE tiers SET sold = reserved + 1 WHERE event_id = :e",
        "UPDATE tiers SET capacity = 0 WHERE event_id = :e AND number = 1",
        "UPDATE tiers SET capacity = -1 WHERE event_id = :e",
    ],
    "tiers_event_id_id_key": ["UPDATE tiers SET id = 't1' WHERE event_id = :e"],
    "tiers_pkey": ["UPDATE tiers SET number = 2 WHERE event_id = :e AND number = 1"],
    "tiers_event_id_fkey": ["DELETE FROM events WHERE id = :e"],
    "buyer_units_limit": [
        f"INSERT INTO buyer_units VALUES (:e, 'buyer', {units}, 4)" for units in (-1, 5)
    ],
    "buyer_units_pkey": ["INSERT INTO buyer_units VALUES (:e, 'buyer', 0, 4), (:e, 'buyer', 0, 4)"],
    "buyer_units_event_id_fkey": [f"INSERT INTO buyer_units VALUES ('{'0' * 32}', 'buyer', 0, 4)"],
    "orders_amount": ["UPDATE orders SET amount_minor_units = -1 WHERE id = :o"],
    "orders_hold_expires": ["UPDATE orders SET expires_at = NULL WHERE id = :o"],
    "orders_ended": [
        "UPDATE orders SET ended_at = now() WHERE id = :o",
        *(
            f"UPDATE orders SET status = '{status}' WHERE id = :o"
            for status in ("released", "expired", "refunded", "abandoned")
        ),
    ],
    "orders_pkey": [
        "INSERT INTO orders (event_id, id, buyer_id, status, fingerprint, amount_minor_units,"
        " created_at, ended_at) VALUES (:e, :o, '', 'abandoned', 0, 0, now(), now())",
    ],
    "order_items_quantity": [
        "UPDATE order_items SET quantity = 0 WHERE order_id = :o",
        "UPDATE order_items SET quantity = -1 WHERE order_id = :o",
        "UPDATE order_items SET quantity = 101 WHERE order_id = :o",
    ],
    "order_items_pkey": ["INSERT INTO order_items VALUES (:e, :o, 1, 1)"],
    "payments_amount": [
        "INSERT INTO payments (event_id, order_id, attempt, method, amount_minor_units, state)"
        " VALUES (:e, :o, 0, 'ok', 1000, 'started')",
        "INSERT INTO payments (event_id, order_id, attempt, method, amount_minor_units, state)"
        " VALUES (:e, :o, 1, 'ok', -1, 'started')",
    ],
    "payments_pkey": [
        "INSERT INTO payments (event_id, order_id, attempt, method, amount_minor_units, state)"
        " SELECT :e, :o, 1, 'ok', 1000, 'declined' FROM generate_series(1, 2)",
    ],
    "payments_event_id_order_id_fkey": [
        "INSERT INTO payments (event_id, order_id, attempt, method, amount_minor_units, state)"
        " VALUES (:e, gen_random_uuid(), 1, 'ok', 1000, 'started')",
    ],
    "payments_one_open": [
        "INSERT INTO payments (event_id, order_id, attempt, method, amount_minor_units, state)"
        f" VALUES (:e, :o, 1, 'ok', 1000, '{first}'), (:e, :o, 2, 'ok', 1000, '{second}')"
        for first, second in (
            ("started", "started"),
            ("started", "authorized"),
            ("authorized", "captured"),
            ("captured", "captured"),
        )
    ],
    "webhook_endpoints_statuses": [
        f"INSERT INTO webhook_endpoints (url, secret, statuses) VALUES ('u', 's', '{statuses}')"
        for statuses in ("{}", "{abandoned}", "{held,abandoned}")
    ],
    "webhook_deliveries_pkey": [f"{_DELIVERY} FROM generate_series(1, 2)"],
    "webhook_deliveries_ended": [
        f"{_DELIVERY.replace('endpoint_id)', 'endpoint_id, state)')}, 'delivered'",
        f"{_DELIVERY.replace('endpoint_id)', 'endpoint_id, ended_at)')}, now()",
    ],
    "webhook_deliveries_attempts": [
        f"{_DELIVERY.replace('endpoint_id)', 'endpoint_id, attempts)')}, -1"
    ],
}
# Nothing is said by them that a violation could show: some ids are made by the database, and
# Alembic's own table is not ours.
NOT_SHOWN = {"events_pkey", "webhook_endpoints_pkey", "alembic_version_pkc"}


@pytest.mark.parametrize(
    ("constraint", "statement"),
    [(name, statement) for name, statements in VIOLATIONS.items() for statement in statements],
)
async def test_what_must_not_be_is_refused(
    database: Database, events: Events, ledger: Ledger, constraint: str, statement: str
) -> None:
    event = await new_event(events, 10, 10)
    order = request(event)
    await ledger.place([order])
    named = {"e": event.id, "o": order.order_id.hex()}
    with pytest.raises(ConstraintRefused) as refused:
        async with database.transaction("test") as connection:
            await connection.execute(
                text(statement), {name: named[name] for name in named if f":{name}" in statement}
            )
    assert refused.value.constraint == constraint


async def test_every_constraint_is_shown_to_refuse(database: Database) -> None:
    """A new one needs a violation above. What may be null is for the test of the migrations."""
    found = await _names(
        database,
        "SELECT conname FROM pg_constraint WHERE connamespace = 'public'::regnamespace"
        " AND contype <> 'n'"
        " UNION SELECT indexrelid::regclass::text FROM pg_index JOIN pg_class ON oid = indexrelid"
        " WHERE indisunique AND relnamespace = 'public'::regnamespace",
    )
    assert found - NOT_SHOWN == VIOLATIONS.keys()


async def test_every_primary_key_leads_with_the_event(database: Database) -> None:
    """So that a table can be partitioned or distributed by it."""
    rows = await _rows(
        database,
        "SELECT indrelid::regclass::text, attname FROM pg_index"
        " JOIN pg_attribute ON attrelid = indrelid AND attnum = indkey[0]"
        " JOIN pg_class ON pg_class.oid = indrelid"
        " WHERE indisprimary AND relnamespace = 'public'::regnamespace",
    )
    leading = dict(rows)
    assert leading.pop("alembic_version") == "version_num"
    assert leading.pop("events") == "id"
    assert leading.pop("webhook_endpoints") == "id", "few, and the same for every event"
    assert set(leading) == {
        "tiers",
        "orders",
        "order_items",
        "payments",
        "buyer_units",
        "webhook_deliveries",
    }
    assert set(leading.values()) == {"event_id"}


async def test_every_unique_key_holds_the_event(database: Database) -> None:
    """A distributed table can keep no other key unique."""
    rows = await _rows(
        database,
        "SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index"
        " JOIN pg_class ON pg_class.oid = indrelid"
        " WHERE indisunique AND relnamespace = 'public'::regnamespace"
        " AND relname NOT IN ('events', 'webhook_endpoints', 'alembic_version')",
    )
    assert rows
    assert all("(event_id" in definition for _, definition in rows), rows


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("payment_kind", PaymentKind),
        ("sale_switch", SaleSwitch),
        ("order_status", OrderStatus),
        ("payment_state", PaymentState),
        ("delivery_state", DeliveryState),
    ],
)
async def test_the_enums_are_the_domains(database: Database, name: str, values: Any) -> None:
    found = await _names(
        database, f"SELECT enumlabel FROM pg_enum WHERE enumtypid = '{name}'::regtype"
    )
    assert found == {value.value for value in values}


async def _rows(database: Database, query: str) -> list[tuple[str, str]]:
    async with database.transaction("test") as connection:
        return [tuple(row) for row in await connection.execute(text(query))]


async def _names(database: Database, query: str) -> set[str]:
    async with database.transaction("test") as connection:
        return set(await connection.scalars(text(query)))
