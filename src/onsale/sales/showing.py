"""An order as the outside sees it, in answers and in webhooks alike."""

from typing import Any

from onsale.domain.event import Event
from onsale.domain.order import Order, OrderStatus


def order_fields(order: Order, event: Event) -> dict[str, Any]:
    """The fields of an order in their order, ready for JSON; amounts in minor units."""
    tiers = event.tier_by_number
    return {
        "id": order.id.hex(),
        "event_id": order.event_id,
        "buyer_id": order.buyer_id,
        "status": order.status,
        "items": [
            {"tier_id": tiers[number].id, "quantity": quantity} for number, quantity in order.items
        ],
        "amount": order.amount_minor_units,
        "currency": order.currency,
        "created_at": order.created_at,
        "expires_at": order.expires_at if order.status is OrderStatus.HELD else None,
    }
