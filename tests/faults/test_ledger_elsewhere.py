"""A ledger that fails over to another address: a second host of the URL, or a name that moves.

Two real Postgres, the second on a copy of what the first had when it ended. Seen red with hosts
that share one time-out, with hosts that need not take writes, and with connections kept although
their server had said that it takes none.
"""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
from sqlalchemy import URL, make_url

from onsale.domain.errors import LedgerUnavailable
from onsale.domain.event import Event
from onsale.domain.order import Order
from onsale.embedded import EmbeddedPostgres
from onsale.ledger.migrations import migrate
from onsale.sales.service import Service
from onsale.settings import Settings
from tests.faults.conftest import Stores
from tests.races.books import place
from tests.races.conftest import running
from tests.races.stores import execute, settings_for
from tests.support import MakeEvent, live_orders, wait_until

CONNECTIONS = 4


class Pair(NamedTuple):
    """Two servers, and a name that leads to the first one now."""

    first: EmbeddedPostgres
    second: EmbeddedPostgres
    name: Path

    def copy(self) -> None:
        """The first ends, and the second has what it had."""
        self.first.stop()
        subprocess.run(
            ["cp", "-a", str(self.first.data_dir), str(self.second.data_dir)], check=True
        )

    def promote_second(self) -> None:
        """It is the ledger now, and the name leads there."""
        self.second.start()
        self.name.unlink()
        self.name.symlink_to(folder_of(self.second))

    def demote_first(self) -> None:
        """What a primary is that was told to be a standby: it answers, and takes no writes."""
        execute(
            self.first.url,
            "ALTER SYSTEM SET default_transaction_read_only = on",
            "SELECT pg_reload_conf()",
        )


def folder_of(server: EmbeddedPostgres) -> str:
    """Where its socket is: its host."""
    return str(make_url(server.url).query["host"])


def url_of(*hosts: str) -> str:
    """The ledger at any of these hosts."""
    query = {"host": tuple(f"{host}:5432" for host in hosts)}
    return str(URL.create("postgresql+asyncpg", "onsale", database="onsale", query=query))


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    """The first is up and migrated."""
    with EmbeddedPostgres(tmp_path / "first") as first:
        migrate(first.url)
        second, name = EmbeddedPostgres(tmp_path / "second"), tmp_path / "name"
        name.symlink_to(folder_of(first))
        try:
            yield Pair(first, second, name)
        finally:
            second.stop()


@pytest.fixture(params=["two hosts", "a name that moves"])
def settings(request: pytest.FixtureRequest, pair: Pair, stores: Stores) -> Settings:
    """Settings of a process that finds the ledger by either way."""
    both = (folder_of(pair.first), folder_of(pair.second))
    hosts = both if request.param == "two hosts" else (str(pair.name), str(pair.name))
    return settings_for(url_of(*hosts), stores.valkey.url)


@pytest.fixture
async def service(settings: Settings) -> AsyncIterator[Service]:
    async with running(settings) as made:
        yield made


@pytest.fixture(autouse=True)
def empty_stores() -> None:
    """They are new."""


async def assert_taken_elsewhere(service: Service, event: Event, earlier: Order) -> None:
    """Orders are taken again, and the earlier one is still known."""

    async def is_taken() -> bool:
        try:
            await place(service, event.id, "buyer-2", "press-1", 1)
        except LedgerUnavailable:
            return False
        return True

    await wait_until(is_taken)
    assert (await place(service, event.id, "buyer-1", "press-1", 1)).id == earlier.id
    assert await live_orders(service, event.id) == 2


async def in_all_connections(service: Service, setting: str) -> list[str]:
    """What a setting is in several sessions at once."""

    async def show() -> str:
        async with service.database.driver("test") as connection:
            await connection.execute("SELECT pg_sleep(0.05)")  # so that each has one of its own
            return str(await connection.fetchval(f"SHOW {setting}"))

    return await asyncio.gather(*(show() for _ in range(CONNECTIONS)))


async def test_the_ledger_is_gone_and_elsewhere(
    pair: Pair, service: Service, make_event: MakeEvent
) -> None:
    event = await make_event(10)
    earlier = await place(service, event.id, "buyer-1", "press-1", 1)
    await asyncio.to_thread(pair.copy)
    await asyncio.to_thread(pair.promote_second)
    await assert_taken_elsewhere(service, event, earlier)


async def test_the_ledger_became_a_standby(
    pair: Pair, service: Service, make_event: MakeEvent
) -> None:
    """It still answers on every connection of the pool."""
    event = await make_event(10)
    earlier = await place(service, event.id, "buyer-1", "press-1", 1)
    await asyncio.to_thread(pair.copy)
    await asyncio.to_thread(pair.first.start)

    async def takes_no_writes(answer: str) -> bool:
        try:
            found = await in_all_connections(service, "default_transaction_read_only")
        except LedgerUnavailable:
            return False
        return found == [answer] * CONNECTIONS

    await wait_until(partial(takes_no_writes, "off"))
    await asyncio.to_thread(pair.demote_first)
    await wait_until(partial(takes_no_writes, "on"))
    await asyncio.to_thread(pair.promote_second)
    await assert_taken_elsewhere(service, event, earlier)


async def test_a_silent_host_does_not_keep_the_next_one_from_being_asked(
    pair: Pair, stores: Stores, tmp_path: Path
) -> None:
    """As it is after a cut of the network: it takes connections, and says nothing."""
    silent = tmp_path / "silent"
    silent.mkdir()
    server = await asyncio.start_unix_server(lambda reader, writer: None, silent / ".s.PGSQL.5432")
    hosts = url_of(str(silent), folder_of(pair.first))
    asked = settings_for(hosts, stores.valkey.url).model_copy(
        update={"db_connect_timeout_seconds": 0.3}
    )
    async with server, running(asked) as service:
        assert await service.events.page(None, 1) == []
