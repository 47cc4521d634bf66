"""The workers work on everything there is, so each of their tests finds both stores empty."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack

import pytest
from redis.asyncio import Redis
from sqlalchemy import text

from onsale.embedded import EmbeddedPostgres, EmbeddedValkey
from onsale.sales.service import Service
from onsale.settings import Settings
from tests.races.conftest import running
from tests.races.stores import own_stores


@pytest.fixture(scope="session")
def settings(postgres: EmbeddedPostgres, valkey: EmbeddedValkey) -> Iterator[Settings]:
    """Settings of processes on stores that only these tests use."""
    with own_stores(postgres, valkey, "workers", redis_db=3) as made:
        yield made


@pytest.fixture
async def redis(settings: Settings) -> AsyncIterator[Redis]:
    """The gate's server itself, for what happens behind the gate's back."""
    client = Redis.from_url(settings.redis_url)
    yield client
    await client.aclose()


@pytest.fixture(autouse=True)
async def empty_stores(service: Service, redis: Redis) -> None:
    """No events, no orders, no keys."""
    await redis.flushdb()
    async with service.database.transaction("test") as connection:
        await connection.execute(
            text(
                "TRUNCATE events, tiers, buyer_units, orders, order_items, payments,"
                " webhook_endpoints, webhook_deliveries"
            )
        )


@pytest.fixture
async def other(settings: Settings) -> AsyncIterator[Service]:
    """A second process."""
    async with running(settings) as made:
        yield made


@pytest.fixture
async def exits() -> AsyncIterator[AsyncExitStack]:
    """Closes in the end what a test opens on its way."""
    async with AsyncExitStack() as stack:
        yield stack
