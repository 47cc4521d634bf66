"""The ledger's webhooks: who wants to be told of orders, and how it stands with telling them.

The messages are written by the statements that change orders; here they are claimed and settled.
Every method raises `LedgerUnavailable` when Postgres does not answer.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

import asyncpg

from onsale.domain.errors import NotFound, WebhookEndpointDisabled, WebhookEndpointLimitReached
from onsale.domain.order import Order, OrderStatus
from onsale.domain.webhook import DeliveryState, WebhookKind
from onsale.ledger import webhook_statements as statements
from onsale.ledger.engine import Database
from onsale.ledger.ledger import order_from

# Each order leaves a row for each endpoint that wants to know, in the transaction that a buyer
# waits for.
ENDPOINTS_MAX = 20
_ID_AFTER_ALL = "f" * 32


class Endpoint(NamedTuple):
    """A receiver: where it is, what it wants to know, and since when it takes nothing, if so."""

    id: str
    url: str
    kinds: tuple[WebhookKind, ...]
    created_at: datetime
    disabled_at: datetime | None


class DueEndpoint(NamedTuple):
    """A receiver with messages due, the first of them for so long by the ledger's clock."""

    id: str
    url: str
    secret: str
    overdue_seconds: float


class Claimed(NamedTuple):
    """A message to deliver in this attempt, the order as it was when it entered the status."""

    id: str
    attempt: int
    kind: WebhookKind
    changed_at: datetime
    claimed_at: datetime
    order: Order


class Delivery(NamedTuple):
    """How it stands with one message to one endpoint."""

    id: str
    endpoint_id: str
    kind: WebhookKind
    event_id: str
    order_id: bytes
    state: DeliveryState
    attempts: int
    created_at: datetime
    next_attempt_at: datetime | None
    ended_at: datetime | None
    last_error: str | None


class Undelivered(NamedTuple):
    """Messages that wait, and such that are waited for no more."""

    pending: int
    dead: int


