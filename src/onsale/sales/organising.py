"""What organisers do: put an event on sale, pause, resume and close it, change a capacity.

The ledger goes first; the gate follows at once, or by the reconciler where it does not answer.
"""

from dataclasses import replace

from onsale.domain.errors import GateUnavailable, SaleClosed
from onsale.domain.event import Event, SaleSwitch
from onsale.gate.gate import Gate
from onsale.ledger.events import Events, NewEvent
from onsale.ledger.ledger import Ledger
from onsale.observability.logging import get_logger
from onsale.sales.catalog import Catalog
from onsale.sales.loading import load_gate

log = get_logger(__name__)


class Organising:
    """The organisers' use cases."""

    def __init__(self, catalog: Catalog, gate: Gate, ledger: Ledger, events: Events) -> None:
        self._catalog = catalog
        self._gate = gate
        self._ledger = ledger
        self._events = events

    async def create(self, new: NewEvent) -> Event:
        """Write an event down and load its gate. Raises `LedgerUnavailable`."""
        event = await self._events.create(new)
        try:
            await load_gate(event, self._gate, self._ledger, self._events, wait=True)
        except GateUnavailable as error:
            log.warning(
                "gate not loaded yet", event_id=event.id, error=repr(error.__cause__ or error)
            )
        return (await self._catalog.reload(event.id)).event

    async def switch(self, event_id: str, switch: SaleSwitch) -> Event:
        """Open, pause or close a sale. Raises `NotFound`, `SaleClosed`, `LedgerUnavailable`."""
        event = await self._events.set_switch(event_id, switch)
        if event.switch is not switch:
            raise SaleClosed
        return await self._tell_gate(event)

    async def set_capacity(self, event_id: str, tier_id: str, capacity_units: int) -> Event:
        """Give a tier another capacity.

        Raises `NotFound`, `CapacityBelowReserved`, `LedgerUnavailable`.
        """
        return await self._tell_gate(
            await self._events.set_capacity(event_id, tier_id, capacity_units)
        )

    async def _tell_gate(self, event: Event) -> Event:
        sale = await self._catalog.reload(event.id)
        epoch = sale.event.gate_epoch
        if epoch is not None:
            try:
                await self._gate.configure(event, epoch)
            except GateUnavailable as error:
                log.warning(
                    "gate not told yet", event_id=event.id, error=repr(error.__cause__ or error)
                )
        # What this process knew of the sale is from before: the next buyer is for the gate.
        sale.view = None
        sale.see_event(replace(event, gate_epoch=epoch))
        return event
