"""The weather on the way to a store: what a store and its client see of it."""

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from onsale.chaos.links import Links, Store
from onsale.chaos.proxy import Weather
from onsale.embedded import spawn_child, stop_child
from onsale.embedded.folders import runtime_folder
from tests.support import wait_until


class Echo:
    """A store that answers with what it is asked, and remembers it."""

    def __init__(self) -> None:
        self.heard = b""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1_024):
            self.heard += data
            writer.write(data)
        writer.close()

    async def has_heard(self) -> bool:
        return bool(self.heard)


@pytest.fixture
async def folder() -> AsyncIterator[Path]:
    """For sockets, whose names have to be short."""
    with tempfile.TemporaryDirectory(dir=runtime_folder()) as made:
        yield Path(made)


@pytest.fixture
async def echo(folder: Path) -> AsyncIterator[Echo]:
    made = Echo()
    server = await asyncio.start_unix_server(made.serve, folder / "echo")
    yield made
    server.close()


@pytest.fixture
async def links(folder: Path) -> AsyncIterator[Links]:
    made = Links(folder)
    proxy = spawn_child([sys.executable, "-m", "onsale.chaos.proxy", made.control_path])

    async def listens() -> bool:
        return made.control_path.exists()

    await wait_until(listens)
    yield made
    stop_child(proxy)


@pytest.fixture
async def way(echo: Echo, links: Links, folder: Path) -> str:
    """A link to the echo: where it listens."""
    url = await links.open("client", Store.GATE, f"unix://{folder / 'echo'}?db=0")
    return url.removeprefix("unix://").removesuffix("?db=0")


async def ask(
    way: str, question: bytes = b"hello"
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection on which something was asked."""
    reader, writer = await asyncio.open_unix_connection(way)
    writer.write(question)
    return reader, writer


async def test_in_fair_weather_everything_passes(way: str, echo: Echo) -> None:
    reader, writer = await ask(way)
    assert await reader.readexactly(5) == b"hello"
    writer.write_eof()
    assert await reader.read() == b""


async def test_slow_is_late_and_whole(way: str, links: Links) -> None:
    await links.set("client", Store.GATE, Weather(delay_seconds=0.05))
    reader, _ = await ask(way)
    assert await reader.readexactly(5) == b"hello"


async def test_cut_breaks_connections_and_refuses_new_ones(way: str, links: Links) -> None:
    reader, _ = await ask(way)
    assert await reader.readexactly(5) == b"hello"
    await links.set("client", Store.GATE, Weather(refuses=True), drop=True)
    assert await reader.read() == b""
    reader, _ = await ask(way)
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await reader.readexactly(5)


async def test_what_is_held_up_arrives_though_its_sender_has_gone(
    way: str, links: Links, echo: Echo
) -> None:
    """As the last words of a process that everybody has given up."""
    _, writer = await ask(way, b"")
    await links.set("client", Store.GATE, Weather(holds_requests=True, holds_answers=True))
    writer.write(b"late")
    writer.close()
    await writer.wait_closed()
    other, _ = await ask(way)
    assert echo.heard == b""
    await links.clear()
    assert await other.readexactly(5) == b"hello"
    await wait_until(echo.has_heard)
    assert b"late" in echo.heard


async def test_answers_alone_can_be_held_up(way: str, links: Links, echo: Echo) -> None:
    await links.set("client", Store.GATE, Weather(holds_answers=True))
    reader, _ = await ask(way)
    await wait_until(echo.has_heard)
    answer = asyncio.create_task(reader.readexactly(5))
    await asyncio.sleep(0)
    assert not answer.done()
    await links.clear()
    assert await answer == b"hello"


async def test_the_answer_can_be_lost_and_the_request_not(
    way: str, links: Links, echo: Echo
) -> None:
    await links.set("client", Store.GATE, Weather(breaks_before_answer=True))
    reader, _ = await ask(way)
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await reader.readexactly(5)
    assert echo.heard == b"hello"


async def test_a_link_can_lead_elsewhere(way: str, links: Links, folder: Path) -> None:
    other = Echo()
    server = await asyncio.start_unix_server(other.serve, folder / "other")
    await links.lead("client", Store.GATE, f"unix://{folder / 'other'}?db=0")
    reader, _ = await ask(way, b"there?")
    assert await reader.readexactly(6) == b"there?"
    assert other.heard == b"there?"
    server.close()
