"""What runs all the time reads by an index, however many orders there have been."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from hashlib import md5

import pytest

from onsale.domain.webhook import DeliveryState
from onsale.embedded import EmbeddedPostgres
from onsale.ledger.engine import Database, create_engine
from onsale.ledger.events import Events
from onsale.ledger.ledger import Ledger, OrderKey, PageMark
from onsale.ledger.migrations import migrate
from onsale.ledger.webhooks import Webhooks
from onsale.settings import Settings
from tests.ledger.books import execute
from tests.support import begin_payment, confirm

EVENTS, ORDERS = 10, 30_000
EVENT_ID = "00000000-0000-7000-8000-000000000001"
ENDPOINT_ID = "00000000-0000-7000-8000-000000000002"

# Sales of which most orders have ended, some are held and few are overdue.
FILL = (
    f"""
    INSERT INTO events (id, name, starts_at, sale_opens_at, sale_closes_at, hold_seconds,
                        max_per_buyer_units, payment, currency)
    SELECT ('00000000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid, 'A night', now(),
           now() - interval '1 d', now(), 600, 0, 'card', 'EUR'
    FROM generate_series(1, {EVENTS}) AS n
    """,
    f"""
    INSERT INTO orders (event_id, id, buyer_id, status, fingerprint, amount_minor_units,
                        created_at, expires_at, ended_at)
    SELECT events.id, md5(n::text)::uuid, 'buyer-' || n % 5000,
           CASE WHEN n % 30 = 0 THEN 'held' ELSE 'released' END::order_status, n, 1000,
           now() - interval '1 d', now() + n * interval '1 s' - interval '100 s',
           CASE WHEN n % 30 <> 0 THEN now() - n * interval '1 s' END
    FROM generate_series(1, {ORDERS}) AS n
    JOIN (SELECT id, row_number() OVER (ORDER BY id) AS at FROM events) AS events
      ON at = n / 30 % {EVENTS} + 1
    """,
    "INSERT INTO order_items SELECT event_id, id, 1, 1 FROM orders",
    """
    INSERT INTO payments (event_id, order_id, attempt, method, amount_minor_units, state,
                          changed_at)
    SELECT event_id, id, 1, 'ok', 1000,
           CASE WHEN fingerprint % 100 = 0 THEN 'authorized' ELSE 'voided' END::payment_state,
           now() - fingerprint * interval '1 s'
    FROM orders
    """,
    f"""
    INSERT INTO webhook_endpoints (id, url, secret, statuses)
    VALUES ('{ENDPOINT_ID}', 'https://receiver.example/', 'whsec_1', '{{held}}')
    """,
    f"""
    INSERT INTO webhook_deliveries (event_id, order_id, status, endpoint_id, state, ended_at)
    SELECT event_id, id, 'held', '{ENDPOINT_ID}', state,
           CASE WHEN state <> 'pending' THEN now() END
    FROM (SELECT *, (CASE fingerprint % 100 WHEN 0 THEN 'pending' WHEN 1 THEN 'dead'
                     ELSE 'delivered' END)::delivery_state AS state FROM orders) AS orders
    """,
    "ANALYZE",
)


@pytest.fixture(scope="module")
def filled(postgres: EmbeddedPostgres) -> Iterator[Settings]:
    """A ledger with many orders."""
    execute(postgres.url, "CREATE DATABASE ledger_plans")
    url = postgres.url_for("ledger_plans")
    migrate(url)
    execute(url, *FILL)
    # One connection: it tells its own counts when asked to.
    yield Settings(database_url=url, db_pool_size_max=1)
    execute(postgres.url, "DROP DATABASE ledger_plans WITH (FORCE)")


@pytest.fixture
async def database(filled: Settings) -> AsyncIterator[Database]:
    """Its connections, in place of the room's."""
    made = Database(create_engine(filled))
    yield made
    await made.close()


# How often each large table was read whole, and each of its indexes was used.
SCANS = """
SELECT relname || ' whole', seq_scan FROM pg_stat_user_tables
WHERE relname IN ('orders', 'order_items', 'payments', 'webhook_deliveries')
UNION ALL
SELECT indexrelname, idx_scan FROM pg_stat_user_indexes
WHERE relname IN ('orders', 'order_items', 'payments', 'webhook_deliveries')
"""

Reading = Callable[[Ledger], Awaitable[object]]


async def read_by(database: Database, reading: Callable[[], Awaitable[object]]) -> set[str]:
    """What was scanned by that, as Postgres counts it; the plan that ran, not one that might."""
    before = await scans(database)
    await reading()
    after = await scans(database)
    return {name for name in after if after[name] > before[name]}


async def scans(database: Database) -> dict[str, int]:
    async with database.driver("test") as connection:
        await connection.execute("SELECT pg_stat_force_next_flush()")
        return dict(await connection.fetch(SCANS))


async def read_next_page(ledger: Ledger) -> None:
    (last,) = await ledger.of_buyer("buyer-7", None, 1)
    await ledger.of_buyer("buyer-7", PageMark(last.created_at, last.event_id, last.id), 20)


async def read_live(ledger: Ledger) -> None:
    async for _ in ledger.live_orders(EVENT_ID):
        break


async def read_live_ids(ledger: Ledger) -> None:
    async for _ in ledger.live_ids(EVENT_ID):
        break


ORDER_ID = bytes(16)
KEY = OrderKey(EVENT_ID, ORDER_ID)
# One of those that are there; see how they are filled in.
KNOWN_KEY = OrderKey("00000000000070008000000000000002", md5(b"30").digest())

# What is read, and the index that it is read by first of all.
READINGS: dict[str, tuple[Reading, str]] = {
    "the sweeper": (lambda ledger: ledger.expire(2), "orders_due"),
    "its lag": (lambda ledger: ledger.oldest_overdue_seconds(), "orders_due"),
    "a buyer's orders": (lambda ledger: ledger.of_buyer("buyer-7", None, 20), "orders_by_buyer"),
    "their next page": (read_next_page, "orders_by_buyer"),
    "what ended lately": (lambda ledger: ledger.ended_within(EVENT_ID, 20), "orders_by_end"),
    "what is to be settled": (lambda ledger: ledger.payments_due(60, 100), "payments_to_settle"),
    "an order": (lambda ledger: ledger.get(KEY), "orders_pkey"),
    "known": (lambda ledger: ledger.known(EVENT_ID, [ORDER_ID]), "orders_pkey"),
    "live orders": (read_live, "orders_pkey"),
    "live ids": (read_live_ids, "orders_pkey"),
    "what the gate has not heard of": (
        lambda ledger: ledger.unheard(EVENT_ID, 9),
        "orders_unheard",
    ),
    "releasing": (lambda ledger: ledger.release(KEY, "buyer-7"), "orders_pkey"),
    "refunding": (lambda ledger: ledger.refund(KEY), "orders_pkey"),
    "beginning to pay": (lambda ledger: begin_payment(ledger, KEY, "b", "ok"), "orders_pkey"),
    # Whether it is being paid is looked up before the order itself.
    "confirming": (lambda ledger: confirm(ledger, KNOWN_KEY, 1), "payments_one_open"),
}


@pytest.mark.parametrize("what", READINGS)
async def test_it_is_read_by_its_index(database: Database, what: str) -> None:
    reading, index = READINGS[what]
    scanned = await read_by(database, lambda: reading(Ledger(database)))
    assert index in scanned
    assert not [name for name in scanned if name.endswith(" whole")]


async def test_whether_the_gate_has_not_heard_of_orders_is_read_by_their_index(
    database: Database,
) -> None:
    """Every process asks this four times in the age of a picture."""
    scanned = await read_by(database, lambda: Events(database).with_unheard([EVENT_ID]))
    assert "orders_unheard" in scanned
    assert not [name for name in scanned if name.endswith(" whole")]


WEBHOOK_READINGS: dict[str, tuple[Callable[[Webhooks], Awaitable[object]], str]] = {
    "endpoints due": (lambda webhooks: webhooks.endpoints_due(), "webhook_deliveries_due"),
    "claiming": (lambda webhooks: webhooks.claim(ENDPOINT_ID, 8, 60), "webhook_deliveries_due"),
    "delivered": (
        lambda webhooks: webhooks.mark_delivered([EVENT_ID]),
        "webhook_deliveries_undelivered",
    ),
    "failed": (
        lambda webhooks: webhooks.mark_failed(EVENT_ID, 1, "", 1),
        "webhook_deliveries_undelivered",
    ),
    "the first page": (lambda webhooks: webhooks.page(None, None, 20), "webhook_deliveries_by_id"),
    "dead letters": (
        lambda webhooks: webhooks.page(DeliveryState.DEAD, None, 20),
        "webhook_deliveries_undelivered",
    ),
    "what waits": (
        lambda webhooks: webhooks.page(DeliveryState.PENDING, None, 20),
        "webhook_deliveries_undelivered",
    ),
    "what was delivered": (
        lambda webhooks: webhooks.page(DeliveryState.DELIVERED, None, 20),
        "webhook_deliveries_by_id",
    ),
    "counting": (lambda webhooks: webhooks.count_undelivered(), "webhook_deliveries_undelivered"),
    "purging": (lambda webhooks: webhooks.purge(30, 100), "webhook_deliveries_by_id"),
}


@pytest.mark.parametrize("what", WEBHOOK_READINGS)
async def test_webhooks_are_read_by_their_index(database: Database, what: str) -> None:
    reading, index = WEBHOOK_READINGS[what]
    scanned = await read_by(database, lambda: reading(Webhooks(database)))
    assert index in scanned
    assert not [name for name in scanned if name.endswith(" whole")]


async def test_a_table_that_is_read_whole_is_found(database: Database) -> None:
    async def count() -> None:
        async with database.driver("test") as connection:
            await connection.fetchval("SELECT count(*) FROM orders WHERE fingerprint = 7")

    assert await read_by(database, count) == {"orders whole"}


# On sale since Postgres last looked at what there is.
NEW_ID = "10000000-0000-7000-8000-000000000001"
NEW_ORDERS = 1_000
FILL_NEW = (
    "ALTER TABLE orders SET (autovacuum_enabled = false)",
    "ALTER TABLE order_items SET (autovacuum_enabled = false)",
    f"""
    INSERT INTO events (id, name, starts_at, sale_opens_at, sale_closes_at, hold_seconds,
                        max_per_buyer_units, payment, currency)
    VALUES ('{NEW_ID}', 'A new night', now(), now() - interval '1 d', now(), 600, 1, 'none', 'EUR')
    """,
    f"""
    INSERT INTO tiers (event_id, number, id, name, price_minor_units, capacity, reserved, sold)
    VALUES ('{NEW_ID}', 1, 't1', 'Tier 1', 1000, {NEW_ORDERS}, {NEW_ORDERS}, {NEW_ORDERS})
    """,
    f"""
    INSERT INTO orders (event_id, id, buyer_id, status, fingerprint, amount_minor_units,
                        created_at, confirmed_at)
    SELECT '{NEW_ID}', md5(n::text)::uuid, 'buyer-' || n, 'confirmed', n, 1000, now(), now()
    FROM generate_series(1, {NEW_ORDERS}) AS n
    """,
    f"INSERT INTO order_items SELECT event_id, id, 1, 1 FROM orders WHERE event_id = '{NEW_ID}'",
)
READ_ENTRIES = """
SELECT sum(idx_tup_read)::int FROM pg_stat_user_indexes
WHERE relname IN ('orders', 'order_items', 'payments')
"""
ADDING_UP: dict[str, Reading] = {
    "books": lambda ledger: ledger.books(NEW_ID),
    "buyers above the limit": lambda ledger: ledger.buyers_above(NEW_ID, 1),
    "money": lambda ledger: ledger.money_astray(NEW_ID),
}


@pytest.fixture(scope="module")
def with_new(filled: Settings) -> None:
    execute(filled.database_url, *FILL_NEW)


async def read_entries(database: Database) -> int:
    async with database.driver("test") as connection:
        await connection.execute("SELECT pg_stat_force_next_flush()")
        return int(await connection.fetchval(READ_ENTRIES))


@pytest.mark.usefixtures("with_new")
@pytest.mark.parametrize("what", ADDING_UP)
async def test_an_event_that_statistics_do_not_know_is_added_up_order_by_order(
    database: Database, what: str
) -> None:
    """Postgres expects one order of it. Seen red with a plain join of orders and items, which read
    every item again for every order: an audit of 30,000 orders took longer than a statement may.
    """
    before = await read_entries(database)
    await ADDING_UP[what](Ledger(database))
    assert await read_entries(database) - before <= 4 * NEW_ORDERS
