"""The controller of the proxy: one link for each process and each store."""

import asyncio
import json
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from sqlalchemy import URL, make_url

from onsale.chaos.proxy import Weather

_CALM = Weather()
# The name that clients of Postgres give its socket, by the port.
_POSTGRES_SOCKET = ".s.PGSQL.5432"


class Store(StrEnum):
    """What a link leads to."""

    GATE = "gate"
    LEDGER = "ledger"


class Links:
    """See the module. `folder` is for the sockets; its name has to be short."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._changed: set[tuple[str, Store]] = set()

    @property
    def control_path(self) -> Path:
        """Where the proxy listens for orders."""
        return self._folder / "control"

    async def open(self, process: str, store: Store, store_url: str) -> str:
        """Open a link for a process: the URL of the store by this way."""
        upstream = _socket_of(store, store_url)
        folder = self._folder / f"{process}.{store}"
        folder.mkdir(mode=0o700)
        listen = folder / (_POSTGRES_SOCKET if store is Store.LEDGER else "gate.sock")
        await self._tell(process, store, listen=str(listen), upstream=upstream)
        if store is Store.LEDGER:
            query = {"host": str(folder), "port": "5432"}
            return str(URL.create("postgresql+asyncpg", "onsale", database="onsale", query=query))
        return f"unix://{quote(str(listen))}?db=0"

    async def lead(self, process: str, store: Store, store_url: str) -> None:
        """Let a link lead to another server from now on."""
        await self._tell(process, store, upstream=_socket_of(store, store_url), drop=True)

    async def set(
        self, process: str, store: Store, weather: Weather, *, drop: bool = False
    ) -> None:
        """Change a link's weather; `drop` breaks the connections that it carries."""
        self._changed.add((process, store))
        await self._tell(process, store, weather=asdict(weather), drop=drop)

    async def clear(self, *, drop: bool = False) -> None:
        """Fair weather on every link."""
        while self._changed:
            process, store = self._changed.pop()
            await self._tell(process, store, weather=asdict(_CALM), drop=drop)

    async def _tell(self, process: str, store: Store, **order: Any) -> None:
        reader, writer = await asyncio.open_unix_connection(self.control_path)
        writer.write(json.dumps({"link": f"{process}.{store}", **order}).encode() + b"\n")
        done = await reader.readline()
        writer.close()
        if not done:
            raise RuntimeError(f"the proxy did not obey: {process}.{store} {order}")


def _socket_of(store: Store, url: str) -> str:
    if store is Store.LEDGER:
        return f"{make_url(url).query['host']}/{_POSTGRES_SOCKET}"
    return unquote(urlsplit(url).path)
