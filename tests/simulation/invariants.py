"""The rules that every run is held against, each with the sentence that it stands for.

Some are looked at after every commit of the ledger, some after every answer that a client gets,
some at quiet: when the faults are over and the workers find nothing more to do. I1 to I10 are those
of `onsale.sales.invariants`; G is this model's own, for only here is it known what each part knew.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from onsale.domain.inventory import TakenOrder
from onsale.domain.order import OrderStatus
from onsale.domain.payment import PaymentState
from tests.simulation.gate import GateRecord, GateServer
from tests.simulation.history import ATTEMPTS_MAX, BrokenPromise, History, Key, Press
from tests.simulation.ledger import LedgerRecord, LedgerServer, OrderRow
from tests.simulation.plan import Terms
from tests.simulation.provider import ProviderServer
from tests.simulation.timing import GATE_TIMEOUT_MS, GRACE_MS, HOLD_MS, PICTURE_AGE_MS

# A refusal from memory goes by a picture of that age; its news may be as old as a call takes.
_MEMORY_MS = PICTURE_AGE_MS + GATE_TIMEOUT_MS


Record = TypeVar("Record", GateRecord, LedgerRecord)


class Violation(AssertionError):
    """A rule does not hold."""

    def __init__(self, rule: str, detail: str) -> None:
        super().__init__(f"{rule}: {detail}")
        self.rule = rule


@dataclass(frozen=True, slots=True)
class Evidence:
    """What rules look at."""

    terms: Terms
    gate: GateServer
    ledger: LedgerServer
    provider: ProviderServer
    history: History

    @property
    def gate_is_all(self) -> bool:
        """Whether nothing of the gate was lost, nobody went past it, and it knows the capacity."""
        return self.history.gate_passed_by is None and not self.ledger.lowered_capacity

    def rows(self) -> Iterator[tuple[Key, OrderRow]]:
        """Every order that ever was, and whose it is; abandoned ids were none."""
        for order_id, row in self.ledger.orders.items():
            if row.status is not OrderStatus.ABANDONED:
                yield self.history.ids[order_id], row


def _require(rule: str, holds: bool, detail: object = "") -> None:
    if not holds:
        raise Violation(rule, str(detail))


# -- after every commit


def ledger_counts_its_orders(seen: Evidence) -> None:
    """I1: the tiers' counters are the sums of the orders; available + held + sold = capacity."""
    reserved: Counter[int] = Counter()
    sold: Counter[int] = Counter()
    for row in seen.ledger.orders.values():
        for tier, quantity in row.order.items if row.live else ():
            reserved[tier] += quantity
            sold[tier] += quantity * (row.status is OrderStatus.CONFIRMED)
    for tier, units in seen.ledger.reserved_units.items():
        _require("I1", units == reserved[tier], f"tier {tier}: {units} counted, {reserved[tier]}")
        _require("I1", seen.ledger.sold_units[tier] == sold[tier], f"tier {tier}: sold")


def nothing_is_oversold(seen: Evidence) -> None:
    """I2: what the ledger has never exceeds the capacity."""
    capacity_units = seen.ledger.event().capacity_units
    for tier, units in seen.ledger.reserved_units.items():
        _require("I2", units <= capacity_units[tier], f"tier {tier}: {units} units taken")


def every_order_was_asked_for(seen: Evidence) -> None:
    """I3: no row without an invocation, and never two of one key."""
    orders_of: Counter[Key] = Counter()
    for order_id in seen.ledger.orders:
        _require("I3", order_id in seen.history.ids, f"nobody asked for {order_id.hex()}")
    for key, row in seen.rows():
        orders_of[key] += 1
        _require("I5", orders_of[key] == 1, f"{key} has two orders")
        asked = [(press.items, press.fingerprint) for press in seen.history.presses[key]]
        _require("I3", (row.order.items, row.order.fingerprint) in asked, f"{key}: not as asked")


def nobody_has_too_many(seen: Evidence) -> None:
    """I4: the limit per buyer is never exceeded."""
    limit_units = seen.terms.limit_units
    units_of: Counter[bytes] = Counter()
    for row in seen.ledger.orders.values() if limit_units else ():
        units_of[row.order.buyer] += row.order.units * row.live
    for buyer, units in units_of.items():
        _require("I4", units <= limit_units, f"{buyer.decode()} has {units} of {limit_units}")


def holds_live_their_time(seen: Evidence) -> None:
    """I6: by the ledger's clock, a hold that nobody ended lives for as long as was promised."""
    for key, row in seen.rows():
        if row.status is OrderStatus.EXPIRED:
            assert row.ended_at_ms is not None
            lived_ms = row.ended_at_ms - row.created_at_ms
            _require("I6", lived_ms >= HOLD_MS, f"{key} lived for {lived_ms} ms")


