"""Several processes upon one pair of stores: as services in this process, and as real ones."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from onsale.embedded import EmbeddedPostgres, EmbeddedValkey
from onsale.observability.runtime import stop
from onsale.sales.service import Service
from onsale.settings import Settings
from tests.races.api import Api
from tests.races.stores import execute, own_stores


@pytest.fixture(scope="session")
def settings(postgres: EmbeddedPostgres, valkey: EmbeddedValkey) -> Iterator[Settings]:
    """Settings of processes on stores that only the races use."""
    with own_stores(postgres, valkey, "races", redis_db=1) as made:
        # Postgres looks for a deadlock after a second; a test that plants some cannot wait so long.
        execute(made.database_url, "ALTER DATABASE races SET deadlock_timeout = '20ms'")
        yield made


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Service]:
    """A service with connections, batches and a picture of the sales of its own."""
    service = Service.of(settings)
    young = asyncio.create_task(service.catalog.keep_young())
    try:
        yield service
    finally:
        await stop(young)
        await service.close()


@pytest.fixture
async def exits() -> AsyncIterator[AsyncExitStack]:
    """Closes in the end what a test opens on its way."""
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
async def services(settings: Settings) -> AsyncIterator[list[Service]]:
    """Three services that know nothing of each other, as three processes would."""
    async with AsyncExitStack() as exits:
        yield [await exits.enter_async_context(running(settings)) for _ in range(3)]


@pytest.fixture(scope="session")
async def ports(
    settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[list[int]]:
    """The ports of two API processes: a crowd that takes them in turn is at both."""
    async with AsyncExitStack() as exits:
        apis = [Api(settings, tmp_path_factory.mktemp("api")) for _ in range(2)]
        await asyncio.gather(*(exits.enter_async_context(api) for api in apis))
        yield [api.port for api in apis]
