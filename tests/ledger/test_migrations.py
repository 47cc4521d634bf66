"""The migrations and the declared tables agree, and every migration can be taken back."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine

from alembic import command
from onsale.embedded import EmbeddedPostgres
from onsale.ledger.migrations import config, migrate
from onsale.ledger.tables import metadata


@pytest.fixture
def empty_database(postgres: EmbeddedPostgres) -> Iterator[str]:
    """The url of an empty database beside the session's."""
    asyncio.run(_execute(postgres.url, "CREATE DATABASE migrations"))
    yield postgres.url_for("migrations")
    asyncio.run(_execute(postgres.url, "DROP DATABASE migrations WITH (FORCE)"))


async def _execute(url: str, statement: str) -> None:
    engine = create_async_engine(url, isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        await connection.execute(text(statement))
    await engine.dispose()


async def _differences(url: str) -> list[object]:
    def compare(connection: Connection) -> list[object]:
        return list(compare_metadata(MigrationContext.configure(connection), metadata))

    engine = create_async_engine(url)
    async with engine.connect() as connection:
        found = await connection.run_sync(compare)
    await engine.dispose()
    return found


async def _checks(url: str) -> dict[str, str]:
    engine = create_async_engine(url)
    async with engine.connect() as connection:
        rows = await connection.execute(
            text(
                "SELECT conname, pg_get_constraintdef(oid) AS definition"
                " FROM pg_constraint WHERE contype = 'c'"
            )
        )
    await engine.dispose()
    return {row.conname: row.definition for row in rows}


def test_migrated_and_declared_schema_agree(empty_database: str) -> None:
    assert asyncio.run(_differences(empty_database)), "an empty database has no tables"
    migrate(empty_database)
    assert asyncio.run(_differences(empty_database)) == []


def test_migrated_and_declared_checks_agree(empty_database: str) -> None:
    """Alembic does not compare CHECKs, and they are the last line of defence."""
    migrate(empty_database)
    migrated = asyncio.run(_checks(empty_database))
    command.downgrade(config(empty_database), "base")
    asyncio.run(_create_declared(empty_database))
    assert migrated == asyncio.run(_checks(empty_database))
    assert "tiers_stock" in migrated
    asyncio.run(_drop_declared(empty_database))


async def _create_declared(url: str) -> None:
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
    await engine.dispose()


async def _drop_declared(url: str) -> None:
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.run_sync(metadata.drop_all)
    await engine.dispose()


def test_every_migration_can_be_taken_back(empty_database: str) -> None:
    migrate(empty_database)
    command.downgrade(config(empty_database), "base")
    migrate(empty_database)
    assert asyncio.run(_differences(empty_database)) == []


_SALES_OF_BEFORE = (
    """
    INSERT INTO events (id, name, starts_at, sale_opens_at, sale_closes_at, hold_seconds,
                        max_per_buyer_units, payment, currency)
    SELECT id::uuid, 'A night', now(), now() - interval '1 d', now(), 600, units, 'none', 'EUR'
    FROM (VALUES (repeat('1', 32), 6), (repeat('2', 32), 0)) AS limits (id, units)
    """,
    """
    INSERT INTO orders (event_id, id, buyer_id, status, fingerprint, amount_minor_units,
                        created_at, expires_at, ended_at)
    SELECT events.id, gen_random_uuid(), buyer_id, status::order_status, 0, 0, now(), now(),
           CASE WHEN status NOT IN ('held', 'confirmed') THEN now() END
    FROM events, (VALUES ('ada', 'held'), ('ada', 'confirmed'), ('bob', 'confirmed'),
                         ('bob', 'released'), ('cyd', 'expired'), ('dan', 'refunded'),
                         ('', 'abandoned'), ('eve', 'held'), ('eve', 'held'), ('eve', 'confirmed'))
        AS bought (buyer_id, status)
    """,
    """
    INSERT INTO order_items
    SELECT event_id, id, number, number FROM orders, (VALUES (1), (2)) AS tiers (number)
    WHERE status <> 'abandoned'
    """,
)


def test_the_units_of_buyers_of_before_are_counted(empty_database: str) -> None:
    """Of the live orders of events with a limit. A buyer who is over it, as when nobody
    counted here, keeps what they have. Seen red without each of these, and with orders counted.
    """
    command.upgrade(config(empty_database), "0001")
    for statement in _SALES_OF_BEFORE:
        asyncio.run(_execute(empty_database, statement))
    migrate(empty_database)
    assert asyncio.run(_buyer_units(empty_database)) == {
        ("1" * 32, "ada", 6, 6),
        ("1" * 32, "bob", 3, 6),
        ("1" * 32, "eve", 9, 9),
    }


async def _buyer_units(url: str) -> set[tuple[str, str, int, int]]:
    engine = create_async_engine(url)
    async with engine.connect() as connection:
        rows = await connection.execute(
            text("SELECT event_id, buyer_id, units, limit_units FROM buyer_units")
        )
    await engine.dispose()
    return {(event_id.hex, *rest) for event_id, *rest in rows}


def test_migrating_twice_changes_nothing(empty_database: str) -> None:
    migrate(empty_database)
    migrate(empty_database)
    assert asyncio.run(_differences(empty_database)) == []


def test_every_migration_limits_its_wait_for_locks() -> None:
    for script in ScriptDirectory.from_config(config("postgresql://nowhere")).walk_revisions():
        source = Path(script.path).read_text()
        assert source.count("SET LOCAL lock_timeout") == 2, script.path
