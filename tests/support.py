"""What several rooms of tests need: tokens, bodies, waiting for states, counting rows."""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, Protocol

from sqlalchemy import text

from onsale.domain.event import Event, PaymentKind
from onsale.http.auth import make_token
from onsale.ledger.ledger import Ledger, OrderKey, PaymentAuthorized, PaymentRequest
from onsale.sales.service import Service

SECRET = "a secret for tests, long enough for HS256"


class MakeEvent(Protocol):
    """See the fixture `make_event`."""

    async def __call__(
        self,
        *capacities_units: int,
        payment: PaymentKind = PaymentKind.NONE,
        max_per_buyer_units: int = 0,
        hold_seconds: int = 600,
        opens_in: timedelta = timedelta(minutes=-1),
        closes_in: timedelta = timedelta(days=1),
    ) -> Event: ...


def token(subject: str = "buyer-1", scope: str = "buy", lifetime_seconds: float = 3_600) -> str:
    """A token that the tests' service accepts."""
    return make_token(SECRET, subject, scope, timedelta(seconds=lifetime_seconds))


def as_buyer(subject: str = "buyer-1", key: str | None = None) -> dict[str, str]:
    """Headers of an order request; a new Idempotency-Key unless one is given."""
    return {
        "Authorization": f"Bearer {token(subject)}",
        "Idempotency-Key": secrets.token_hex(8) if key is None else key,
    }


def with_scope(scope: str, subject: str = "somebody-1") -> dict[str, str]:
    """Headers of a request with a token of that scope."""
    return {"Authorization": f"Bearer {token(subject, scope)}"}


def items(quantity: Any = 1, tier_id: Any = "t1") -> dict[str, Any]:
    """The body of an order of one item."""
    return {"items": [{"tier_id": tier_id, "quantity": quantity}]}


async def wait_until(
    reached: Callable[[], Awaitable[bool]], *, timeout_s: float = 60.0, poll_s: float = 0.02
) -> None:
    """Wait for a state, not for a time; fails with `TimeoutError` when it is not reached.

    Only a failure waits for so long: it is far more than a machine needs that is busy with others.
    """
    deadline = time.monotonic() + timeout_s
    while not await reached():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{reached} was not reached within {timeout_s} s")
        await asyncio.sleep(poll_s)


async def count_rows(service: Service, query: str, **values: Any) -> int:
    """What `SELECT count(*) …` or another one-number query says, in the real database."""
    async with service.database.transaction("test") as connection:
        found = (await connection.execute(text(query), values)).scalar_one()
        return int(found or 0)


async def live_orders(service: Service, event_id: str) -> int:
    """How many orders of the event are held or confirmed, by counting rows."""
    return await count_rows(
        service,
        "SELECT count(*) FROM orders WHERE event_id = :event AND status IN ('held', 'confirmed')",
        event=event_id,
    )


async def begin_payment(ledger: Ledger, key: OrderKey, buyer_id: str, method: str) -> int | None:
    """Begin to pay for one order: the attempt, if it may be paid for."""
    (begun,) = await ledger.begin_payments([PaymentRequest(key, buyer_id, method)])
    return None if begun is None else begun.attempt


async def confirm(ledger: Ledger, key: OrderKey, attempt: int) -> float | None:
    """Confirm one order by its payment: for how many seconds it was held, if it was until now."""
    (settled,) = await ledger.confirm_orders([PaymentAuthorized(key, attempt)])
    return settled.held_seconds
