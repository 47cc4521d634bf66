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
from onsale.payments.provider import AnswerLost, PaymentProvider
from onsale.sales.paying import given_up_after_seconds
from onsale.sales.service import Service

BATCH_PAYMENTS_MAX = 100

log = get_logger(__name__)


async def run_once(service: Service) -> int:
    """Tell the provider what is due; how many payments moved on. Raises `LedgerUnavailable`."""
    given_up_seconds = given_up_after_seconds(service.settings.payment_timeout_seconds)
    moved = 0
    while True:
        due = await service.ledger.payments_due(given_up_seconds, BATCH_PAYMENTS_MAX)
        settled = await asyncio.gather(*(_settle(service, payment) for payment in due))
        moved += sum(settled)
        # A payment that did not move is tried in the next pass, not again and again in this one.
        if len(due) < BATCH_PAYMENTS_MAX or not all(settled):
            break
    metrics.outbox_backlog.set(await service.ledger.count_payments_due(given_up_seconds))
    return moved


async def _settle(service: Service, payment: PaymentDue) -> bool:
    """Take one payment a step further; whether it went."""
    name = payment_key(payment.key, payment.attempt)
    try:
        async with asyncio.timeout(service.settings.payment_timeout_seconds):
            settled = await _tell_provider(service.provider, name, payment.state)
    except (AnswerLost, TimeoutError):
        log.warning("payment not settled yet", payment=name, state=payment.state)
    except Exception:
        log.exception("payment not settled", payment=name, state=payment.state)
    else:
        return await service.ledger.move_payment(
            payment.key, payment.attempt, payment.state, settled
        )
    # To the back of the line: those that cannot be settled must not keep the others from it.
    await service.ledger.move_payment(payment.key, payment.attempt, payment.state, payment.state)
    return False


async def _tell_provider(provider: PaymentProvider, name: str, state: PaymentState) -> PaymentState:
    match state:
        case PaymentState.AUTHORIZED:
            await provider.capture(name)
            return PaymentState.CAPTURED
        case PaymentState.VOID_DUE:
            await provider.void(name)
            return PaymentState.VOIDED
        case PaymentState.REFUND_DUE:
            # A capture may have been under way, or done and its answer lost, when the order was
            # refunded. Captured now for certain, it can be given back for certain.
            await provider.capture(name)
            await provider.refund(name)
            return PaymentState.REFUNDED
        case _:
            # Begun and forgotten: whoever began it is gone, and may have authorised it.
            return PaymentState.VOID_DUE
