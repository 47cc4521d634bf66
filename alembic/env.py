"""Runs migrations against the database of the settings, one migrator at a time."""

import asyncio

from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine

from alembic import context
from onsale.ledger.tables import metadata
from onsale.settings import Settings

# An arbitrary number that only migrators of this project lock.
_MIGRATION_LOCK = 0x0E5A1E


def _run(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=metadata)
    with context.begin_transaction():
        # Held until the commit: a second migrator waits here and then finds nothing to do.
        connection.execute(text(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})"))
        context.run_migrations()


async def _run_online() -> None:
    url = context.config.attributes.get("database_url") or Settings().database_url
    engine = create_async_engine(url)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(_run)
    finally:
        await engine.dispose()


def _run_offline() -> None:
    url = context.config.attributes.get("database_url") or Settings().database_url
    context.configure(url=url, target_metadata=metadata, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()


if context.is_offline_mode():
    _run_offline()
else:
    asyncio.run(_run_online())
