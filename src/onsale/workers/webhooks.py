"""The webhooks' worker: tells receivers what became of orders.

What is to be told was written down with the change itself. Here each endpoint has a lane of its
own, so one that hangs delays nobody else's messages. A lane claims messages for a while rather than
for good: whoever crashes between sending and settling leaves them due again, and they are sent once
more under the same id. Two workers at once share a lane's messages.
"""

import asyncio
import random
from dataclasses import dataclass, field
from time import monotonic, perf_counter
from types import TracebackType
from typing import Self

from pydantic_core import to_json

from onsale.domain.errors import OnsaleError
from onsale.ledger.webhooks import Claimed, DueEndpoint
from onsale.observability import metrics
from onsale.observability.logging import get_logger
from onsale.observability.runtime import stop
from onsale.sales.group_commit import GroupCommit, Pending
from onsale.sales.service import Service
from onsale.sales.showing import order_fields
from onsale.settings import Settings
from onsale.webhooks.sending import Attempt, Outcome, Sender
from onsale.webhooks.signing import signed_headers

# Each pause between attempts is so many times the one before.
BACKOFF_FACTOR = 4.0
# Beyond an attempt's own time: for the ledger, before and after.
LEASE_SLACK_SECONDS = 15.0
# Counting reads every message that is not delivered yet, and purging can wait.
LOOK_AFTER_SECONDS = 5.0
PURGE_BATCH_MAX = 1_000
MARK_BATCH_MAX = 100

log = get_logger(__name__)


@dataclass(slots=True)
class Courier:
    """The deliveries of one process; a context that ends what is under way."""

    service: Service
    sender: Sender
    _delivered: GroupCommit[str, None] = field(init=False)
    _lanes: dict[str, "asyncio.Task[None]"] = field(default_factory=dict)
    _look_after_due_seconds: float = 0.0

    def __post_init__(self) -> None:
        # One at a time: what is delivered while one is under way is written down by the next, so
        # that a sale's messages cost its ledger little.
        self._delivered = GroupCommit(
            self._mark_delivered,
            stage="webhooks",
            batch_size_max=MARK_BATCH_MAX,
            in_flight_max=1,
            queue_size_max=self.service.settings.batch_queue_size_max,
        )

    @classmethod
    def of(cls, service: Service) -> "Courier":
        """By the settings of a service."""
        sender = Sender(service.targets, service.settings.webhook_timeout_seconds)
        if service.tracing is not None:
            from onsale.sales.traced import trace_calls

            trace_calls(service.tracing, {"sender": sender})
        return cls(service, sender)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await stop(*self._lanes.values())
        await self._delivered.drain()
        await self.sender.close()

    async def run_once(self) -> None:
        """Open a lane for each endpoint that has messages due and none open, and do not wait for
        any. Raises `LedgerUnavailable`.
        """
        due = await self.service.webhooks.endpoints_due()
        overdue_seconds = (endpoint.overdue_seconds for endpoint in due)
        metrics.webhook_lag_seconds.set(max(overdue_seconds, default=0.0))
        for endpoint in due:
            if endpoint.id not in self._lanes:
                self._open_lane(endpoint)
        if monotonic() >= self._look_after_due_seconds:
            self._look_after_due_seconds = monotonic() + LOOK_AFTER_SECONDS
            await self._look_after()

    async def finish(self) -> None:
        """Wait until every lane that is open has come to its end."""
        if self._lanes:
            await asyncio.wait(self._lanes.values())

    def _open_lane(self, endpoint: DueEndpoint) -> None:
        lane = asyncio.create_task(self._serve(endpoint))
        self._lanes[endpoint.id] = lane
        lane.add_done_callback(lambda _: self._lanes.pop(endpoint.id))

    async def _serve(self, endpoint: DueEndpoint) -> None:
        """Deliver to one endpoint until nothing is due to it."""
        settings = self.service.settings
        lease_seconds = settings.webhook_timeout_seconds + LEASE_SLACK_SECONDS
        try:
            while claimed := await self.service.webhooks.claim(
                endpoint.id, settings.webhooks_in_flight_max, lease_seconds
            ):
                await asyncio.gather(*(self._deliver(endpoint, message) for message in claimed))
        except OnsaleError as error:
            log.warning("webhooks interrupted", endpoint_id=endpoint.id, code=error.code)
        except Exception:
            log.exception("webhooks interrupted", endpoint_id=endpoint.id)

    async def _deliver(self, endpoint: DueEndpoint, message: Claimed) -> None:
        """One attempt. What cannot be settled is due again when its lease is over."""
        try:
            attempt = await self._attempt(endpoint, message)
            await self._settle(endpoint, message, attempt)
        except OnsaleError as error:
            log.warning("webhook not settled", delivery_id=message.id, code=error.code)
        except Exception:
            log.exception("webhook not settled", delivery_id=message.id)

    async def _attempt(self, endpoint: DueEndpoint, message: Claimed) -> Attempt:
        body = await self._body(message)
        # The ledger's clock: receivers refuse what was signed minutes ago, or will be.
        headers = signed_headers(endpoint.secret, message.id, message.claimed_at, body)
        started = perf_counter()
        attempt = await self.sender.send(endpoint.url, headers, body)
        metrics.webhook_attempt_duration_seconds.observe(perf_counter() - started)
        metrics.webhook_attempts_total.labels(attempt.outcome).inc()
        return attempt

    async def _body(self, message: Claimed) -> bytes:
        event = (await self.service.catalog.require(message.order.event_id)).event
        return to_json(
            {
                "type": message.kind,
                "timestamp": message.changed_at,
                "data": order_fields(message.order, event),
            }
        )

    async def _settle(self, endpoint: DueEndpoint, message: Claimed, attempt: Attempt) -> None:
        webhooks = self.service.webhooks
        if attempt.outcome is Outcome.DELIVERED:
            await self._delivered.submit(message.id)
            return
        if attempt.outcome is Outcome.GONE:
            await webhooks.disable(endpoint.id)
            log.warning("webhook endpoint disabled", endpoint_id=endpoint.id)
        again_in_seconds = pause_seconds(self.service.settings, message.attempt)
        if again_in_seconds is None:
            log.warning("webhook given up", delivery_id=message.id, error=attempt.error)
        await webhooks.mark_failed(
            message.id, message.attempt, attempt.error or attempt.outcome, again_in_seconds
        )

    async def _mark_delivered(self, batch: list[Pending[str, None]]) -> None:
        await self.service.webhooks.mark_delivered([pending.job for pending in batch])
        for pending in batch:
            pending.answer(None)

    async def _look_after(self) -> None:
        webhooks, settings = self.service.webhooks, self.service.settings
        await webhooks.purge(settings.webhook_keep_days, PURGE_BATCH_MAX)
        undelivered = await webhooks.count_undelivered()
        metrics.webhook_backlog.set(undelivered.pending)
        metrics.webhook_dead_letters.set(undelivered.dead)


def pause_seconds(settings: Settings, attempt: int) -> float | None:
    """How long to wait after an attempt that failed; `None` when it was the last.

    With jitter: messages that failed together must not come back together.
    """
    if attempt >= settings.webhook_attempts_max:
        return None
    longest_seconds = min(
        settings.webhook_backoff_seconds_max,
        settings.webhook_backoff_seconds * BACKOFF_FACTOR ** (attempt - 1),
    )
    return longest_seconds * random.uniform(0.5, 1.0)
