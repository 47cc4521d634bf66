"""Stores that may be killed: a Postgres and a Valkey of this room's own, up again for each test."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import NamedTuple

import pytest
from redis.asyncio import Redis
from sqlalchemy import text

from onsale.domain.event import Event
from onsale.embedded import EmbeddedPostgres, EmbeddedValkey
from onsale.ledger.migrations import migrate
from onsale.sales.service import Service
from onsale.settings import Settings
from onsale.workers.reconciler import Reconciler
from tests.races.api import Api
from tests.races.books import audit_at_quiet
from tests.races.conftest import running
from tests.races.stores import settings_for
from tests.support import count_rows, wait_until


class Stores(NamedTuple):
    """Both stores; `kill`, `stop` and `start` them as the fault has it."""

    postgres: EmbeddedPostgres
    valkey: EmbeddedValkey


@pytest.fixture(scope="session")
def _started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores]:
    folder = tmp_path_factory.mktemp("faults")
    with EmbeddedPostgres(folder / "postgres") as postgres, EmbeddedValkey(folder / "valkey") as v:
        migrate(postgres.url)
        yield Stores(postgres, v)


@pytest.fixture(scope="session")
def settings(_started: Stores) -> Settings:
    """Settings of processes on these stores, and of a reconciler that does not wait long."""
    made = settings_for(_started.postgres.url, _started.valkey.url)
    return made.model_copy(update={"reconciler_grace_seconds": 0.5})


@pytest.fixture
def stores(_started: Stores) -> Iterator[Stores]:
    """Both of them up, before the test and after."""
    yield _started
    for store in _started:
        if not store.is_running:
            store.start()


@pytest.fixture
async def redis(settings: Settings, stores: Stores) -> AsyncIterator[Redis]:
    """The gate's server itself."""
    client = Redis.from_url(settings.redis_url)
    yield client
    await client.aclose()


@pytest.fixture(autouse=True)
async def empty_stores(stores: Stores, service: Service, redis: Redis) -> None:
    """No events, no orders, no keys."""
    await redis.flushdb()
    async with service.database.transaction("test") as connection:
        await connection.execute(
            text("TRUNCATE events, tiers, buyer_units, orders, order_items, payments")
        )


@pytest.fixture
async def other(settings: Settings, stores: Stores) -> AsyncIterator[Service]:
    """A second process."""
    async with running(settings) as made:
        yield made


@pytest.fixture(scope="session")
async def _served(
    settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Api]:
    async with Api(settings, tmp_path_factory.mktemp("api"), workers=2) as api:
        yield api


@pytest.fixture
async def api(_served: Api, stores: Stores) -> Api:
    """Two API processes behind one port and a third that watches them, all well at the start."""
    await wait_until(_served.is_whole)
    return _served


async def admitted_by_ledger(service: Service, event: Event) -> int:
    """How many orders the ledger admitted alone, of which the gate has not been told."""
    return await count_rows(
        service, "SELECT count(*) FROM orders WHERE event_id = :event AND unheard", event=event.id
    )


async def reconcile(service: Service, event_id: str) -> None:
    """Let the reconciler pass until the books balance, as it does all day long.

    As this process sees them: to another the gate may be one to leave alone for a moment more.
    """
    reconciler = Reconciler(service)

    async def balanced() -> bool:
        await asyncio.gather(reconciler.run_once(full=True), return_exceptions=True)
        return (await audit_at_quiet(service, event_id)).balanced

    await wait_until(balanced)
