"""The sale as one process sees it: enough to refuse from memory, and never to admit.

As `sales.sale` and `sales.catalog`: the event as the ledger had it, how it stood at the gate a
moment ago, and the log of the orders that were ever admitted there.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from onsale.domain.errors import GateLost
from onsale.domain.inventory import Outcome
from onsale.domain.order import Item
from tests.simulation.gate import Admission, Availability
from tests.simulation.ledger import EventRow
from tests.simulation.process import Process
from tests.simulation.scheduler import Promise, Steps
from tests.simulation.timing import PICTURE_AGE_MS


@dataclass(slots=True)
class View:
    """What the gate said when it was asked at `asked_at_ms`."""

    available_units: dict[int, int]
    asked_at_ms: int
    orders_ever_admitted: int


class Sale:
    """See the module."""

    def __init__(self, process: Process, event: EventRow) -> None:
        self._process = process
        self.event = event
        self.view: View | None = None
        # So many of the gate's log of admitted orders have been read, in their order.
        self.known_orders = 0
        self._seen: set[bytes] = set()

    def see_event(self, event: EventRow) -> None:
        """The event as the ledger has it; one that was read before the last change is no news."""
        if event.version < self.event.version:
            event = self.event._replace(gate_epoch=event.gate_epoch)
        if event.gate_epoch != self.event.gate_epoch:
            self.view = None
            self.known_orders = 0
            self._seen = set()
        self.event = event

    def see(self, availability: Availability, asked_at_ms: int) -> None:
        """How the sale stands, as the gate said; a batch may have told of more admitted orders."""
        admitted = availability.orders_ever_admitted
        if self.view is not None:
            admitted = max(admitted, self.view.orders_ever_admitted)
        self.view = View(dict(availability.available_units), asked_at_ms, admitted)

    def see_orders(self, order_ids: Sequence[bytes], after_orders: int) -> None:
        """Who was admitted next after the first `after_orders`."""
        self._seen.update(order_ids)
        self.known_orders = max(self.known_orders, after_orders + len(order_ids))

    def see_batch(self, admission: Admission) -> None:
        """What a batch of this process came to."""
        if self.view is not None:
            self.view.orders_ever_admitted = max(
                self.view.orders_ever_admitted, admission.orders_ever_admitted
            )
        self.see_units(admission.available_units)

    def see_units(self, available_units: dict[int, int]) -> None:
        """What is left of some tiers."""
        if self.view is not None:
            self.view.available_units.update(available_units)

    @property
    def refuses(self) -> bool:
        """Whether there is anybody to be refused for want of seats."""
        return self.view is not None and min(self.view.available_units.values()) <= 0

    def refusal(self, items: Sequence[Item]) -> Outcome | None:
        """Why nobody could have these items now, or `None` when the gate must be asked."""
        view = self.view
        if view is None or self._process.now_ms() - view.asked_at_ms > PICTURE_AGE_MS:
            return None
        for tier_number, quantity in items:
            if view.available_units.get(tier_number, quantity) < quantity:
                return Outcome.SOLD_OUT
        return None

    def may_have_admitted(self, order_id: bytes) -> bool:
        """Whether this order may have been admitted before; "no" is certain."""
        view = self.view
        knows_everybody = view is not None and self.known_orders >= view.orders_ever_admitted
        return not knows_everybody or order_id in self._seen

    def surely_never_admitted(self, order_id: bytes, orders_ever_admitted: int) -> bool:
        """Whether the order is none of so many that were ever admitted under this epoch."""
        return self.known_orders >= orders_ever_admitted and order_id not in self._seen


class Catalog:
    """The one sale that this process knows."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._sale: Sale | None = None
        self._loading: Promise[Sale] | None = None

    def require(self) -> Steps[Sale]:
        """The sale. Raises `LedgerUnavailable`."""
        if self._sale is not None:
            return self._sale
        return (yield from self.reload())

    def reload(self) -> Steps[Sale]:
        """The sale with its event read anew; many who ask at once share one reading.

        Raises `LedgerUnavailable`.
        """
        if self._loading is None:
            self._loading = self._process.spawn(self._load())
        return (yield from self._loading.kept())

    def _load(self) -> Steps[Sale]:
        try:
            event = yield from self._process.statement(self._process.around.ledger.event)
        finally:
            self._loading = None
        if self._sale is None:
            self._sale = Sale(self._process, event)
        self._sale.see_event(event)
        return self._sale

    def look_after(self) -> Steps[None]:
        """Keep the picture young. Raises `GateUnavailable`, `LedgerUnavailable`."""
        sale = yield from self.require()
        yield from self._look(sale)
        if sale.view is not None and sale.refuses:
            yield from self.learn_orders(sale, sale.view.orders_ever_admitted)

    def learn_orders(self, sale: Sale, orders_ever_admitted: int) -> Steps[None]:
        """Read who was admitted, unless so many are known. Raises `GateUnavailable`, `GateLost`."""
        epoch = sale.event.gate_epoch
        while epoch is not None and sale.known_orders < orders_ever_admitted:
            known_orders = sale.known_orders
            read = self._process.around.gate.seen
            order_ids = yield from self._process.run_script(epoch, read, known_orders)
            if sale.event.gate_epoch != epoch or not order_ids:
                return
            sale.see_orders(order_ids, known_orders)

    def _look(self, sale: Sale) -> Steps[None]:
        if sale.event.gate_epoch is None:
            yield from self.reload()
        epoch = sale.event.gate_epoch
        if epoch is None:
            raise GateLost
        asked_at_ms = self._process.now_ms()
        try:
            gate = self._process.around.gate
            availability = yield from self._process.run_script(epoch, gate.availability)
        except GateLost:
            sale.view = None
            yield from self.reload()
            raise
        if sale.event.gate_epoch != epoch:
            raise GateLost
        sale.see(availability, asked_at_ms)
