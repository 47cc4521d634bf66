"""Ending an order: released by its buyer, refunded by the organiser, expired by the sweeper.

The ledger goes first and decides; the gate gets the stock back after. Where the gate does not
answer, the reconciler gives the same ids back later, once.
"""

from collections.abc import Sequence

from onsale.domain.errors import (
    GateUnavailable,
    NotFound,
    OrderExpired,
    OrderNotRefundable,
    OrderNotReleasable,
)
from onsale.domain.order import Order, OrderStatus
from onsale.gate.gate import Gate
from onsale.ledger.ledger import Ledger, OrderKey
from onsale.observability.logging import get_logger
from onsale.sales import meters
from onsale.sales.catalog import Catalog
from onsale.sales.sale import Sale

log = get_logger(__name__)


class GiveBack:
    """Gives stock back at the gate, at once if that is possible."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    async def __call__(self, sale: Sale, order_ids: Sequence[bytes]) -> None:
        """Give the stock of these ids back; what fails now is left to the reconciler."""
        epoch = sale.event.gate_epoch
        if epoch is None:
            return
        try:
            _, available_units = await self._gate.give_back(sale.event.id, epoch, order_ids)
        except GateUnavailable as error:
            log.warning(
                "stock not given back yet",
                event_id=sale.event.id,
                cause=repr(error.__cause__),
            )
        else:
            if sale.event.gate_epoch == epoch:
                sale.see_units(available_units)


class Ending:
    """The use cases that end an order."""

    def __init__(self, catalog: Catalog, ledger: Ledger, give_back: GiveBack) -> None:
        self._catalog = catalog
        self._ledger = ledger
        self._give_back = give_back

    async def release(self, key: OrderKey, buyer_id: str) -> None:
        """Release the buyer's hold; releasing it again changes nothing.

        Raises `NotFound` (also for somebody else's order), `OrderExpired`, `OrderNotReleasable`,
        `LedgerUnavailable`.
        """
        if await self._ledger.release(key, buyer_id):
            meters.ended(key, "released")
            await self._give_back(await self._catalog.require(key.event_id), [key.order_id])
            return
        order = await own_order(self._ledger, key, buyer_id)
        match order.status:
            case OrderStatus.RELEASED:
                return
            case OrderStatus.HELD | OrderStatus.EXPIRED:
                # Still held and yet not released: overdue, and the sweeper is on its way.
                raise OrderExpired
            case _:
                raise OrderNotReleasable

    async def refund(self, key: OrderKey) -> Order:
        """Refund a confirmed order; refunding it again changes nothing.

        Raises `NotFound`, `OrderNotRefundable`, `LedgerUnavailable`.
        """
        refunded = await self._ledger.refund(key)
        if refunded:
            meters.ended(key, "refunded")
            await self._give_back(await self._catalog.require(key.event_id), [key.order_id])
        order = await self._ledger.get(key)
        if order is None or order.status is OrderStatus.ABANDONED:
            raise NotFound
        if order.status is not OrderStatus.REFUNDED:
            raise OrderNotRefundable
        return order


async def own_order(ledger: Ledger, key: OrderKey, buyer_id: str | None) -> Order:
    """The order if it is there and the buyer's own (or `buyer_id` is `None`: anybody's).

    Raises `NotFound`, without telling which of the two it was.
    """
    order = await ledger.get(key)
    if order is None or order.status is OrderStatus.ABANDONED:
        raise NotFound
    if buyer_id is not None and order.buyer_id != buyer_id:
        raise NotFound
    return order
