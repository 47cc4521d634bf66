"""Every way a request ends other than well. `code` is part of the HTTP contract.

OnsaleError
├── Refused                    understood and refused; asking again changes nothing by itself
│   ├── NotFound
│   ├── InvalidRequest         with the fields at fault
│   ├── IdempotencyKeyReused
│   ├── SoldOut  BuyerLimitReached
│   ├── SaleNotOpen  SalePaused  SaleClosed
│   ├── OrderExpired  OrderNotPayable  OrderNotReleasable  OrderNotRefundable
│   ├── PaymentDeclined
│   ├── RequestInProgress
│   ├── CapacityBelowReserved
│   └── WebhookEndpointLimitReached  WebhookEndpointDisabled
└── Unavailable                try again after a while; nothing was promised
    ├── Overloaded
    ├── GateUnavailable ── GateLost
    └── LedgerUnavailable
"""

from datetime import datetime
from typing import ClassVar, NamedTuple


class FieldError(NamedTuple):
    """One fault of a request: where (`items.0.quantity`) and what is wrong there."""

    field: str
    message: str


class OnsaleError(Exception):
    """The docstring of each subclass is the sentence a client reads."""

    code: ClassVar[str]
    _sentence: ClassVar[str] = ""

    def __init_subclass__(cls) -> None:
        cls._sentence = (cls.__doc__ or "").strip()

    def __init__(self, detail: str | None = None) -> None:
        self.detail = detail or self._sentence
        super().__init__(self.detail)


class Refused(OnsaleError):
    """The request was refused."""


class NotFound(Refused):
    """There is nothing here for you."""

    code = "not_found"


class InvalidRequest(Refused):
    """The request is not valid."""

    code = "invalid_request"

    def __init__(self, *errors: FieldError) -> None:
        super().__init__()
        self.errors = errors


class IdempotencyKeyReused(Refused):
    """This Idempotency-Key was used with another body; take a new key for a new order."""

    code = "idempotency_key_reused"


class SoldOut(Refused):
    """There are not enough seats left for this order."""

    code = "sold_out"


class BuyerLimitReached(Refused):
    """This order would take you over the number of tickets one buyer may have."""

    code = "buyer_limit_reached"


class SaleNotOpen(Refused):
    """The sale has not opened yet."""

    code = "sale_not_open"

    def __init__(self, opens_at: datetime, opens_in_seconds: float) -> None:
        super().__init__()
        self.opens_at = opens_at
        self.opens_in_seconds = opens_in_seconds


class SalePaused(Refused):
    """The sale is paused; it may go on."""

    code = "sale_paused"


class SaleClosed(Refused):
    """The sale is over."""

    code = "sale_closed"


class OrderExpired(Refused):
    """The hold has expired; its seats are back on sale."""

    code = "order_expired"


class OrderNotPayable(Refused):
    """The order is neither held nor paid, so it cannot be paid for."""

    code = "order_not_payable"


class OrderNotReleasable(Refused):
    """Only a held order can be released."""

    code = "order_not_releasable"


class OrderNotRefundable(Refused):
    """Only a confirmed order can be refunded."""

    code = "order_not_refundable"


class PaymentDeclined(Refused):
    """The payment did not go through and nothing was charged; the hold stands until it expires."""

    code = "payment_declined"

    def __init__(self, order_id: bytes, detail: str | None = None) -> None:
        super().__init__(detail)
        self.order_id = order_id


class RequestInProgress(Refused):
    """An earlier request for this order is still being worked on; ask again in a moment."""

    code = "request_in_progress"


class CapacityBelowReserved(Refused):
    """More units are held and sold than the new capacity allows."""

    code = "capacity_below_reserved"


class WebhookEndpointLimitReached(Refused):
    """There are as many webhook endpoints as there may be; remove one first."""

    code = "webhook_endpoint_limit_reached"


class WebhookEndpointDisabled(Refused):
    """The endpoint takes no messages, for it said that it is gone; enable it first."""

    code = "webhook_endpoint_disabled"


class Unavailable(OnsaleError):
    """The service cannot answer right now; nothing was promised."""

    code = "overloaded"


class Overloaded(Unavailable):
    """More is being asked than can be answered in time; try again shortly."""


class GateUnavailable(Unavailable):
    """Admission is interrupted for a moment; try again shortly."""


class GateLost(GateUnavailable):
    """The gate does not hold what the ledger last authorised; it is being rebuilt."""


class LedgerUnavailable(Unavailable):
    """The order could not be written down, so it is not promised; try again shortly."""

    code = "ledger_unavailable"
