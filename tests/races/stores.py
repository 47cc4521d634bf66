"""Stores of one's own beside the session's: a database, and a numbered space of the gate.

The reconciler and the sweeper work on every event there is, so a room that runs them has its own.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import SecretStr
from redis import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from onsale.embedded import EmbeddedPostgres, EmbeddedValkey
from onsale.ledger.migrations import migrate
from onsale.settings import Settings
from tests.support import SECRET


@contextmanager
def own_stores(
    postgres: EmbeddedPostgres, valkey: EmbeddedValkey, name: str, redis_db: int
) -> Iterator[Settings]:
    """The settings of a process on a migrated database `name` and on the gate's `redis_db`."""
    redis_url = valkey.url.replace("db=0", f"db={redis_db}")
    with own_database(postgres, name) as url:
        yield settings_for(url, redis_url)
    with Redis.from_url(redis_url) as redis:
        redis.flushdb()


@contextmanager
def own_database(postgres: EmbeddedPostgres, name: str) -> Iterator[str]:
    """The URL of a migrated database `name`."""
    execute(postgres.url, f"CREATE DATABASE {name}")
    url = postgres.url_for(name)
    migrate(url)
    yield url
    execute(postgres.url, f"DROP DATABASE {name} WITH (FORCE)")


def settings_for(database_url: str, redis_url: str) -> Settings:
    """As the session's settings, on other stores."""
    return Settings(
        database_url=database_url,
        redis_url=redis_url,
        auth_secret=SecretStr(SECRET),
        metrics_port=0,
        worker_metrics_port=0,
        simulated_payment_slow_seconds=0.2,
        payment_timeout_seconds=0.5,
    )


def execute(url: str, *statements: str) -> None:
    """Run statements, each a transaction of its own."""

    async def run() -> None:
        engine = create_async_engine(url, isolation_level="AUTOCOMMIT")
        async with engine.connect() as connection:
            for statement in statements:
                await connection.execute(text(statement))
        await engine.dispose()

    asyncio.run(run())
