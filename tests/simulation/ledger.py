"""The ledger's server: its statements, each one transaction and so one step.

Its order is total, as that of the tiers' locks is in Postgres, and nothing that it committed is
ever lost. Whether a caller hears of a commit is another matter.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from onsale.domain.errors import CapacityBelowReserved
from onsale.domain.inventory import Outcome, TakenOrder
from onsale.domain.order import OrderStatus
from onsale.domain.payment import PaymentState
from tests.simulation.network import Server
from tests.simulation.plan import Terms
from tests.simulation.planted import Bug
from tests.simulation.scheduler import Scheduler, Trouble
from tests.simulation.timing import HOLD_MS, PAYMENT_GIVEN_UP_MS

_OPEN_PAYMENTS = (PaymentState.STARTED, PaymentState.AUTHORIZED, PaymentState.CAPTURED)
_DUE_PAYMENTS = (PaymentState.AUTHORIZED, PaymentState.VOID_DUE, PaymentState.REFUND_DUE)


class ConstraintRefused(Trouble):
    """A constraint refused a statement, and with it everything the statement did."""


class OrderRow(NamedTuple):
    """An order as the ledger remembers it; times by the ledger's clock."""

    order: TakenOrder
    status: OrderStatus
    created_at_ms: int
    expires_at_ms: int | None = None
    ended_at_ms: int | None = None
    # Admitted by the ledger alone, and not known yet to have been told to the gate.
    unheard: bool = False

    @property
    def live(self) -> bool:
        return self.status.live


class Placement(NamedTuple):
    """What became of an order: how it now stands, and whether it is new."""

    row: OrderRow
    new: bool


class EventRow(NamedTuple):
    """The event, as far as it changes."""

    capacity_units: dict[int, int]
    version: int = 1
    gate_generation: int = 0
    gate_epoch: str | None = None


class PaymentRow(NamedTuple):
    """One attempt to pay."""

    number: int
    order_id: bytes
    attempt: int
    method: str
    state: PaymentState
    changed_at_ms: int

    @property
    def key(self) -> str:
        """Its name at the provider."""
        return f"{self.order_id.hex()}.{self.attempt}"


class PaymentStanding(NamedTuple):
    """How it stands with paying for an order."""

    overdue: bool
    under_way: PaymentRow | None
    age_ms: int


class LedgerRecord(NamedTuple):
    """What the ledger held from `since_ms` on, until the next record."""

    since_ms: int
    orders: dict[bytes, OrderRow]
    capacity_units: dict[int, int]


@dataclass(slots=True, eq=False)
class Session:
    """A connection that keeps a lock for as long as it is open."""

    open: bool = True


