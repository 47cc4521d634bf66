"""A worker's passes go on whatever becomes of one, and its log says so once."""

import asyncio
from collections.abc import Iterator

from structlog.testing import capture_logs

from onsale.domain.errors import GateUnavailable, LedgerUnavailable
from onsale.observability.runtime import stop
from onsale.workers.loop import repeat
from tests.support import wait_until

LEDGER, GATE = LedgerUnavailable.code, GateUnavailable.code


async def test_failures_in_a_row_are_told_once() -> None:
    """Until a pass goes well, or fails with something else. Seen red with each of them told."""
    passes: Iterator[Exception | None] = iter(
        [LedgerUnavailable(), LedgerUnavailable(), GateUnavailable(), None, GateUnavailable()]
    )
    through = asyncio.Event()

    async def run_once() -> None:
        outcome = next(passes, through)
        if outcome is through:
            through.set()
        elif isinstance(outcome, Exception):
            raise outcome

    with capture_logs() as told:
        repeating = asyncio.create_task(repeat("worker", run_once, 0))

        async def all_were_made() -> bool:
            return through.is_set()

        await wait_until(all_were_made)
        await stop(repeating)
    assert [line["code"] for line in told] == [LEDGER, GATE, GATE]
