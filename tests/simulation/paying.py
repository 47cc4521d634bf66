"""Paying for a hold: written down, authorised, confirmed; captured or let go by the outbox.

As `sales.paying`.
"""

from onsale.domain.errors import (
    OrderExpired,
    OrderNotPayable,
    PaymentDeclined,
    RequestInProgress,
)
from onsale.domain.order import OrderStatus
from onsale.domain.payment import PaymentState
from onsale.payments.provider import AnswerLost, Declined
from tests.simulation.ending import own_order
from tests.simulation.ledger import OrderRow
from tests.simulation.process import Process
from tests.simulation.scheduler import Steps
from tests.simulation.timing import PAYMENT_GIVEN_UP_MS

_AUTHORIZE_TRIES = 2
_BEGIN_TRIES = 5


class Paying:
    """The use case of paying."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._ledger = process.around.ledger
        self._provider = process.around.provider

    def pay(self, order_id: bytes, buyer: bytes, method: str) -> Steps[OrderRow]:
        """Pay for the buyer's hold; paying a paid order changes nothing."""
        process = self._process
        attempt = yield from self._begin(order_id, buyer, method)
        if attempt is None:
            return (yield from own_order(process, order_id))
        yield from own_order(process, order_id)
        yield from self._authorize(order_id, attempt, method)
        confirmed = yield from process.statement(self._ledger.confirm, order_id, attempt)
        row = yield from own_order(process, order_id)
        if not confirmed:
            # The outbox took this attempt for forgotten, perhaps, and let it go before it was made.
            yield from self._move(order_id, attempt, PaymentState.VOIDED, PaymentState.VOID_DUE)
            if row.status is OrderStatus.HELD:
                if (yield from process.statement(self._ledger.payment_standing, order_id)).overdue:
                    raise OrderExpired
                raise PaymentDeclined(order_id)
        _require_paid(row)
        return row

    def _begin(self, order_id: bytes, buyer: bytes, method: str) -> Steps[int | None]:
        """The attempt to make, or to join when the same is being made; `None` for a paid order."""
        statement, ledger = self._process.statement, self._ledger
        for _ in range(_BEGIN_TRIES):
            attempt = yield from statement(ledger.begin_payment, order_id, buyer, method)
            if attempt is not None:
                return attempt
            row = yield from own_order(self._process, order_id)
            if row.status is not OrderStatus.HELD:
                _require_paid(row)
                return None
            standing = yield from statement(ledger.payment_standing, order_id)
            if standing.overdue:
                raise OrderExpired
            under_way = standing.under_way
            if under_way is None:
                continue
            if standing.age_ms > PAYMENT_GIVEN_UP_MS:
                yield from self._move(
                    order_id, under_way.attempt, PaymentState.STARTED, PaymentState.VOID_DUE
                )
                continue
            if under_way.method == method:
                return under_way.attempt
            break
        raise RequestInProgress

    def _authorize(self, order_id: bytes, attempt: int, method: str) -> Steps[None]:
        key = f"{order_id.hex()}.{attempt}"
        try:
            yield from self._ask_provider(key, method)
        except Declined as declined:
            yield from self._move(order_id, attempt, PaymentState.STARTED, PaymentState.DECLINED)
            raise PaymentDeclined(order_id) from declined
        except AnswerLost as lost:
            yield from self._move(order_id, attempt, PaymentState.STARTED, PaymentState.VOID_DUE)
            raise PaymentDeclined(order_id) from lost

    def _ask_provider(self, key: str, method: str) -> Steps[None]:
        for last_try in range(1, _AUTHORIZE_TRIES + 1):
            try:
                yield from self._process.tell_provider(self._provider.authorize, key, method)
                return
            except AnswerLost:
                if last_try == _AUTHORIZE_TRIES:
                    raise

    def _move(
        self, order_id: bytes, attempt: int, leave: PaymentState, enter: PaymentState
    ) -> Steps[bool]:
        return self._process.statement(self._ledger.move_payment, order_id, attempt, leave, enter)


def _require_paid(row: OrderRow) -> None:
    if row.status is OrderStatus.EXPIRED:
        raise OrderExpired
    if row.status is not OrderStatus.CONFIRMED:
        raise OrderNotPayable
