"""A sale that is watched: what clients do is written down, the stores are looked into, and in the
end there is evidence to judge. A campaign breaks things meanwhile; a test plays a scene.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from onsale.chaos import evidence
from onsale.chaos.client import Client
from onsale.chaos.evidence import Evidence
from onsale.chaos.history import History
from onsale.chaos.incidents import Course
from onsale.chaos.receiver import Receiver, receiving
from onsale.chaos.sales import Sales, open_sales
from onsale.chaos.stage import Stage
from onsale.chaos.watcher import Watcher
from onsale.domain.errors import OnsaleError
from onsale.domain.order import OrderStatus
from onsale.domain.webhook import WebhookKind
from onsale.observability.runtime import stop
from onsale.webhooks.signing import new_secret

# Longer than any patience of the service, so that it is the service that gives up.
_CLIENT_TIMEOUT_SECONDS = 4.0
_POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Observation:
    """See the module; `observing` makes one."""

    stage: Stage
    sales: Sales
    client: Client
    history: History
    course: Course
    watcher: Watcher
    receiver: Receiver

    async def is_quiet_within(self, seconds_max: float) -> bool:
        """Wait until nothing is on its way any more, or for as long as that."""
        deadline = time.monotonic() + seconds_max
        while time.monotonic() < deadline:
            try:
                if await self._is_quiet():
                    return True
            except OnsaleError:
                pass  # a store is away, so it is not quiet
            await asyncio.sleep(_POLL_SECONDS)
        return False

    async def _is_quiet(self) -> bool:
        """Whether there is no hold, no payment, no message and no difference."""
        service = self.stage.service
        rows = await evidence.rows_of(service, self.sales.all)
        return (
            not any(row.status is OrderStatus.HELD for row in rows)
            and not await service.ledger.count_payments_due(0)
            and not (await service.webhooks.count_undelivered()).pending
            and all(a.balanced for a in await evidence.audits_of(service, self.sales.all))
        )

    async def evidence(self) -> Evidence:
        """What there is to judge now. Raises `LedgerUnavailable`."""
        service, sales = self.stage.service, self.sales.all
        return Evidence(
            sales=sales,
            probe=self.sales.probe,
            apis=tuple(self.stage.apis),
            history=self.history,
            course=self.course,
            looks=self.watcher.looks,
            audits=await evidence.audits_of(service, sales),
            rows=await evidence.rows_of(service, sales),
            payments=await evidence.payments_of(service, sales),
            provider=evidence.provider_lines(self.stage.provider_books, sales),
            messages=list(self.receiver.messages),
        )


@asynccontextmanager
async def observing(stage: Stage, history: History) -> AsyncIterator[Observation]:
    """New sales on the stage, watched for as long as the block lasts."""
    with receiving() as receiver:
        async with telling(stage, receiver.url):
            sales = await open_sales(next(iter(stage.addresses.values())), stage.auth_secret)
            watcher = Watcher(stage.service, stage.redis, (sales.card, sales.free))
            client = Client(stage.addresses, stage.auth_secret, history, _CLIENT_TIMEOUT_SECONDS)
            async with client, meanwhile(watcher.run()):
                yield Observation(stage, sales, client, history, Course(), watcher, receiver)


@asynccontextmanager
async def telling(stage: Stage, url: str) -> AsyncIterator[None]:
    """A receiver that is told of every order, for as long as the block lasts."""
    webhooks = stage.service.webhooks
    endpoint = await webhooks.register(url, new_secret(), tuple(WebhookKind))
    try:
        yield
    finally:
        await webhooks.remove(endpoint.id)


@asynccontextmanager
async def meanwhile(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Something that goes on beside the block; if it fails, so does the block."""
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(work)
        try:
            yield
        finally:
            await stop(task)
