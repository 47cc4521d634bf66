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


def test_migrating_twice_changes_nothing(empty_database: str) -> None:
    migrate(empty_database)
    migrate(empty_database)
    assert asyncio.run(_differences(empty_database)) == []


def test_every_migration_limits_its_wait_for_locks() -> None:
    for script in ScriptDirectory.from_config(config("postgresql://nowhere")).walk_revisions():
        source = Path(script.path).read_text()
        assert source.count("SET LOCAL lock_timeout") == 2, script.path
