"""The sales that this process knows, each with a picture that is kept young while buyers ask."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
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
            if sale.event.gate_epoch is None and not sale.event.gate_retired:
                await self.reload(sale.event.id)
            (failure,) = await self._look([sale])
            if failure is not None:
                await self._follow_up(sale, failure)
        assert sale.view is not None
        return sale.view.availability

    async def keep_young(self) -> None:
        """Look after every sale that buyers ask for, for ever; errors are met at the next look."""
        # Pictures apart from events: reading the ledger takes longer than a picture may be old.
        await asyncio.gather(
            self._repeat(self._look_after, self._age_seconds_max / _LOOKS_PER_AGE),
            self._repeat(self._read_again, _EVENT_AGE_SECONDS_MAX),
            self._repeat(self._look_for_unheard, self._age_seconds_max / _LOOKS_PER_AGE),
            # Ended when both have: redis-py may lose a cancellation (see `stop`), and the one that
            # heard of it would leave the other behind.
            return_exceptions=True,
        )

    async def _repeat(
        self, look: Callable[[list[Sale]], Awaitable[None]], every_seconds: float
    ) -> None:
        while True:
            began_at_seconds = monotonic()
            asked_since = began_at_seconds - _IDLE_SECONDS
            # A retired gate has no news, and neither has its event.
            asked_for = [
                sale
                for sale in self.sales()
                if sale.asked_at_seconds > asked_since and not sale.event.gate_retired
            ]
            if asked_for:
                await look(asked_for)
            # From one look's beginning to the next: on a busy process the looks themselves take
            # long, and a picture that is too old sends its whole crowd on to the gate.
            await asyncio.sleep(max(0.0, began_at_seconds + every_seconds - monotonic()))

    async def _read_again(self, sales: list[Sale]) -> None:
        with _until_next_time():
            for event in await self._events.several([sale.event.id for sale in sales]):
                sale = self._sales.get(event.id)
                if sale is not None:
                    sale.see_event(event)

    async def _look_for_unheard(self, sales: list[Sale]) -> None:
        # Where no gate answers, the ledger refuses, and it knows its own.
        refusing = {sale.event.id: sale for sale in sales if sale.fresh}
        if not refusing:
            return
        asked_at_seconds = monotonic()
        with _until_next_time():
            unheard = await self._events.with_unheard(list(refusing))
            for event_id, sale in refusing.items():
                if event_id in unheard:
                    sale.see_unheard()
                else:
                    sale.see_all_heard(asked_at_seconds)

    async def learn_orders(self, sale: Sale, orders_ever_admitted: int) -> None:
        """Read who was admitted, unless so many are known. Raises `GateUnavailable`, `GateLost`."""
        # One reads on, and who waited finds it read: else a process that is new in a long sale
        # would read the whole log for each batch, on all of its connections to the gate.
        async with sale.learning:
            epoch = sale.event.gate_epoch
            while epoch is not None and sale.known_orders < orders_ever_admitted:
                known_orders = sale.known_orders
                names = await self._gate.seen(sale.event.id, epoch, known_orders)
                # By the epoch alone it would not be told from before, when an older reading of the
                # event came late and a newer one after it.
                forgotten = sale.known_orders != known_orders
                if sale.event.gate_epoch != epoch or forgotten or not names:
                    return
                sale.see_orders(names, known_orders)

    async def _look_after(self, sales: list[Sale]) -> None:
        for sale, failure in zip(sales, await self._look(sales), strict=True):
            with _until_next_time(event_id=sale.event.id):
                if failure is not None:
                    await self._follow_up(sale, failure)
                elif sale.view is not None and sale.refuses:
                    await self.learn_orders(sale, sale.view.orders_ever_admitted)

    async def _follow_up(self, sale: Sale, failure: GateUnavailable) -> None:
        """Read the event of a lost gate anew: it may have another by now. Raises the failure."""
        if isinstance(failure, GateLost):
            await self.reload(sale.event.id)
        raise failure

    async def _look(self, sales: Sequence[Sale]) -> list[GateUnavailable | None]:
        """Ask the gate how sales stand, all at once; for each the failure, if it was one."""
        asked_at_seconds = monotonic()
        epochs = [sale.event.gate_epoch for sale in sales]
        answers = iter(
            await self._gate.availabilities(
                [
                    (sale.event.id, epoch)
                    for sale, epoch in zip(sales, epochs, strict=True)
                    if epoch is not None
                ]
            )
        )
        return [
            _see(sale, epoch, GateLost() if epoch is None else next(answers), asked_at_seconds)
            for sale, epoch in zip(sales, epochs, strict=True)
        ]


def _see(
    sale: Sale, epoch: str | None, answer: Availability | GateUnavailable, asked_at_seconds: float
) -> GateUnavailable | None:
    if isinstance(answer, GateLost):
        sale.view = None
    if isinstance(answer, GateUnavailable):
        return answer
    if sale.event.gate_epoch != epoch:
        return GateLost()
    sale.see(answer, asked_at_seconds)
    return None


@contextmanager
def _until_next_time(**concerned: str) -> Iterator[None]:
    """Let what fails be met at the next look."""
    try:
        yield
    except (GateUnavailable, LedgerUnavailable, NotFound) as error:
        log.debug("sale not refreshed", error=str(error), **concerned)
