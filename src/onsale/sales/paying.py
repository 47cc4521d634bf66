"""Paying for a hold: written down, authorised, confirmed; captured or let go by the settler.

The attempt is in the ledger before the provider hears of it, and has the same name there. So after
a crash anywhere in between, the settler knows what may have been authorised and lets it go.
"""

import asyncio
from time import perf_counter

from onsale.domain.errors import (
    OrderExpired,
    OrderNotPayable,
    PaymentDeclined,
    RequestInProgress,
)
from onsale.domain.order import Order, OrderStatus
from onsale.domain.payment import PaymentState
from onsale.ledger.ledger import Ledger, OrderKey, payment_key
from onsale.observability import metrics
from onsale.payments.provider import AnswerLost, Declined, PaymentProvider
from onsale.sales.catalog import Catalog
from onsale.sales.ending import own_order

# A lost answer is asked for once more, under the same key.
_AUTHORIZE_TRIES = 2

_DID_NOT_ANSWER = (
    "The payment provider did not answer in time; nothing is charged, and the hold stands until it"
    " expires. Try again, or with another method."
)


class Paying:
    """The use case of paying. `timeout_seconds` bounds one call to the provider."""

    def __init__(
        self,
        catalog: Catalog,
        ledger: Ledger,
        provider: PaymentProvider,
        timeout_seconds: float,
    ) -> None:
        self._catalog = catalog
        self._ledger = ledger
        self._provider = provider
        self._timeout_seconds = timeout_seconds

    @property
    def given_up_after_seconds(self) -> float:
        """After this time nobody is waiting for a payment attempt any more."""
        return given_up_after_seconds(self._timeout_seconds)

    async def pay(self, key: OrderKey, buyer_id: str, method: str) -> Order:
        """Pay for the buyer's hold; paying a paid order changes nothing.

        Raises `NotFound`, `OrderExpired`, `OrderNotPayable`, `PaymentDeclined`,
        `RequestInProgress` (another method is being tried), `LedgerUnavailable`.
        """
        attempt = await self._ledger.begin_payment(key, buyer_id, method)
        if attempt is None:
            order = await own_order(self._ledger, key, buyer_id)
            if order.status is not OrderStatus.HELD:
                return _paid_or_refused(order)
            attempt = await self._join(key, buyer_id, method)
        sale = await self._catalog.require(key.event_id)
        order = await own_order(self._ledger, key, buyer_id)
        await self._authorize(key, attempt, order, method)
        held_seconds = await self._ledger.confirm(key, attempt)
        order = await own_order(self._ledger, key, buyer_id)
        if held_seconds is not None:
            metrics.payments_total.labels("ok").inc()
            metrics.checkout_duration_seconds.observe(held_seconds)
            sale.meters.sold(order)
        return _paid_or_refused(order)

    async def _join(self, key: OrderKey, buyer_id: str, method: str) -> int:
        """The attempt that is under way, if it is the same; a forgotten one makes way."""
        under_way = await self._ledger.payment_under_way(key)
        if under_way is None:
            raise OrderExpired
        if under_way.age_seconds > self.given_up_after_seconds:
            await self._ledger.move_payment(
                key, under_way.attempt, PaymentState.STARTED, PaymentState.VOID_DUE
            )
            attempt = await self._ledger.begin_payment(key, buyer_id, method)
            if attempt is None:
                raise RequestInProgress
            return attempt
        if under_way.method != method:
            raise RequestInProgress
        return under_way.attempt

    async def _authorize(self, key: OrderKey, attempt: int, order: Order, method: str) -> None:
        started = perf_counter()
        try:
            await self._ask_provider(payment_key(key, attempt), order, method)
        except Declined as declined:
            metrics.payments_total.labels("declined").inc()
            await self._ledger.move_payment(
                key, attempt, PaymentState.STARTED, PaymentState.DECLINED
            )
            raise PaymentDeclined(key.order_id) from declined
        except (AnswerLost, TimeoutError) as lost:
            metrics.payments_total.labels("timeout").inc()
            await self._ledger.move_payment(
                key, attempt, PaymentState.STARTED, PaymentState.VOID_DUE
            )
            raise PaymentDeclined(key.order_id, _DID_NOT_ANSWER) from lost
        finally:
            metrics.payment_duration_seconds.observe(perf_counter() - started)

    async def _ask_provider(self, name: str, order: Order, method: str) -> None:
        for last_try in range(1, _AUTHORIZE_TRIES + 1):
            try:
                async with asyncio.timeout(self._timeout_seconds):
                    await self._provider.authorize(
                        name, order.amount_minor_units, order.currency, method
                    )
                return
            except AnswerLost:
                if last_try == _AUTHORIZE_TRIES:
                    raise


def given_up_after_seconds(timeout_seconds: float) -> float:
    """Every try of the provider, and as long again for the ledger around them."""
    return 2 * _AUTHORIZE_TRIES * timeout_seconds


def _paid_or_refused(order: Order) -> Order:
    match order.status:
        case OrderStatus.CONFIRMED:
            return order
        case OrderStatus.HELD | OrderStatus.EXPIRED:
            raise OrderExpired
        case _:
            raise OrderNotPayable
