"""The way to Redis that takes longer: what comes out is what went in, later."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from time import perf_counter

import pytest

from onsale.embedded import spawn_child, stop_child
from tests.support import wait_until

DELAY_MS = 40


@pytest.fixture
async def proxied(tmp_path: Path) -> AsyncIterator[Path]:
    """The socket of a proxy to a server that sends back what it gets."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(2**16):
            writer.write(chunk)
        writer.close()

    listen, behind = tmp_path / "proxy.sock", tmp_path / "server.sock"
    async with await asyncio.start_unix_server(echo, behind):
        proxy = spawn_child(
            [sys.executable, "-m", "onsale.bench.proxy", listen, behind, str(DELAY_MS)],
            log_path=tmp_path / "proxy.log",
        )

        async def listens() -> bool:
            return listen.exists()

        try:
            await wait_until(listens)
            yield listen
        finally:
            stop_child(proxy)


async def test_everything_arrives_in_order_and_the_end_as_well(proxied: Path) -> None:
    """More than passes at once, by two connections at the same time."""

    async def send(byte: bytes) -> bytes:
        reader, writer = await asyncio.open_unix_connection(proxied)
        for number in range(200):
            writer.write(byte * 5_000 + b"%d" % number)
            await writer.drain()
        writer.write_eof()
        received = await reader.read()
        writer.close()
        return received

    for byte, received in [(byte, asyncio.create_task(send(byte))) for byte in (b"a", b"b")]:
        sent = b"".join(byte * 5_000 + b"%d" % number for number in range(200))
        assert await received == sent


async def test_there_and_back_takes_the_delay(proxied: Path) -> None:
    reader, writer = await asyncio.open_unix_connection(proxied)
    started = perf_counter()
    writer.write(b"x")
    assert await reader.readexactly(1) == b"x"
    assert (perf_counter() - started) * 1000 >= DELAY_MS
    writer.close()
