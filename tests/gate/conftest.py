"""The gate's tests run on each server that the gate is promised to work on."""

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from onsale.embedded import EmbeddedValkey
from onsale.gate.gate import Gate
from onsale.settings import Settings

# The machine's assertions are to say what differed, as a test's do.
pytest.register_assert_rewrite("tests.gate.machine")

SERVERS = ("valkey", "redis")


@pytest.fixture(scope="session")
def redis_binary() -> Path:
    """Debian's Redis 7."""
    found = shutil.which("redis-server")
    if found is None:
        pytest.skip("no redis-server on the PATH: apt-get install redis-server")
    return Path(found)


@pytest.fixture(scope="session")
def redis_server(
    tmp_path_factory: pytest.TempPathFactory, redis_binary: Path
) -> Iterator[EmbeddedValkey]:
    """Debian's Redis 7, with the settings of the Valkey."""
    folder = tmp_path_factory.mktemp("gate") / "redis"
    with EmbeddedValkey(folder, binary=redis_binary) as server:
        yield server


@pytest.fixture(scope="session", params=SERVERS)
def server(request: pytest.FixtureRequest) -> EmbeddedValkey:
    """Each server in turn."""
    fixture = {"valkey": "valkey", "redis": "redis_server"}[request.param]
    found: EmbeddedValkey = request.getfixturevalue(fixture)
    return found


@pytest.fixture
async def gate(server: EmbeddedValkey) -> AsyncIterator[Gate]:
    """The gate's client, of one process."""
    made = Gate.connect(Settings(redis_url=server.url))
    yield made
    await made.close()


@pytest.fixture
async def redis(server: EmbeddedValkey) -> AsyncIterator[Redis]:
    """A client beside the gate's, to look at what is really there."""
    async with Redis.from_url(server.url, protocol=2) as client:
        yield client
