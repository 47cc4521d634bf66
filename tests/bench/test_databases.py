"""Databases of a variant's own: whose commits take longer, and nobody else's."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from onsale.bench.databases import make_database
from onsale.bench.errors import BenchError
from onsale.bench.probes import driver_url
from onsale.embedded import EmbeddedPostgres


@pytest.fixture(scope="module")
def without_a_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A server that does not wait for its disk, and so not for the delay either."""
    folder: Path = tmp_path_factory.mktemp("bench-databases") / "postgres"
    with EmbeddedPostgres(folder, options={"fsync": "off"}) as server:
        yield server


async def ask(url: str, query: str) -> Any:
    connection = await asyncpg.connect(driver_url(url))
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


def test_a_delay_that_does_not_delay_is_an_error(without_a_disk: EmbeddedPostgres) -> None:
    """The planted fault: without fsync Postgres ignores the delay, and says nothing."""
    with pytest.raises(BenchError, match=r"a commit in idle takes .* ms, not 50 ms"):
        make_database(without_a_disk, "idle", commit_delay_ms=50)


@pytest.fixture(scope="module")
def with_a_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    folder: Path = tmp_path_factory.mktemp("bench-databases") / "postgres"
    with EmbeddedPostgres(folder) as server:
        yield server


def test_commits_are_delayed_there_and_nowhere_else(with_a_disk: EmbeddedPostgres) -> None:
    """That they take as long is checked where the database is made."""
    delayed = make_database(with_a_disk, "delayed", commit_delay_ms=50)
    plain = make_database(with_a_disk, "plain")
    assert asyncio.run(ask(delayed, "SHOW commit_delay")) == "50000"
    assert asyncio.run(ask(delayed, "SHOW commit_siblings")) == "0"
    for url in (plain, with_a_disk.url):
        assert asyncio.run(ask(url, "SHOW commit_delay")) == "0"
