"""What organisers do during a sale: another capacity. The ledger goes first.

As `sales.organising`.
"""

from contextlib import suppress

from onsale.domain.errors import GateUnavailable
from tests.simulation.process import Process
from tests.simulation.sale import Catalog
from tests.simulation.scheduler import Steps


class Organising:
    """The organisers' use cases."""

    def __init__(self, process: Process, catalog: Catalog) -> None:
        self._process = process
        self._catalog = catalog

    def set_capacity(self, tier_number: int, capacity_units: int) -> Steps[None]:
        """Give a tier another capacity. Raises `CapacityBelowReserved`, `LedgerUnavailable`."""
        process = self._process
        event = yield from process.statement(
            process.around.ledger.set_capacity, tier_number, capacity_units
        )
        sale = yield from self._catalog.reload()
        epoch = sale.event.gate_epoch
        if epoch is not None:
            with suppress(GateUnavailable):  # then the reconciler tells it
                yield from process.run_script(
                    epoch, process.around.gate.configure, event.version, event.capacity_units
                )
        sale.view = None
        sale.see_event(event._replace(gate_epoch=epoch))