def the_refused_have_nothing(seen: Evidence) -> None:
    """I8: a key all of whose presses were definitely refused has no live order."""
    for key, row in seen.rows():
        if row.live:
            _require("I8", not _all_refused(seen.history.presses[key]), f"{key} has an order")


def nothing_is_unaccounted_for(seen: Evidence) -> None:
    """I2: acknowledged ≤ ledger ≤ acknowledged + unknown, in orders that ever were."""
    for key, _ in seen.rows():
        answers = [press.answer for press in seen.history.presses[key]]
        known = any(answer is None or not answer.refused for answer in answers)
        _require("I2", known, f"{key} has an order that nobody may know of")


def _all_refused(presses: Iterable[Press]) -> bool:
    return all(press.answer is not None and press.answer.refused for press in presses)


def the_gate_holds_what_is_live(seen: Evidence) -> None:
    """G: while nothing of the gate was lost and nobody went past it, it holds every live order; so
    what it still has is free, and whom it admits the ledger takes.
    """
    if seen.gate_is_all:
        held = seen.gate.data.inventory.orders if seen.gate.data is not None else {}
        for key, row in seen.rows():
            _require("G", not row.live or row.order.order_id in held, f"{key} is not at the gate")


AFTER_EVERY_COMMIT: list[Callable[[Evidence], None]] = [
    ledger_counts_its_orders,
    nothing_is_oversold,
    every_order_was_asked_for,
    nobody_has_too_many,
    holds_live_their_time,
    the_refused_have_nothing,
    nothing_is_unaccounted_for,
    the_gate_holds_what_is_live,
]


# -- after every answer


def the_acknowledged_is_durable(seen: Evidence, press: Press) -> None:
    """I3: every 2xx is in the ledger."""
    if press.answer is not None and press.answer.order_id is not None:
        row = seen.ledger.orders.get(press.answer.order_id)
        there = row is not None and row.status is not OrderStatus.ABANDONED
        _require("I3", there, f"{press.key} was answered and is not in the ledger")


def one_key_is_one_order(seen: Evidence, press: Press) -> None:
    """I5: same key and body, same order; another body gets nothing of it."""
    answer = press.answer
    if answer is None or not answer.placed:
        return
    _require("I5", answer.fingerprint == press.fingerprint, f"{press.key}: another body's order")
    others = [other.answer for other in seen.history.presses[press.key]]
    ids = {other.order_id for other in others if other is not None and other.placed}
    _require("I5", len(ids) == 1, f"{press.key} was told of {len(ids)} orders")


def who_has_an_order_gets_it_again(seen: Evidence, press: Press) -> None:
    """I5: a repeated press is not refused, unless the gate has not heard of the order yet."""
    earlier = _acknowledged_before(seen.history, press)
    if earlier is not None and press.answer is not None and press.answer.refused:
        excused = _had_not_heard_of(seen.gate, press, earlier)
        _require("I5", excused, f"{press.key} has an order and was told {press.answer.code}")


def a_refusal_was_true(seen: Evidence, press: Press) -> None:
    """I9: who was told "sold out" or "limit reached" would not have fitted at some moment."""
    if press.answer is None or press.answer.code not in ("sold_out", "buyer_limit_reached"):
        return
    since_ms = press.pressed_at_ms - _MEMORY_MS
    limit_units = seen.terms.limit_units
    others = [
        *(
            (list(record.data.inventory.orders.values()), record.data.inventory.capacity_units)
            for record in _in_force_since(seen.gate.records, since_ms)
            if record.data is not None and record.data.epoch is not None
        ),
        *(
            ([row.order for row in record.orders.values() if row.live], record.capacity_units)
            for record in _in_force_since(seen.ledger.records, since_ms)
        ),
    ]
    for orders, capacity_units in others:
        strangers = [one for one in orders if not _is_its_own(seen, press, one)]
        if press.answer.code == "sold_out":
            if not _fits(press, strangers, capacity_units):
                return
        elif not _within_limit(press, strangers, limit_units):
            return
    raise Violation("I9", f"{press.key} was told {press.answer.code}, which it never was")


def _is_its_own(seen: Evidence, press: Press, order: TakenOrder) -> bool:
    """Whether this is what the press asked for; an attempt that was given up is nobody's."""
    row = seen.ledger.orders.get(order.order_id)
    abandoned = row is not None and row.status is OrderStatus.ABANDONED
    return seen.history.ids.get(order.order_id) == press.key and not abandoned


def _fits(press: Press, others: list[TakenOrder], capacity_units: dict[int, int]) -> bool:
    taken: Counter[int] = Counter()
    for tier, quantity in (item for other in others for item in other.items):
        taken[tier] += quantity
    return all(taken[tier] + quantity <= capacity_units[tier] for tier, quantity in press.items)


def _within_limit(press: Press, others: list[TakenOrder], limit_units: int) -> bool:
    buyer = press.key.buyer.encode()
    units = sum(other.units for other in others if other.buyer == buyer)
    return units + press.units <= limit_units


