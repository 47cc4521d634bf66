"""Plants a fault within the service's processes: Python imports this by itself before anything.

`PLANT` says which; without it nothing changes. The service itself knows nothing of it.
"""

import asyncio
import os
import sys
from collections.abc import Callable
from itertools import count
from time import perf_counter, sleep
from typing import Any


def compute(seconds: float) -> None:
    """Keeps the core busy."""
    until = perf_counter() + seconds
    while perf_counter() < until:
        pass


def write_access_log() -> None:
    """Every request writes a line of a kilobyte."""
    from onsale.http.app import Application
    from onsale.observability.logging import get_logger

    log = get_logger("access")
    original = Application.__call__

    async def telling(self: Application, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            log.info("asked", path=scope["path"], everything_else="." * 900)
        await original(self, scope, receive, send)

    Application.__call__ = telling  # type: ignore[method-assign]


def hold_up_in_every(requests: int, hold_up: Callable[[float], None], seconds: float) -> None:
    """Every so many requests one keeps the event loop for itself."""
    from onsale.http.app import Application

    numbers = count(1)
    original = Application.__call__

    async def holding(self: Application, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and next(numbers) % requests == 0:
            hold_up(seconds)
        await original(self, scope, receive, send)

    Application.__call__ = holding  # type: ignore[method-assign]


def slow_provider(seconds: float) -> None:
    """The payment provider thinks for that long before each answer."""
    from onsale.payments.simulated import SimulatedProvider

    original = SimulatedProvider.authorize

    async def thinking(self: SimulatedProvider, *args: Any) -> None:
        await asyncio.sleep(seconds)
        await original(self, *args)

    SimulatedProvider.authorize = thinking  # type: ignore[assignment,method-assign]


match os.environ.get("PLANT"):
    case "small pool" if "serve" in sys.orig_argv:
        # Not at the workers: who loads a gate holds one connection and needs another.
        os.environ["ONSALE_DB_POOL_SIZE_MAX"] = "1"
    case "blocking handler":
        # A call that waits and is not awaited: at 60 buyers a second and some two requests of each,
        # not half of the time.
        hold_up_in_every(100, sleep, 0.3)
    case "dear requests":
        hold_up_in_every(1, compute, 0.002)
    case "access log" if "serve" in sys.orig_argv:
        write_access_log()
    case "slow provider":
        slow_provider(1.5)
