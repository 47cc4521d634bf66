"""The sales that this process knows, each with a picture that is kept young while buyers ask."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from time import monotonic

from onsale.domain.errors import GateLost, GateUnavailable, LedgerUnavailable, NotFound
from onsale.gate.gate import Availability, Gate
from onsale.ledger.events import Events
from onsale.observability.logging import get_logger
from onsale.sales.sale import Sale

_SALES_MAX = 1_000
_UNKNOWN_IDS_MAX = 10_000
# An id that was not there a second ago is not looked up again: guessing must not reach Postgres.
_UNKNOWN_SECONDS = 1.0
# A sale that nobody has asked for in this time is not kept young.
_IDLE_SECONDS = 5.0
# So that one look may be late, and the next one too.
_LOOKS_PER_AGE = 4
# What others changed about an event (its capacity, its epoch) is seen after this time.
_EVENT_AGE_SECONDS_MAX = 1.0

log = get_logger(__name__)


class Catalog:
    """See the module. `age_seconds_max` is how old a sale's picture may be to refuse anybody."""

    def __init__(self, events: Events, gate: Gate, age_seconds_max: float) -> None:
        self._events = events
        self._gate = gate
        self._age_seconds_max = age_seconds_max
        self._sales: OrderedDict[str, Sale] = OrderedDict()
        self._unknown: OrderedDict[str, float] = OrderedDict()
        self._loading: dict[str, asyncio.Task[Sale]] = {}

    def known(self, event_id: str) -> Sale | None:
        """The sale, if this process has it already."""
        sale = self._sales.get(event_id)
        if sale is not None:
            sale.asked_at_seconds = monotonic()
            self._sales.move_to_end(event_id)
        return sale

    def sales(self) -> tuple[Sale, ...]:
        """Every sale this process knows."""
        return tuple(self._sales.values())

    async def require(self, event_id: str) -> Sale:
        """The sale. Raises `NotFound`, `LedgerUnavailable`."""
        sale = self.known(event_id) or await self.reload(event_id)
        sale.asked_at_seconds = monotonic()
        return sale

    async def reload(self, event_id: str) -> Sale:
        """The sale with its event read anew; many who ask at once share one reading.

        Raises `NotFound`, `LedgerUnavailable`.
        """
        if self._unknown.get(event_id, 0.0) > monotonic():
            raise NotFound
        loading = self._loading.get(event_id)
        if loading is None:
            loading = asyncio.create_task(self._load(event_id))
            self._loading[event_id] = loading
            loading.add_done_callback(lambda _: self._loading.pop(event_id))
        # Shielded: one who stops waiting must not stop it for the others.
        return await asyncio.shield(loading)

    async def _load(self, event_id: str) -> Sale:
        event = await self._events.get(event_id)
        if event is None:
            self._unknown[event_id] = monotonic() + _UNKNOWN_SECONDS
            if len(self._unknown) > _UNKNOWN_IDS_MAX:
                self._unknown.popitem(last=False)
            raise NotFound
        sale = self._sales.get(event_id)
        if sale is None:
            sale = self._sales[event_id] = Sale(event, self._age_seconds_max)
            if len(self._sales) > _SALES_MAX:
                self._sales.popitem(last=False)
        sale.see_event(event)
        return sale

    async def availability(self, sale: Sale) -> Availability:
        """The sale's availability, from its picture if that is young, else from the gate.

        Raises `GateUnavailable`.
        """
        if not sale.fresh:
            await self._look(sale)
        assert sale.view is not None
        return sale.view.availability

    async def keep_young(self) -> None:
        """Look after every sale that buyers ask for, for ever; errors are met at the next look."""
        # Pictures apart from events: reading the ledger takes longer than a picture may be old.
        await asyncio.gather(
            self._repeat(self._look_after, self._age_seconds_max / _LOOKS_PER_AGE),
            self._repeat(self._read_again, _EVENT_AGE_SECONDS_MAX),
            # Ended when both have: redis-py may lose a cancellation (see `stop`), and the one that
            # heard of it would leave the other behind.
            return_exceptions=True,
        )

    async def _repeat(
        self, look: Callable[[Sale], Awaitable[object]], pause_seconds: float
    ) -> None:
        while True:
            asked_since = monotonic() - _IDLE_SECONDS
            for sale in self.sales():
                # A retired gate has no news, and neither has its event.
                if sale.asked_at_seconds > asked_since and not sale.event.gate_retired:
                    try:
                        await look(sale)
                    except (GateUnavailable, LedgerUnavailable, NotFound) as error:
                        log.debug("sale not refreshed", event_id=sale.event.id, error=str(error))
            await asyncio.sleep(pause_seconds)

    async def _read_again(self, sale: Sale) -> None:
        await self.reload(sale.event.id)

    async def _look_after(self, sale: Sale) -> None:
        await self._look(sale)
        view, epoch = sale.view, sale.event.gate_epoch
        if view is not None and epoch is not None and sale.refuses and sale.filter_is_behind:
            admitted = view.orders_ever_admitted
            seen = await self._gate.seen_filter(sale.event.id, epoch)
            if sale.event.gate_epoch == epoch:
                sale.see_filter(seen, admitted)

    async def _look(self, sale: Sale) -> None:
        if sale.event.gate_epoch is None and not sale.event.gate_retired:
            await self.reload(sale.event.id)
        epoch = sale.event.gate_epoch
        if epoch is None:
            raise GateLost
        asked_at_seconds = monotonic()
        try:
            availability = await self._gate.availability(sale.event.id, epoch)
        except GateLost:
            sale.view = None
            await self.reload(sale.event.id)
            raise
        if sale.event.gate_epoch != epoch:
            raise GateLost
        sale.see(availability, asked_at_seconds)