def the_refused_had_nothing(seen: Evidence, press: Press) -> None:
    """I8, seen from the answer."""
    if press.answer is not None and press.answer.refused:
        the_refused_have_nothing(seen)


AFTER_EVERY_ANSWER: list[Callable[[Evidence, Press], None]] = [
    the_acknowledged_is_durable,
    one_key_is_one_order,
    the_refused_had_nothing,
    who_has_an_order_gets_it_again,
    a_refusal_was_true,
]


def _acknowledged_before(history: History, press: Press) -> bytes | None:
    """The order that an earlier press of the same key and body had been answered with."""
    for other in history.presses[press.key]:
        known = other.answered_at_ms is not None and other.answered_at_ms < press.pressed_at_ms
        if known and other.answer is not None and other.fingerprint == press.fingerprint:
            return other.answer.order_id
    return None


def _had_not_heard_of(gate: GateServer, press: Press, order_id: bytes) -> bool:
    """Whether, while this press was decided, some loading of the gate had never known the order,
    or an attempt before it, which was given up.
    """
    attempts = [press.key.order_id(attempt) for attempt in range(ATTEMPTS_MAX)]
    attempts = attempts[: attempts.index(order_id) + 1]
    return any(
        record.data is not None
        and record.data.epoch is not None
        and not _heard_by(gate, record.data.epoch, record.since_ms).issuperset(attempts)
        for record in _in_force_since(gate.records, press.pressed_at_ms - _MEMORY_MS)
    )


def _heard_by(gate: GateServer, epoch: str, until_ms: int) -> set[bytes]:
    """What a loading has ever known, also what it lost again."""
    heard: set[bytes] = set()
    for record in gate.records:
        if record.since_ms <= until_ms and record.data is not None and record.data.epoch == epoch:
            heard.update(record.data.seen)
    return heard


def _in_force_since(records: list[Record], since_ms: int) -> list[Record]:
    """The records that held at some moment from then on."""
    first = bisect_right(records, since_ms, key=lambda record: record.since_ms)
    return records[max(0, first - 1) :]


# -- while the gate alone decides


def whom_the_gate_admits_the_ledger_takes(seen: Evidence, promise: BrokenPromise) -> None:
    """G: while nothing of the gate was lost and nobody went past it, its word is kept, to everyone
    whose order was not on its way for longer than the grace period.
    """
    if seen.gate_is_all and promise.asked_gate_ago_ms < GRACE_MS:
        key = seen.history.ids[promise.order_id]
        raise Violation("G", f"{key} was admitted and then told {promise.why}")


# -- at quiet


def both_stores_agree(seen: Evidence) -> None:
    """I1: available + held + sold = capacity in both stores; the same orders are live in both."""
    data, capacity_units = seen.gate.data, seen.ledger.event().capacity_units
    if data is None:
        raise Violation("I1", "the gate is empty")
    inventory = data.inventory
    live = {order_id for order_id, row in seen.ledger.orders.items() if row.live}
    _require("I1", inventory.orders.keys() == live, "live orders differ")
    _require("I1", inventory.capacity_units == capacity_units, "capacities differ")
    for tier, units in capacity_units.items():
        taken = seen.ledger.reserved_units[tier]
        available = inventory.available_units(tier)
        _require("I1", available + taken == units, f"tier {tier}: {available} + {taken} of {units}")


def unpaid_holds_are_back_on_sale(seen: Evidence) -> None:
    """I7: no hold outlives its time, and the gate has its seats again."""
    held = seen.gate.data.inventory.orders if seen.gate.data is not None else {}
    for key, row in seen.rows():
        _require("I7", row.status is not OrderStatus.HELD, f"{key} is still held")
        if row.status is OrderStatus.EXPIRED:
            _require("I7", row.order.order_id not in held, f"the seats of {key} are not back")


def money_is_where_it_belongs(seen: Evidence) -> None:
    """I10: captured money is confirmed minus refunded orders, at the provider and in the ledger."""
    charged: Counter[bytes] = Counter()
    for payment in seen.ledger.payments.values():
        account = seen.provider.accounts.get(payment.key)
        at_provider = account is not None and account.charged
        charged[payment.order_id] += at_provider
        in_ledger = payment.state is PaymentState.CAPTURED
        _require("I10", at_provider == in_ledger, f"{payment.key} is {payment.state}")
    for key, row in seen.rows() if seen.terms.takes_cards else ():
        due = int(row.status is OrderStatus.CONFIRMED)
        paid = charged[row.order.order_id]
        _require("I10", paid == due, f"{key} is {row.status} and was charged {paid} times")


AT_QUIET: list[Callable[[Evidence], None]] = [
    unpaid_holds_are_back_on_sale,
    both_stores_agree,
    money_is_where_it_belongs,
]
