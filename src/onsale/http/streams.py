"""The streams that a process keeps open: how many there may be, and when they have to end."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from onsale.domain.errors import Overloaded


class Streams:
    """A bounded number of places, and a word to all who hold one that the process is ending."""

    def __init__(self, streams_max: int) -> None:
        self._streams_max = streams_max
        self._open = 0
        self._ending = asyncio.Event()

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """A place for one stream. Raises `Overloaded` when all are taken."""
        if self._open >= self._streams_max:
            raise Overloaded
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1

    def end(self) -> None:
        """Tell every stream to end."""
        self._ending.set()

    async def goes_on_after(self, seconds: float) -> bool:
        """Wait; whether a stream should go on then."""
        try:
            async with asyncio.timeout(seconds):
                await self._ending.wait()
        except TimeoutError:
            return True
        return False
