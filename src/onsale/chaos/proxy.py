"""The way from a process to a store, which can be cut, held up, slowed down, or lose answers.

`python -m onsale.chaos.proxy CONTROL_SOCKET` runs every link of a campaign in a process of its own,
so that a busy crowd does not slow the service down. It takes JSON objects, a line each:

    {"link": "api-1.gate", "listen": "/…", "upstream": "/…"}   open a link, or lead it elsewhere
    {"link": "api-1.gate", "weather": {…}, "drop": true}       change its weather (see `Weather`),
                                                               and cut off who is connected

and answers each with a line, once it is so.
"""

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import uvloop

_CHUNK_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Weather:
    """How a link is. `holds_requests` and `holds_answers` keep what arrives until they are lifted:
    both together are a network that lost its far half without anybody being told.
    """

    refuses: bool = False
    holds_requests: bool = False
    holds_answers: bool = False
    # Added to every answer.
    delay_seconds: float = 0.0
    # The request goes on to the store, and the connection breaks before its answer.
    breaks_before_answer: bool = False


@dataclass(slots=True)
class Link:
    """One listening socket before one store's."""

    upstream: str
    weather: Weather = field(default_factory=Weather)
    _requests_flow: asyncio.Event = field(default_factory=asyncio.Event)
    _answers_flow: asyncio.Event = field(default_factory=asyncio.Event)
    _open: set[asyncio.WriteTransport] = field(default_factory=set)

    def set_weather(self, weather: Weather) -> None:
        """From now on, for connections that are open as well."""
        self.weather = weather
        for flow, held in (
            (self._requests_flow, weather.holds_requests),
            (self._answers_flow, weather.holds_answers),
        ):
            if held:
                flow.clear()
            else:
                flow.set()

    def drop(self) -> None:
        """Break every connection, both ways."""
        for transport in self._open:
            transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection until either side has gone."""
        if self.weather.refuses:
            writer.transport.abort()
            return
        try:
            store_reader, store_writer = await asyncio.open_unix_connection(self.upstream)
        except OSError:
            writer.transport.abort()
            return
        ends = {writer.transport, store_writer.transport}
        self._open |= ends
        try:
            await asyncio.gather(
                self._carry_requests(reader, store_writer),
                self._carry_answers(store_reader, writer),
            )
        except OSError:
            pass  # one side has gone; so does the other
        finally:
            self._open -= ends
            for transport in ends:
                transport.abort()

    async def _carry_requests(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while data := await reader.read(_CHUNK_BYTES):
            # What was sent before the far half was lost arrives late, even if its sender has gone.
            await self._requests_flow.wait()
            writer.write(data)
            await writer.drain()
        await self._requests_flow.wait()
        writer.write_eof()

    async def _carry_answers(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while data := await reader.read(_CHUNK_BYTES):
            await self._answers_flow.wait()
            if self.weather.delay_seconds:
                await asyncio.sleep(self.weather.delay_seconds)
            if self.weather.breaks_before_answer:
                raise ConnectionResetError
            writer.write(data)
            await writer.drain()
        writer.close()


class Proxy:
    """Every link, and the socket by which they are told what to do."""

    def __init__(self) -> None:
        self._links: dict[str, Link] = {}
        self._servers: list[asyncio.Server] = []

    async def control(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Obey one controller, line by line."""
        while line := await reader.readline():
            await self._obey(json.loads(line))
            writer.write(b"done\n")
            await writer.drain()
        writer.close()

    async def _obey(self, order: Mapping[str, Any]) -> None:
        name = order["link"]
        if name not in self._links:
            await self._open(name, order["listen"], order["upstream"])
        link = self._links[name]
        link.upstream = order.get("upstream", link.upstream)
        if "weather" in order:
            link.set_weather(Weather(**order["weather"]))
        if order.get("drop"):
            link.drop()

    async def _open(self, name: str, listen: str, upstream: str) -> None:
        link = self._links[name] = Link(upstream)
        link.set_weather(Weather())
        self._servers.append(await asyncio.start_unix_server(link.serve, listen))


async def _run(control_path: str) -> None:
    server = await asyncio.start_unix_server(Proxy().control, f"{control_path}.new")
    os.rename(f"{control_path}.new", control_path)  # who finds it there is heard
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_run(sys.argv[1]))