class Webhooks:
    """Endpoints and deliveries in Postgres."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # -- endpoints

    async def register(self, url: str, secret: str, kinds: Iterable[WebhookKind]) -> Endpoint:
        """Add an endpoint; it is told of what happens from now on.

        Raises `WebhookEndpointLimitReached`.
        """
        async with self._database.driver("register_endpoint") as connection:
            row = await connection.fetchrow(
                statements.REGISTER_ENDPOINT,
                url,
                secret,
                [kind.status.value for kind in kinds],
                ENDPOINTS_MAX,
            )
        if row is None:
            raise WebhookEndpointLimitReached
        return _endpoint_from(row)

    async def endpoints(self) -> list[Endpoint]:
        """Every endpoint, newest first."""
        async with self._database.driver("endpoints") as connection:
            rows = await connection.fetch(statements.READ_ENDPOINTS)
        return [_endpoint_from(row) for row in rows]

    async def remove(self, endpoint_id: str) -> None:
        """Forget an endpoint and what was to be told to it. Raises `NotFound`."""
        async with self._database.driver("remove_endpoint") as connection:
            if await connection.fetchval(statements.REMOVE_ENDPOINT, endpoint_id) is None:
                raise NotFound

    async def disable(self, endpoint_id: str) -> None:
        """Write and send nothing to an endpoint until it is enabled; what waits, waits."""
        async with self._database.driver("disable_endpoint") as connection:
            await connection.execute(statements.DISABLE_ENDPOINT, endpoint_id)

    async def enable(self, endpoint_id: str) -> Endpoint:
        """Send to an endpoint again. Raises `NotFound`."""
        async with self._database.driver("enable_endpoint") as connection:
            row = await connection.fetchrow(statements.ENABLE_ENDPOINT, endpoint_id)
        if row is None:
            raise NotFound
        return _endpoint_from(row)

    # -- delivering

    async def endpoints_due(self) -> list[DueEndpoint]:
        """Endpoints with messages due."""
        async with self._database.driver("endpoints_due") as connection:
            rows = await connection.fetch(statements.ENDPOINTS_DUE)
        return [
            DueEndpoint(row["id"].hex, row["url"], row["secret"], row["overdue_seconds"])
            for row in rows
        ]

    async def claim(self, endpoint_id: str, size_max: int, lease_seconds: float) -> list[Claimed]:
        """Begin an attempt for messages due to an endpoint, but those that another worker has.

        Each is due again after `lease_seconds` unless it is settled: a crash repeats the attempt.
        """
        async with self._database.driver("claim_deliveries") as connection:
            rows = await connection.fetch(
                statements.CLAIM_DELIVERIES, endpoint_id, size_max, lease_seconds
            )
        return [_claimed_from(row) for row in rows]

    async def mark_delivered(self, delivery_ids: Sequence[str]) -> None:
        """Their receivers have them."""
        async with self._database.driver("mark_delivered") as connection:
            await connection.execute(statements.MARK_DELIVERED, delivery_ids)

    async def mark_failed(
        self, delivery_id: str, attempt: int, error: str, again_in_seconds: float | None
    ) -> None:
        """The attempt failed; `None` when it was the last."""
        async with self._database.driver("mark_failed") as connection:
            await connection.execute(
                statements.MARK_FAILED, delivery_id, attempt, error, again_in_seconds
            )

    # -- looking after them

    async def page(
        self, state: DeliveryState | None, before: str | None, size: int
    ) -> list[Delivery]:
        """Messages, newest first, `size` after the message with id `before`."""
        async with self._database.driver("deliveries") as connection:
            rows = await connection.fetch(
                statements.deliveries_page(state), before or _ID_AFTER_ALL, size
            )
        return [_delivery_from(row) for row in rows]

    async def resend(self, delivery_id: str) -> Delivery:
        """Make a message due now with all its attempts before it, whatever became of it so far.

        Raises `NotFound`, `WebhookEndpointDisabled`.
        """
        async with self._database.driver("resend") as connection:
            resent = await connection.fetchval(statements.RESEND, delivery_id)
            row = await connection.fetchrow(statements.READ_DELIVERY, delivery_id)
        if row is None:
            raise NotFound
        if resent is None:
            raise WebhookEndpointDisabled
        return _delivery_from(row)

    async def count_undelivered(self) -> Undelivered:
        """What waits, and what is dead, at endpoints that take messages."""
        async with self._database.driver("count_undelivered") as connection:
            row = await connection.fetchrow(statements.COUNT_UNDELIVERED)
        return Undelivered(row["pending"], row["dead"])

    async def purge(self, keep_days: int, size_max: int) -> None:
        """Forget up to `size_max` messages that are older than that, whatever became of them."""
        async with self._database.driver("purge_deliveries") as connection:
            await connection.execute(statements.PURGE_DELIVERIES, keep_days, size_max)


def _endpoint_from(row: asyncpg.Record) -> Endpoint:
    return Endpoint(
        id=row["id"].hex,
        url=row["url"],
        kinds=tuple(WebhookKind.of(OrderStatus(status)) for status in row["statuses"]),
        created_at=row["created_at"],
        disabled_at=row["disabled_at"],
    )


def _claimed_from(row: asyncpg.Record) -> Claimed:
    order = order_from(row)
    return Claimed(
        id=row["delivery_id"].hex,
        attempt=row["attempts"],
        kind=WebhookKind.of(order.status),
        changed_at=row["changed_at"],
        claimed_at=row["claimed_at"],
        order=order,
    )


def _delivery_from(row: asyncpg.Record) -> Delivery:
    state = DeliveryState(row["state"])
    return Delivery(
        id=row["id"].hex,
        endpoint_id=row["endpoint_id"].hex,
        kind=WebhookKind.of(OrderStatus(row["status"])),
        event_id=row["event_id"].hex,
        order_id=row["order_id"].bytes,
        state=state,
        attempts=row["attempts"],
        created_at=row["created_at"],
        next_attempt_at=row["next_attempt_at"] if state is DeliveryState.PENDING else None,
        ended_at=row["ended_at"],
        last_error=row["last_error"],
    )
