"""A webhook: the message that an order entered a status, for whoever asked to be told.

`pending` → `delivered`, or → `dead` when its attempts are used up; sent again it is `pending` anew.
"""

from enum import StrEnum

from onsale.domain.order import OrderStatus


class WebhookKind(StrEnum):
    """What messages tell of. An abandoned order was never anybody's, so nobody hears of it."""

    ORDER_HELD = "order.held"
    ORDER_CONFIRMED = "order.confirmed"
    ORDER_RELEASED = "order.released"
    ORDER_EXPIRED = "order.expired"
    ORDER_REFUNDED = "order.refunded"

    @classmethod
    def of(cls, status: OrderStatus) -> "WebhookKind":
        """The kind that tells of an order's entering this status."""
        return cls(f"order.{status}")

    @property
    def status(self) -> OrderStatus:
        """The status that an order entered."""
        return OrderStatus(self.removeprefix("order."))


class DeliveryState(StrEnum):
    """How it stands with one message to one endpoint."""

    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"
