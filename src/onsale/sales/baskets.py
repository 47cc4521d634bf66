"""What buyers ask for, understood once: a crowd asks for few different things."""

from typing import NamedTuple

from onsale.domain.errors import FieldError, InvalidRequest
from onsale.domain.event import Event, PaymentKind
from onsale.domain.ids import fingerprint
from onsale.domain.order import Item

# Beyond what honest buyers think of, and small beside what a process takes anyway.
_REMEMBERED_MAX = 1_000


class Asked(NamedTuple):
    """What a buyer asks for, checked for form only; `items` are (tier id, quantity)."""

    items: tuple[tuple[str, int], ...]
    payment_method: str | None


class Basket(NamedTuple):
    """What that comes to: items as the stores know them, sorted, and all that follows from them."""

    items: tuple[Item, ...]
    amount_minor_units: int
    fingerprint: bytes


class Baskets:
    """What one event's buyers ask for."""

    __slots__ = ("_event", "_known")

    def __init__(self, event: Event) -> None:
        self._event = event
        self._known: dict[Asked, Basket] = {}

    def of(self, asked: Asked) -> Basket:
        """The basket.

        Raises `InvalidRequest` for a tier that the event does not have, and for a payment where
        none is taken.
        """
        basket = self._known.get(asked)
        if basket is None:
            basket = self._fill(asked)
            if len(self._known) < _REMEMBERED_MAX:
                self._known[asked] = basket
        return basket

    def _fill(self, asked: Asked) -> Basket:
        items, amount_minor_units = [], 0
        for position, (tier_id, quantity) in enumerate(asked.items):
            tier = self._event.tier_by_id.get(tier_id)
            if tier is None:
                raise InvalidRequest(
                    FieldError(f"items.{position}.tier_id", "this event has no such tier")
                )
            items.append(Item(tier.number, quantity))
            amount_minor_units += tier.price_minor_units * quantity
        if asked.payment_method is not None and self._event.payment is PaymentKind.NONE:
            raise InvalidRequest(FieldError("payment", "this event takes no payment"))
        in_order = tuple(sorted(items))
        return Basket(in_order, amount_minor_units, fingerprint(in_order, asked.payment_method))
