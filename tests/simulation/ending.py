"""Ending an order: the ledger goes first and decides; the gate gets the stock back after.

As `sales.ending`.
"""

from collections.abc import Sequence

from onsale.domain.errors import (
    GateUnavailable,
    NotFound,
    OrderExpired,
    OrderNotRefundable,
    OrderNotReleasable,
)
from onsale.domain.order import OrderStatus
from tests.simulation.ledger import OrderRow
from tests.simulation.planted import Bug
from tests.simulation.process import Process
from tests.simulation.sale import Catalog, Sale
from tests.simulation.scheduler import Steps


def give_back(process: Process, sale: Sale, order_ids: Sequence[bytes]) -> Steps[None]:
    """Give stock back at the gate at once; what fails now is left to the reconciler."""
    epoch = sale.event.gate_epoch
    if epoch is None:
        return
    try:
        _, available_units = yield from process.run_script(
            epoch, process.around.gate.give_back, order_ids
        )
    except GateUnavailable:
        return
    if sale.event.gate_epoch == epoch:
        sale.see_units(available_units)


class Ending:
    """The use cases that end an order."""

    def __init__(self, process: Process, catalog: Catalog) -> None:
        self._process = process
        self._catalog = catalog
        self._ledger = process.around.ledger

    def release(self, order_id: bytes, buyer: bytes) -> Steps[OrderRow | None]:
        """Release the buyer's hold; releasing it again changes nothing."""
        if (yield from self._process.statement(self._ledger.release, order_id, buyer)):
            sale = yield from self._catalog.require()
            yield from give_back(self._process, sale, [order_id])
            return None
        row = yield from own_order(self._process, order_id)
        match row.status:
            case OrderStatus.RELEASED:
                return row
            case OrderStatus.HELD | OrderStatus.EXPIRED:
                raise OrderExpired
            case _:
                raise OrderNotReleasable

    def refund(self, order_id: bytes) -> Steps[OrderRow]:
        """Refund a confirmed order; refunding it again changes nothing."""
        refunded = yield from self._process.statement(self._ledger.refund, order_id)
        if refunded and not self._process.has(Bug.REFUND_FORGETS_THE_GATE):
            sale = yield from self._catalog.require()
            yield from give_back(self._process, sale, [order_id])
        row = yield from own_order(self._process, order_id)
        if row.status is not OrderStatus.REFUNDED:
            raise OrderNotRefundable
        return row


def own_order(process: Process, order_id: bytes) -> Steps[OrderRow]:
    """The order. Raises `NotFound`."""
    row = yield from process.statement(process.around.ledger.get, order_id)
    if row is None or row.status is OrderStatus.ABANDONED:
        raise NotFound
    return row
