"""Real stores for every test: one embedded Postgres and one embedded Valkey for the session.

Each test has events of its own, so tests share the stores without sharing a sale. Tests that kill
a store start their own.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from onsale.domain.event import Event, PaymentKind
from onsale.embedded import EmbeddedPostgres, EmbeddedValkey
from onsale.http.app import Application, create_app
from onsale.ledger.events import NewEvent, NewTier
from onsale.ledger.migrations import migrate
from onsale.observability.runtime import stop
from onsale.sales.service import Service
from onsale.settings import Settings
from tests.support import SECRET, MakeEvent


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A migrated ledger."""
    folder: Path = tmp_path_factory.mktemp("ledger") / "postgres"
    with EmbeddedPostgres(folder) as server:
        migrate(server.url)
        yield server


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedValkey]:
    """An empty gate."""
    with EmbeddedValkey(tmp_path_factory.mktemp("gate") / "valkey") as server:
        yield server


@pytest.fixture(scope="session")
def settings(postgres: EmbeddedPostgres, valkey: EmbeddedValkey) -> Settings:
    """The settings of a process on the session's stores."""
    return Settings(
        database_url=postgres.url,
        redis_url=valkey.url,
        auth_secret=SecretStr(SECRET),
        metrics_port=0,
        worker_metrics_port=0,
        simulated_payment_slow_seconds=0.2,
        payment_timeout_seconds=0.5,
        # What is slow because the machine is busy is not what these tests are about.
        db_statement_timeout_seconds=30,
        db_lock_timeout_seconds=30,
    )


@pytest.fixture
async def service(settings: Settings) -> AsyncIterator[Service]:
    """A process's collaborators, its picture of the sales kept young as in the API."""
    made = Service.of(settings)
    young = asyncio.create_task(made.catalog.keep_young())
    try:
        yield made
    finally:
        await stop(young)
        await made.close()


@pytest.fixture
async def app(settings: Settings) -> AsyncIterator[Application]:
    """The API, started, in this process."""
    made = create_app(settings)
    async with made.api.router.lifespan_context(made.api):
        yield made


@pytest.fixture
async def client(app: Application) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the API in this process."""
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://onsale") as made:
        yield made


@pytest.fixture
def make_event(service: Service) -> MakeEvent:
    """Makes events that are on sale unless asked otherwise."""

    async def make(
        *capacities_units: int,
        payment: PaymentKind = PaymentKind.NONE,
        max_per_buyer_units: int = 0,
        hold_seconds: int = 600,
        opens_in: timedelta = timedelta(minutes=-1),
        closes_in: timedelta = timedelta(days=1),
    ) -> Event:
        now = datetime.now(UTC)
        return await service.organising.create(
            NewEvent(
                name="A night to test",
                venue=None,
                starts_at=now + timedelta(days=30),
                sale_opens_at=now + opens_in,
                sale_closes_at=now + closes_in,
                hold_seconds=hold_seconds,
                max_per_buyer_units=max_per_buyer_units,
                payment=payment,
                currency="EUR",
                tiers=tuple(
                    NewTier(f"t{number}", f"Tier {number}", 1_000 * number, capacity_units)
                    for number, capacity_units in enumerate(capacities_units or (100,), start=1)
                ),
            )
        )

    return make
