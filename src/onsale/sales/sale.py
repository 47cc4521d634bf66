"""One event's sale as this process sees it: enough to answer the crowd without any I/O.

The picture is a quarter of a second old at most, or else it is not used and the gate is asked; it
only ever refuses. Buyers who press again after the last seat went are not losers: who was ever
admitted is read together with the stock, and sent on to where the order is known.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf
from time import monotonic, time
from typing import NamedTuple

from onsale.domain.errors import Refused, SaleClosed, SaleNotOpen, SalePaused, SoldOut
from onsale.domain.event import Event, SaleState, sale_state
from onsale.domain.inventory import Outcome
from onsale.domain.order import Item, OrderRequest
from onsale.gate.gate import Admission, Availability, seen_name
from onsale.ledger.ledger import Placement
from onsale.sales.baskets import Baskets
from onsale.sales.group_commit import Pending
from onsale.sales.meters import SaleMeters


class Refusal(NamedTuple):
    """The gate's refusal; a stranger's order surely was never admitted before."""

    outcome: Outcome
    stranger: bool


# A refusal by the gate, or what became of the order in the ledger.
Verdict = Refusal | Placement
PendingOrder = Pending[OrderRequest, Verdict]


@dataclass(slots=True)
class SaleView:
    """What the gate said at `read_at_seconds` of this process's monotonic clock."""

    availability: Availability
    read_at_seconds: float
    # As of the latest answer of the gate, which may be later than the rest of the picture.
    orders_ever_admitted: int

    @property
    def age_seconds(self) -> float:
        return monotonic() - self.read_at_seconds

    def state_of(self, event: Event, age_seconds: float) -> SaleState:
        """The sale's state when the picture is this old, by the gate's clock."""
        return sale_state(
            self.availability.switch,
            self.now_ms_at(age_seconds),
            event.sale_opens_at_ms,
            event.sale_closes_at_ms,
        )

    def now_ms_at(self, age_seconds: float) -> int:
        """The gate's time: its clock when it was read, and what has passed here since."""
        return self.availability.now_ms + int(age_seconds * 1000)


