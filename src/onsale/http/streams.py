"""The streams that a process keeps open: how many there may be, and when they have to end."""

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from types import FrameType

from onsale.domain.errors import Overloaded

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


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

    @contextmanager
    def ending_with_the_process(self) -> Iterator[None]:
        """End the streams as soon as the process is told to stop.

        The server waits for its connections before it tells the application anything, and a
        stream would keep it waiting for as long as it may: so the signals are heard here as well.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        earlier = {number: signal.getsignal(number) for number in _STOP_SIGNALS}

        def hear(number: int, frame: FrameType | None) -> None:
            loop.call_soon_threadsafe(self.end)
            handler = earlier[signal.Signals(number)]
            if callable(handler):
                handler(number, frame)

        for number, handler in earlier.items():
            if callable(handler):
                signal.signal(number, hear)
        try:
            yield
        finally:
            self.end()
            for number, handler in earlier.items():
                signal.signal(number, handler)
