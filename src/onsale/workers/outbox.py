"""The outbox: payments that the provider has yet to hear of.

An order is confirmed in the ledger before its payment is captured, and a payment is let go only
when the ledger says so. What is due stands in the ledger; every call is idempotent at the provider
and every step is taken only from the state it was read in, so that a crash between a call and its
step repeats the call and nothing else.
"""

import asyncio

from onsale.domain.payment import PaymentState
from onsale.ledger.ledger import PaymentDue, payment_key
from onsale.observability import metrics
from onsale.observability.logging import get_logger
from onsale.payments.provider import AnswerLost
from onsale.sales.paying import given_up_after_seconds
from onsale.sales.service import Service

BATCH_PAYMENTS_MAX = 100

log = get_logger(__name__)


async def run_once(service: Service) -> int:
    """Tell the provider what is due; how many payments moved on. Raises `LedgerUnavailable`."""
    moved = 0
    while True:
        due = await service.ledger.payments_due(
            given_up_after_seconds(service.settings.payment_timeout_seconds), BATCH_PAYMENTS_MAX
        )
        metrics.outbox_backlog.set(len(due))
        settled = await asyncio.gather(*(_settle(service, payment) for payment in due))
        moved += sum(settled)
        # A payment that did not move is tried in the next pass, not again and again in this one.
        if len(due) < BATCH_PAYMENTS_MAX or not all(settled):
            return moved


async def _settle(service: Service, payment: PaymentDue) -> bool:
    name = payment_key(payment.key, payment.attempt)
    provider = service.provider
    try:
        async with asyncio.timeout(service.settings.payment_timeout_seconds):
            match payment.state:
                case PaymentState.AUTHORIZED:
                    await provider.capture(name)
                    settled = PaymentState.CAPTURED
                case PaymentState.VOID_DUE:
                    await provider.void(name)
                    settled = PaymentState.VOIDED
                case PaymentState.REFUND_DUE:
                    await provider.refund(name)
                    settled = PaymentState.REFUNDED
                case _:
                    # Begun and forgotten: whoever began it is gone, and may have authorised it.
                    settled = PaymentState.VOID_DUE
    except (AnswerLost, TimeoutError):
        log.warning("payment not settled yet", payment=name, state=payment.state)
        return False
    return await service.ledger.move_payment(payment.key, payment.attempt, payment.state, settled)
