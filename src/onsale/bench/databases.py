"""Databases of a variant's own, so that their orders and their settings are nobody else's."""

import asyncio
from time import perf_counter
from typing import Any

import asyncpg

from onsale.bench.errors import BenchError
from onsale.bench.probes import driver_url
from onsale.embedded import EmbeddedPostgres

_COMMITS = 5


def make_database(postgres: EmbeddedPostgres, name: str, commit_delay_ms: int = 0) -> str:
    """A migrated, empty database like the one of `postgres.url`: its URL.

    Every commit waits for the delay before it is written to disk. Nobody may be connected to the
    original meanwhile. Raises `BenchError` when commits take no longer.
    """
    url = postgres.url_for(name)
    asyncio.run(_make(postgres.url_for("postgres"), name, commit_delay_ms))
    fastest_ms = asyncio.run(_fastest_commit_ms(url))
    if fastest_ms < commit_delay_ms:
        raise BenchError(f"a commit in {name} takes {fastest_ms:.1f} ms, not {commit_delay_ms} ms")
    return url


async def tidy(url: str) -> None:
    """Do now what a database does by itself after many writes, when somebody may be measured."""
    connection = await asyncpg.connect(driver_url(url))
    try:
        await connection.execute("VACUUM (ANALYZE)")
        await connection.execute("CHECKPOINT")
    finally:
        await connection.close()


async def _make(admin_url: str, name: str, commit_delay_ms: int) -> None:
    connection = await asyncpg.connect(driver_url(admin_url))
    try:
        await connection.execute(f"CREATE DATABASE {name} TEMPLATE onsale")
        if commit_delay_ms:
            await connection.execute(
                f"ALTER DATABASE {name} SET commit_delay = {commit_delay_ms * 1000}"
            )
            # Also when nobody else is about to commit, as a disk does.
            await connection.execute(f"ALTER DATABASE {name} SET commit_siblings = 0")
    finally:
        await connection.close()


async def _fastest_commit_ms(url: str) -> float:
    connection: Any = await asyncpg.connect(driver_url(url))
    try:
        return min([await _commit_ms(connection) for _ in range(_COMMITS)])
    finally:
        await connection.close()


async def _commit_ms(connection: Any) -> float:
    started = perf_counter()
    await connection.execute("SELECT pg_logical_emit_message(true, 'bench', '')")
    return (perf_counter() - started) * 1000
