"""Running a worker's `run_once` again and again, whatever becomes of one pass."""

import asyncio
from collections.abc import Awaitable, Callable

from onsale.domain.errors import OnsaleError
from onsale.observability.logging import get_logger

log = get_logger(__name__)


async def repeat(
    name: str, run_once: Callable[[], Awaitable[object]], interval_seconds: float
) -> None:
    """Run for ever with a pause in between; a pass that fails is logged and the next one comes.

    Of failures in a row with one code the first is logged.
    """
    failing: str | None = None
    while True:
        try:
            await run_once()
            failing = None
        except OnsaleError as error:
            if failing != error.code:
                log.warning("pass failed", worker=name, code=error.code)
            failing = error.code
        except Exception:
            log.exception("pass failed", worker=name)
        await asyncio.sleep(interval_seconds)
