"""A ledger that is short of something: connections, time, or a moment to start again.

What passes soon is waited out, and nobody notices; what lasts is `503 ledger_unavailable`, told at
once, and the same press places one order afterwards. Seen red with an outage that is not waited
out, and with one that everybody waits out for himself.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import asyncpg
import pytest
from sqlalchemy import event, text

from onsale.domain.errors import LedgerUnavailable
from onsale.domain.event import Event
from onsale.embedded import EmbeddedPostgres
from onsale.ledger.migrations import migrate
from onsale.sales.service import Service
from onsale.settings import Settings
from tests.faults.conftest import Stores
from tests.races.books import place
from tests.races.conftest import running
from tests.support import MakeEvent, live_orders, wait_until

CONNECTIONS_MAX = 12
# Longer than anything here takes, and than a test may.
PATIENT_SECONDS = 60.0


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A Postgres with few connections, none of them kept for superusers."""
    options = {"max_connections": f"{CONNECTIONS_MAX}", "superuser_reserved_connections": "0"}
    with EmbeddedPostgres(tmp_path_factory.mktemp("small") / "postgres", options=options) as server:
        migrate(server.url)
        yield server


@asynccontextmanager
async def process(settings: Settings, **changes: Any) -> AsyncIterator[Service]:
    """A process with other settings."""
    async with running(settings.model_copy(update=changes)) as made:
        yield made


async def assert_told_and_placed_after(
    service: Service, sale: Event, release: AsyncExitStack
) -> None:
    """A press is told to come again, and the same press after `release` places one order."""
    with pytest.raises(LedgerUnavailable):
        await place(service, sale.id, "buyer", "key", 1)
    await release.aclose()
    placed = await place(service, sale.id, "buyer", "key", 1)
    assert (await place(service, sale.id, "buyer", "key", 1)).id == placed.id
    assert await live_orders(service, sale.id) == 1


async def test_every_connection_of_the_pool_is_in_use(
    settings: Settings, make_event: MakeEvent
) -> None:
    sale = await make_event(5)
    changes = {"db_pool_size_max": 2, "db_pool_timeout_seconds": 0.2}
    async with process(settings, **changes) as service, AsyncExitStack() as release:
        await service.catalog.require(sale.id)
        for _ in range(2):
            await release.enter_async_context(service.database.driver("test"))
        await assert_told_and_placed_after(service, sale, release)


@pytest.mark.parametrize(
    "changes",
    [{"db_statement_timeout_seconds": 0.2}, {"db_lock_timeout_seconds": 0.2}],
    ids=["a statement takes too long", "a lock is not had in time"],
)
async def test_a_statement_does_not_end(
    settings: Settings, service: Service, make_event: MakeEvent, changes: dict[str, float]
) -> None:
    sale = await make_event(5)
    async with process(settings, **changes) as other, AsyncExitStack() as release:
        await other.catalog.require(sale.id)
        connection = await release.enter_async_context(service.database.transaction("test"))
        await connection.execute(
            text("SELECT FROM tiers WHERE event_id = :event FOR UPDATE"), {"event": sale.id}
        )
        await assert_told_and_placed_after(other, sale, release)


async def storm(server: EmbeddedPostgres, release: AsyncExitStack) -> None:
    """Others take every connection that there is."""
    while True:
        try:
            taken = await asyncpg.connect(server.url.replace("+asyncpg", "", 1))
        except asyncpg.TooManyConnectionsError:
            return
        release.push_async_callback(taken.close)


@pytest.mark.parametrize("patience_seconds", [0.1, PATIENT_SECONDS], ids=["lasts", "passes"])
async def test_others_have_every_connection(
    settings: Settings, small: EmbeddedPostgres, patience_seconds: float
) -> None:
    changes = {
        "database_url": small.url,
        "db_pool_size_max": 2,
        "db_outage_patience_seconds": patience_seconds,
    }
    async with AsyncExitStack() as release:
        # Before the process has any.
        await storm(small, release)
        async with process(settings, **changes) as service:
            await assert_storm_is_met(service, release, lasts=patience_seconds < 1)


async def assert_storm_is_met(service: Service, release: AsyncExitStack, *, lasts: bool) -> None:
    """It is told at once, or waited out, and it is over with `release`."""
    if lasts:
        for _ in range(5):
            with pytest.raises(LedgerUnavailable):
                await service.events.now()
        await release.aclose()
        await service.events.now()
    else:
        asking = asyncio.create_task(service.events.now())
        await wait_until(is_waiting(service))
        await release.aclose()
        await asking


def is_waiting(service: Service) -> Any:
    """Until the process has found that the ledger cannot be reached."""

    async def waits() -> bool:
        return service.database._unreachable_since_seconds is not None

    return waits


async def test_a_restart_is_waited_out(
    settings: Settings, stores: Stores, make_event: MakeEvent
) -> None:
    sale = await make_event(5)
    async with process(settings, db_outage_patience_seconds=PATIENT_SECONDS) as service:
        await service.catalog.require(sale.id)
        stores.postgres.kill()
        pressing = asyncio.create_task(place(service, sale.id, "buyer", "key", 1))
        await wait_until(is_waiting(service))
        await asyncio.to_thread(stores.postgres.start)
        await pressing
        assert await live_orders(service, sale.id) == 1


async def test_an_outage_is_waited_out_once_and_not_by_everybody(
    settings: Settings, stores: Stores
) -> None:
    """Counted in tries, not in time."""
    async with process(settings, db_outage_patience_seconds=0.3) as service:
        stores.postgres.kill()
        with pytest.raises(LedgerUnavailable):
            await service.events.now()
        tries = 0

        def count(*_: object) -> None:
            nonlocal tries
            tries += 1

        event.listen(service.database.engine.sync_engine, "do_connect", count)
        for _ in range(10):
            with pytest.raises(LedgerUnavailable):
                await service.events.now()
        # One each, and a few for connections of the pool that are found closed.
        assert tries < 20