class Sale:
    """See the module; `age_seconds_max` is how old a picture may be to refuse anybody."""

    __slots__ = (
        "event",
        "baskets",
        "meters",
        "asked_at_seconds",
        "lost_epoch",
        "view",
        "known_orders",
        "learning",
        "_refuses",
        "_seen",
        "_age_seconds_max",
        "_unheard_seen_at_seconds",
        "_unheard_until_seconds",
    )

    def __init__(self, event: Event, age_seconds_max: float) -> None:
        self.event = event
        self.baskets = Baskets(event)
        self.meters = SaleMeters(event)
        self.asked_at_seconds = 0.0
        # The loading of the gate that was last found lost here.
        self.lost_epoch: str | None = None
        self.view: SaleView | None = None
        # So many of the gate's log of admitted orders have been read, in their order.
        self.known_orders = 0
        # Held by whoever reads on in it.
        self.learning = asyncio.Lock()
        self._seen: set[int] = set()
        self._refuses = False
        self._age_seconds_max = age_seconds_max
        self._unheard_seen_at_seconds = 0.0
        self._unheard_until_seconds = 0.0

    # -- keeping the picture, by news of the loading that the event names: one loading's count of
    # admitted orders says nothing of another's

    def see_event(self, event: Event) -> None:
        """The event as the ledger has it; one that was read before the last change is no news."""
        if event.version < self.event.version:
            event = replace(self.event, gate_epoch=event.gate_epoch)
        if event == self.event:
            return
        if event.gate_epoch != self.event.gate_epoch:
            self.view = None
            self.known_orders = 0
            self._seen = set()
        self.event = event
        self.baskets = Baskets(event)

    def see(self, availability: Availability, asked_at_seconds: float) -> None:
        """How the sale stands, as the gate was asked at `asked_at_seconds` of the monotonic clock.

        A batch that was answered meanwhile may know of more admitted orders.
        """
        admitted = availability.orders_ever_admitted
        if self.view is not None:
            admitted = max(admitted, self.view.orders_ever_admitted)
        self.view = SaleView(availability, asked_at_seconds, admitted)
        self._see_refusals(availability)

    def see_orders(self, names: Sequence[int], after_orders: int) -> None:
        """Who was admitted next after the first `after_orders`."""
        assert after_orders <= self.known_orders, "the log is read from its beginning"
        self._seen.update(names)
        self.known_orders = max(self.known_orders, after_orders + len(names))

    def see_unheard(self) -> None:
        """The ledger has admitted orders alone, just now or a while ago, and the gate was not told:
        whom it does not know may have one of them, until the ledger says that it was told. One that
        is slow to say so, or away, has not.
        """
        self._unheard_seen_at_seconds = monotonic()
        self._unheard_until_seconds = inf

    def see_all_heard(self, asked_at_seconds: float) -> None:
        """The gate was told of every order, by the ledger as it was asked at `asked_at_seconds` of
        the monotonic clock. Once the gate was asked again since, it is as before.
        """
        if self.has_unheard and asked_at_seconds > self._unheard_seen_at_seconds:
            until_seconds = monotonic() + 2 * self._age_seconds_max
            self._unheard_until_seconds = min(self._unheard_until_seconds, until_seconds)

    def see_batch(self, admission: Admission) -> None:
        """What a batch of this process came to."""
        if self.view is not None:
            self.view.orders_ever_admitted = max(
                self.view.orders_ever_admitted, admission.orders_ever_admitted
            )
        self.see_units(admission.available_units)

    def see_units(self, available_units: dict[int, int]) -> None:
        """What is left of some tiers, as this process just learned."""
        if self.view is not None:
            self.view.availability.available_units.update(available_units)
            self._see_refusals(self.view.availability)

    def _see_refusals(self, availability: Availability) -> None:
        # Asked of every order that arrives: worked out when it changes.
        self._refuses = (
            min(availability.available_units.values(), default=0) <= 0
            or self.state() is not SaleState.OPEN
        )

    # -- answering from it

    @property
    def fresh(self) -> bool:
        """Whether the picture is young enough to refuse anybody."""
        return self.view is not None and self.view.age_seconds <= self._age_seconds_max

    @property
    def refuses(self) -> bool:
        """Whether there was anybody to be refused, for want of seats or time, at the last look."""
        return self._refuses and self.view is not None

    def state(self) -> SaleState:
        """The sale's state by the freshest picture there is."""
        view = self.view
        if view is None:
            # Without a gate only the ledger's word is left, which knows no time of day.
            return sale_state(
                self.event.switch,
                self.event.sale_opens_at_ms,
                0,
                self.event.sale_closes_at_ms,
            )
        return view.state_of(self.event, view.age_seconds)

    def refusal(self, items: Sequence[Item]) -> Outcome | None:
        """Why nobody could have these items now, or `None` when the gate must be asked."""
        view = self.view
        if view is None:
            return None
        age_seconds = view.age_seconds
        if age_seconds > self._age_seconds_max:
            return None
        state = view.state_of(self.event, age_seconds)
        if state is not SaleState.OPEN:
            return _STATE_OUTCOMES[state]
        available_units = view.availability.available_units
        for tier_number, quantity in items:
            if available_units.get(tier_number, quantity) < quantity:
                return Outcome.SOLD_OUT
        return None

    @property
    def knows_everybody(self) -> bool:
        """Whether nobody was admitted, of whom this process has heard, that it does not know."""
        return self.view is not None and self.known_orders >= self.view.orders_ever_admitted

    @property
    def has_unheard(self) -> bool:
        """Whether there may be orders that the gate does not know, by the ledger's word."""
        return monotonic() < self._unheard_until_seconds

    def may_have_admitted(self, order_id: bytes) -> bool:
        """Whether this order may have been admitted before; "no" is certain."""
        return not self.knows_everybody or self.has_unheard or seen_name(order_id) in self._seen

    def surely_never_admitted(self, order_id: bytes, orders_ever_admitted: int) -> bool:
        """Whether the order is none of so many that were ever admitted under this epoch."""
        return (
            self.known_orders >= orders_ever_admitted
            and seen_name(order_id) not in self._seen
            and not self.has_unheard
        )

    def error_for(self, outcome: Outcome) -> Refused:
        """The refusal that a buyer is told."""
        match outcome:
            case Outcome.NOT_OPEN:
                # Advice, not a decision: without a picture this host's clock will do.
                view = self.view
                now_ms = view.now_ms_at(view.age_seconds) if view else int(time() * 1000)
                opens_in_ms = max(0, self.event.sale_opens_at_ms - now_ms)
                return SaleNotOpen(self.event.sale_opens_at, opens_in_ms / 1000)
            case Outcome.PAUSED:
                return SalePaused()
            case Outcome.CLOSED:
                return SaleClosed()
            case Outcome.SOLD_OUT:
                return SoldOut()
            case _:
                raise AssertionError(f"{outcome.name} is not a refusal of this kind")


_STATE_OUTCOMES = {
    SaleState.SCHEDULED: Outcome.NOT_OPEN,
    SaleState.PAUSED: Outcome.PAUSED,
    SaleState.CLOSED: Outcome.CLOSED,
}