class LedgerServer(Server):
    """One Postgres, and one event in it. `committed` is called after every change of an order."""

    def __init__(
        self,
        scheduler: Scheduler,
        terms: Terms,
        skew_ms: int,
        bugs: frozenset[Bug],
        committed: Callable[[], None],
    ) -> None:
        super().__init__("ledger")
        self._scheduler = scheduler
        self._terms = terms
        self._skew_ms = skew_ms
        self._bugs = bugs
        self._committed = committed
        self._event = EventRow(dict(terms.capacity_units))
        self.reserved_units = dict.fromkeys(terms.capacity_units, 0)
        self.sold_units = dict.fromkeys(terms.capacity_units, 0)
        self.orders: dict[bytes, OrderRow] = {}
        self.payments: dict[tuple[bytes, int], PaymentRow] = {}
        self.changes = 0
        self.lowered_capacity = False
        self.records = [LedgerRecord(0, {}, self._event.capacity_units)]
        self._loader: Session | None = None

    # -- placing

    def place(self, orders: Sequence[TakenOrder]) -> list[Placement]:
        """PLACE: every order that is new here, or none. Raises `ConstraintRefused`."""
        distinct = {order.order_id: order for order in reversed(orders)}
        new = [order for order_id, order in distinct.items() if order_id not in self.orders]
        if not self._fit(new):
            raise ConstraintRefused("stock")
        if Bug.PLACE_WITHOUT_LIMIT not in self._bugs and self._over_limit(new):
            raise ConstraintRefused("limit")
        for order in new:
            self._insert(order)
        if new:
            self._changed()
        return self._placements(orders, {order.order_id for order in new})

    def admit(self, orders: Sequence[TakenOrder]) -> list[Placement | Outcome]:
        """The ledger's own admission: under the tiers' locks, in arrival order, whatever fits."""
        verdicts: list[Placement | Outcome] = []
        units_before = {order.buyer: self.units_of(order.buyer) for order in orders}
        changed = False
        for order in orders:
            refusal = self._refusal(order, units_before)
            if order.order_id in self.orders:
                verdicts.append(Placement(self.orders[order.order_id], new=False))
            elif refusal is not None:
                verdicts.append(refusal)
            else:
                verdicts.append(Placement(self._insert(order, unheard=True), new=True))
                changed = True
        if changed:
            self._changed()
        return verdicts

    def _refusal(self, order: TakenOrder, units_before: dict[bytes, int]) -> Outcome | None:
        if self._terms.limit_units and Bug.LEDGER_ADMITS_WITHOUT_LIMIT not in self._bugs:
            counts_late = Bug.LEDGER_COUNTS_BEFORE_IT_LOCKS not in self._bugs
            units = self.units_of(order.buyer) if counts_late else units_before[order.buyer]
            if units + order.units > self._terms.limit_units:
                return Outcome.BUYER_LIMIT
        return None if self._fit([order]) else Outcome.SOLD_OUT

    def _fit(self, orders: Sequence[TakenOrder]) -> bool:
        """CHECK (reserved <= capacity)"""
        if Bug.NO_STOCK_CHECKS in self._bugs:
            return True
        wanted = dict(self.reserved_units)
        for item in (item for order in orders for item in order.items):
            wanted[item.tier_number] += item.quantity
        return all(units <= self._event.capacity_units[tier] for tier, units in wanted.items())

    def _over_limit(self, orders: Sequence[TakenOrder]) -> bool:
        wanted: dict[bytes, int] = {}
        for order in orders if self._terms.limit_units else ():
            before = wanted.get(order.buyer, self.units_of(order.buyer))
            wanted[order.buyer] = before + order.units
        return any(units > self._terms.limit_units for units in wanted.values())

    def _insert(self, order: TakenOrder, *, unheard: bool = False) -> OrderRow:
        held = self._terms.takes_cards
        row = OrderRow(
            order,
            OrderStatus.HELD if held else OrderStatus.CONFIRMED,
            self.now_ms(),
            expires_at_ms=self.now_ms() + HOLD_MS if held else None,
            unheard=unheard,
        )
        self.orders[order.order_id] = row
        self._count(row, +1)
        return row

    def _placements(self, orders: Sequence[TakenOrder], new: set[bytes]) -> list[Placement]:
        placements = []
        for order in orders:
            # Of twins in one batch the first is new.
            placements.append(Placement(self.orders[order.order_id], order.order_id in new))
            new.discard(order.order_id)
        return placements

    # -- reading

    def event(self) -> EventRow:
        """The event as it stands."""
        return self._event

    def get(self, order_id: bytes) -> OrderRow | None:
        """READ"""
        return self.orders.get(order_id)

    def live_orders_after(self, after: bytes, size: int) -> list[TakenOrder]:
        """READ_LIVE_AFTER: a chunk, at its own instant."""
        live = sorted(key for key, row in self.orders.items() if row.live and key > after)
        return [self.orders[order_id].order for order_id in live[:size]]

    def ended_ids_after(self, after: bytes, size: int) -> list[bytes]:
        """Orders that are over, abandoned ones included: a chunk, at its own instant."""
        return sorted(key for key, row in self.orders.items() if not row.live and key > after)[
            :size
        ]

    def rows(self, order_ids: Sequence[bytes]) -> dict[bytes, OrderRow]:
        """Those that are here."""
        return {key: self.orders[key] for key in order_ids if key in self.orders}

    def unheard(self, size: int) -> list[bytes]:
        """UNHEARD: what the ledger admitted alone, whatever became of it."""
        return [order_id for order_id, row in self.orders.items() if row.unheard][:size]

    def heard(self, order_ids: Sequence[bytes]) -> None:
        """HEARD: the gate knows of these."""
        for order_id in order_ids:
            self.orders[order_id] = self.orders[order_id]._replace(unheard=False)
        self.changes += 1

    def ended_within(self, within_ms: int) -> list[bytes]:
        """Orders that ended lately."""
        since_ms = self.now_ms() - within_ms
        return [
            key
            for key, row in self.orders.items()
            if row.ended_at_ms is not None and row.ended_at_ms > since_ms
        ]

    # -- ending

    def release(self, order_id: bytes, buyer: bytes) -> bool:
        """RELEASE"""
        row = self.orders.get(order_id)
        if row is None or row.order.buyer != buyer or not self._held_in_time(row):
            return False
        self._end(order_id, OrderStatus.RELEASED)
        self._changed()
        return True

    def expire(self, size: int, now_ms: int | None = None) -> list[bytes]:
        """EXPIRE. `now_ms` is only for the sweeper that brings its own clock."""
        now_ms = self.now_ms() if now_ms is None else now_ms
        due = [key for key, row in self.orders.items() if _overdue(row, now_ms)]
        if Bug.SWEEPER_SPARES_WHO_TRIED_TO_PAY in self._bugs:
            due = [order_id for order_id in due if not self._payments_of(order_id)]
        due = due[:size]
        for order_id in due:
            self._end(order_id, OrderStatus.EXPIRED)
        if due:
            self._changed()
        return due

    def refund(self, order_id: bytes) -> bool:
        """REFUND: the order ends, and its payment goes to the outbox in the same step."""
        row = self.orders.get(order_id)
        if row is None or row.status is not OrderStatus.CONFIRMED:
            return False
        self._end(order_id, OrderStatus.REFUNDED)
        for key, payment in self.payments.items():
            if payment.order_id != order_id:
                continue
            if (
                payment.state is PaymentState.AUTHORIZED
                and Bug.REFUND_VOIDS_A_CAPTURE in self._bugs
            ):
                self._enter(key, PaymentState.VOID_DUE)
            elif payment.state in (PaymentState.AUTHORIZED, PaymentState.CAPTURED):
                self._enter(key, PaymentState.REFUND_DUE)
        self._changed()
        return True

    def fence(self, order_ids: Sequence[bytes]) -> list[bytes]:
        """FENCE: those that never arrived are abandoned now."""
        fenced = [order_id for order_id in order_ids if order_id not in self.orders]
        for order_id in fenced:
            nobody = TakenOrder(order_id, b"", b"", ())
            now_ms = self.now_ms()
            row = OrderRow(nobody, OrderStatus.ABANDONED, now_ms, ended_at_ms=now_ms)
            self.orders[order_id] = row
        if fenced:
            self._changed()
        return fenced

    # -- paying

    def begin_payment(self, order_id: bytes, buyer: bytes, method: str) -> int | None:
        """BEGIN_PAYMENT: the attempt to make, written down before the provider hears of it."""
        row = self.orders.get(order_id)
        attempts = self._payments_of(order_id)
        under_way = any(payment.state in _OPEN_PAYMENTS for payment in attempts)
        if row is None or row.order.buyer != buyer or not self._held_in_time(row) or under_way:
            return None
        attempt = 1 + max((payment.attempt for payment in attempts), default=0)
        self.payments[order_id, attempt] = PaymentRow(
            len(self.payments) + 1, order_id, attempt, method, PaymentState.STARTED, self.now_ms()
        )
        self.changes += 1
        return attempt

    def payment_standing(self, order_id: bytes) -> PaymentStanding:
        """PAYMENT_UNDER_WAY"""
        overdue = _overdue(self.orders[order_id], self.now_ms())
        for payment in self._payments_of(order_id):
            if payment.state is PaymentState.STARTED:
                return PaymentStanding(overdue, payment, self.now_ms() - payment.changed_at_ms)
        return PaymentStanding(overdue, None, 0)

    def move_payment(
        self, order_id: bytes, attempt: int, leave: PaymentState, enter: PaymentState
    ) -> bool:
        """MOVE_PAYMENT"""
        if self.payments[order_id, attempt].state is not leave:
            return False
        self._enter((order_id, attempt), enter)
        self.changes += 1
        return True

    def confirm(self, order_id: bytes, attempt: int) -> bool:
        """CONFIRM: the hold by this attempt's payment; else the payment is to be let go."""
        row = self.orders[order_id]
        started = self.payments[order_id, attempt].state is PaymentState.STARTED
        in_time = self._held_in_time(row) or Bug.CONFIRMS_WITHOUT_LOOKING in self._bugs
        confirmed = started and in_time
        if confirmed:
            self.orders[order_id] = row._replace(
                status=OrderStatus.CONFIRMED, expires_at_ms=None, ended_at_ms=None
            )
            for item in row.order.items:
                self.sold_units[item.tier_number] += item.quantity
        if started:
            enter = PaymentState.AUTHORIZED if confirmed else PaymentState.VOID_DUE
            self._enter((order_id, attempt), enter)
            self._changed()
        return confirmed

    def payments_due(self, size: int, after: int = 0) -> list[PaymentRow]:
        """Those that wait for the provider, longest waiting first; those begun and forgotten too.

        `after` is only for the outbox that goes by numbers.
        """
        given_up_before_ms = self.now_ms() - PAYMENT_GIVEN_UP_MS
        due = [
            payment
            for payment in self.payments.values()
            if payment.number > after
            and (
                payment.state in _DUE_PAYMENTS
                or (
                    payment.state is PaymentState.STARTED
                    and payment.changed_at_ms < given_up_before_ms
                )
            )
        ]
        return sorted(due, key=lambda payment: payment.changed_at_ms)[:size]

    # -- organising and loading

    def set_capacity(self, tier_number: int, capacity_units: int) -> EventRow:
        """Another capacity. Raises `CapacityBelowReserved`."""
        if self.reserved_units[tier_number] > capacity_units:
            raise CapacityBelowReserved
        # Until the gate is told, it goes on to admit by the larger one.
        self.lowered_capacity |= capacity_units < self._event.capacity_units[tier_number]
        changed = self._event.capacity_units | {tier_number: capacity_units}
        self._event = self._event._replace(capacity_units=changed, version=self._event.version + 1)
        self._changed()
        return self._event

    def take_gate_loader(self, session: Session) -> bool:
        """The advisory lock: whether this session may load now. The lock goes with its session."""
        if not session.open or (self._loader is not None and self._loader.open):
            return False
        self._loader = session
        return True

    def next_gate_generation(self) -> int:
        """Count up the loadings; from now on only this one counts."""
        generation = self._event.gate_generation + 1
        self._event = self._event._replace(gate_generation=generation, gate_epoch=None)
        self.changes += 1
        return generation

    def authorise_gate(self, generation: int, epoch: str) -> bool:
        """Declare a loading valid; false when a later one has begun."""
        if self._event.gate_generation != generation:
            return False
        self._event = self._event._replace(gate_epoch=epoch)
        self.changes += 1
        return True

    # -- what rules look at

    def now_ms(self) -> int:
        """The ledger's clock."""
        return self._scheduler.now_ms + self._skew_ms

    def units_of(self, buyer: bytes) -> int:
        """What a buyer has."""
        return sum(
            row.order.units for row in self.orders.values() if row.order.buyer == buyer and row.live
        )

    # -- how

    def _held_in_time(self, row: OrderRow) -> bool:
        return row.status is OrderStatus.HELD and not _overdue(row, self.now_ms())

    def _end(self, order_id: bytes, status: OrderStatus) -> None:
        row = self.orders[order_id]
        self._count(row, -1)
        self.orders[order_id] = row._replace(status=status, ended_at_ms=self.now_ms())

    def _count(self, row: OrderRow, sign: int) -> None:
        for item in row.order.items:
            self.reserved_units[item.tier_number] += sign * item.quantity
            if row.status is OrderStatus.CONFIRMED:
                self.sold_units[item.tier_number] += sign * item.quantity

    def _payments_of(self, order_id: bytes) -> list[PaymentRow]:
        return [payment for payment in self.payments.values() if payment.order_id == order_id]

    def _enter(self, key: tuple[bytes, int], state: PaymentState) -> None:
        payment = self.payments[key]
        self.payments[key] = payment._replace(state=state, changed_at_ms=self.now_ms())

    def _changed(self) -> None:
        self.changes += 1
        now_ms = self._scheduler.now_ms
        capacity_units = self._event.capacity_units
        self.records.append(LedgerRecord(now_ms, dict(self.orders), capacity_units))
        self._committed()


def _overdue(row: OrderRow, now_ms: int) -> bool:
    return row.status is OrderStatus.HELD and (row.expires_at_ms or 0) <= now_ms
