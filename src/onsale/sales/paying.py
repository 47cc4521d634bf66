"""Paying for a hold: written down, authorised, confirmed; captured or let go by the settler.

The attempt is in the ledger before the provider hears of it, and has the same name there. So after
a crash anywhere in between, the settler knows what may have been authorised and lets it go.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from onsale.domain.errors import (
    LedgerUnavailable,
    OrderExpired,
    OrderNotPayable,
    PaymentDeclined,
    RequestInProgress,
)
from onsale.domain.order import Order, OrderStatus
from onsale.domain.payment import PaymentState
from onsale.ledger.ledger import (
    PAYMENT_ATTEMPTS_MAX,
    Ledger,
    OrderKey,
    OrderSettled,
    PaymentAuthorized,
    PaymentBegun,
    PaymentRequest,
    payment_key,
)
from onsale.observability import metrics
from onsale.payments.provider import AnswerLost, Declined, PaymentProvider
from onsale.sales.catalog import Catalog
from onsale.sales.ending import own_order
from onsale.sales.group_commit import Answer, GroupCommit, Job, MakeStage, Pending
from onsale.settings import Settings

# A lost answer is asked for once more, under the same key.
_AUTHORIZE_TRIES = 2
# Each further try finds that another attempt has ended since the one before.
_BEGIN_TRIES = 5

_DID_NOT_ANSWER = (
    "The payment provider did not answer in time; nothing is charged, and the hold stands until it"
    " expires. Try again, or with another method."
)


class Paying:
    """The use case of paying."""

    def __init__(
        self,
        catalog: Catalog,
        ledger: Ledger,
        provider: PaymentProvider,
        settings: Settings,
        make_stage: MakeStage = GroupCommit,
    ) -> None:
        self._catalog = catalog
        self._ledger = ledger
        self._provider = provider
        self._timeout_seconds = settings.payment_timeout_seconds
        # In batches, for a tier's row is locked until the confirmation that counts on it is on
        # disk: one by one they would wait for each other.
        stage = partial(
            make_stage,
            batch_size_max=settings.ledger_batch_size_max,
            in_flight_max=settings.ledger_batches_in_flight_max,
            queue_size_max=settings.batch_queue_size_max,
        )
        self._beginning: GroupCommit[PaymentRequest, PaymentBegun | None] = stage(
            self._begin_all, stage="payment_begin"
        )
        self._confirming: GroupCommit[PaymentAuthorized, OrderSettled] = stage(
            self._confirm_all, stage="payment_confirm"
        )

    async def pay(self, key: OrderKey, buyer_id: str, method: str) -> Order:
        """Pay for the buyer's hold; paying a paid order changes nothing.

        Raises `NotFound`, `OrderExpired`, `OrderNotPayable`, `PaymentDeclined`,
        `RequestInProgress` (another method is being tried), `LedgerUnavailable`.
        """
        sale = await self._catalog.require(key.event_id)
        begun = await self._begin(key, buyer_id, method)
        if begun is None:
            return await own_order(self._ledger, key, buyer_id)
        attempt, order = begun
        await self._authorize(key, attempt, order, method)
        order, held_seconds = await self._confirming.submit(PaymentAuthorized(key, attempt))
        if held_seconds is not None:
            metrics.payments_total.labels("ok").inc()
            metrics.checkout_duration_seconds.observe(held_seconds)
            sale.meters.sold([order])
        else:
            # If the settler took this attempt for forgotten and has let it go, the provider may
            # have authorised it after that: it is let go once more.
            await self._ledger.move_payment(
                key, attempt, PaymentState.VOIDED, PaymentState.VOID_DUE
            )
            if order.status is OrderStatus.HELD:
                await self._raise_if_overdue(key)
                raise PaymentDeclined(key.order_id, _DID_NOT_ANSWER)
        _require_paid(order)
        return order

    async def drain(self) -> None:
        """Wait until every payment in a batch has been answered."""
        await self._beginning.drain()
        await self._confirming.drain()

    async def _begin_all(self, batch: list[Pending[PaymentRequest, PaymentBegun | None]]) -> None:
        await _answer_all(self._ledger.begin_payments, batch)

    async def _confirm_all(self, batch: list[Pending[PaymentAuthorized, OrderSettled]]) -> None:
        await _answer_all(self._ledger.confirm_orders, batch)

    async def _begin(self, key: OrderKey, buyer_id: str, method: str) -> PaymentBegun | None:
        """The attempt to make, or to join when the same is being made; `None` for a paid order."""
        for _ in range(_BEGIN_TRIES):
            begun = await self._beginning.submit(PaymentRequest(key, buyer_id, method))
            if begun is not None:
                return begun
            order = await own_order(self._ledger, key, buyer_id)
            if order.status is not OrderStatus.HELD:
                _require_paid(order)
                return None
            overdue, attempts, under_way = await self._ledger.payment_standing(key)
            if overdue:
                raise OrderExpired
            if attempts >= PAYMENT_ATTEMPTS_MAX and under_way is None:
                raise OrderNotPayable("Too many payments were tried for this order.")
            if under_way is None:
                continue  # it ended between the two looks, and made way
            if under_way.age_seconds > given_up_after_seconds(self._timeout_seconds):
                await self._ledger.move_payment(
                    key, under_way.attempt, PaymentState.STARTED, PaymentState.VOID_DUE
                )
                continue
            if under_way.method == method:
                return PaymentBegun(under_way.attempt, order)
            break
        raise RequestInProgress

    async def _raise_if_overdue(self, key: OrderKey) -> None:
        if (await self._ledger.payment_standing(key)).overdue:
            raise OrderExpired

    async def _authorize(self, key: OrderKey, attempt: int, order: Order, method: str) -> None:
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

    async def _ask_provider(self, name: str, order: Order, method: str) -> None:
        for last_try in range(1, _AUTHORIZE_TRIES + 1):
            try:
                with metrics.payment_duration_seconds.time():
                    async with asyncio.timeout(self._timeout_seconds):
                        await self._provider.authorize(
                            name, order.amount_minor_units, order.currency, method
                        )
                return
            except AnswerLost:
                if last_try == _AUTHORIZE_TRIES:
                    raise


async def _answer_all(
    write: Callable[[list[Job]], Awaitable[list[Answer]]], batch: list[Pending[Job, Answer]]
) -> None:
    """Write a batch and answer it; one that is refused as a whole is written one by one."""
    try:
        answers = await write([pending.job for pending in batch])
    except LedgerUnavailable:
        raise
    except Exception as refused:
        if len(batch) == 1:
            batch[0].fail(refused)
            return
        metrics.batch_splits_total.inc()
        for pending in batch:
            await _answer_all(write, [pending])
        return
    for pending, answer in zip(batch, answers, strict=True):
        pending.answer(answer)


def given_up_after_seconds(timeout_seconds: float) -> float:
    """Every try of the provider, and as long again for the ledger around them."""
    return 2 * _AUTHORIZE_TRIES * timeout_seconds


def _require_paid(order: Order) -> None:
    if order.status is OrderStatus.EXPIRED:
        raise OrderExpired
    if order.status is not OrderStatus.CONFIRMED:
        raise OrderNotPayable
