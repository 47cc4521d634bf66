"""Hearing that the process is to stop, as soon as it is told.

The server waits for its connections before it tells the application anything, and by then what goes
on by itself has kept it waiting for as long as it may: so the signals are heard here as well.
"""

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def heard_stop(tell: Callable[[], object]) -> Iterator[None]:
    """Call `tell` in the event loop when the process is told to stop, and at the end anyway."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    earlier = {number: signal.getsignal(number) for number in _STOP_SIGNALS}

    def hear(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(tell)
        handler = earlier[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)

    for number, handler in earlier.items():
        if callable(handler):
            signal.signal(number, hear)
    try:
        yield
    finally:
        tell()
        for number, handler in earlier.items():
            signal.signal(number, handler)
