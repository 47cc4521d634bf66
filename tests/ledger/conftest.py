"""A ledger of the room's own: sweeping acts on every event there is, and plans need many rows."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from onsale.embedded import EmbeddedPostgres
from onsale.ledger.engine import Database, create_engine
from onsale.ledger.events import Events
from onsale.ledger.ledger import Ledger
from onsale.ledger.migrations import migrate
from onsale.settings import Settings
from tests.ledger.books import MakeLedgers, execute


@pytest.fixture(scope="session")
def room(postgres: EmbeddedPostgres) -> Iterator[Settings]:
    """The settings of a process on a migrated database beside the session's."""
    execute(postgres.url, "CREATE DATABASE ledger_room")
    url = postgres.url_for("ledger_room")
    migrate(url)
    # Postgres looks for a deadlock after a second; a test that plants some cannot wait so long.
    execute(url, "ALTER DATABASE ledger_room SET deadlock_timeout = '20ms'")
    yield Settings(database_url=url)
    execute(postgres.url, "DROP DATABASE ledger_room WITH (FORCE)")


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[Database]:
    database = Database(create_engine(settings))
    try:
        yield database
    finally:
        await database.close()


@pytest.fixture
async def database(room: Settings) -> AsyncIterator[Database]:
    """One process's connections."""
    async with connected(room) as made:
        yield made


@pytest.fixture
def ledger(database: Database) -> Ledger:
    """Orders and payments."""
    return Ledger(database)


@pytest.fixture
def events(database: Database) -> Events:
    """Events and tiers."""
    return Events(database)


@pytest.fixture
async def make_ledgers(room: Settings) -> AsyncIterator[MakeLedgers]:
    """Ledgers of several processes, each with connections of its own."""
    async with AsyncExitStack() as stack:

        async def make(processes: int) -> list[Ledger]:
            return [
                Ledger(await stack.enter_async_context(connected(room))) for _ in range(processes)
            ]

        yield make
