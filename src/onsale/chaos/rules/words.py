"""I3, I5, I8 and L2: what clients were told stands."""

from collections.abc import Iterator
from http import HTTPStatus

from onsale.chaos.evidence import Row
from onsale.chaos.history import Kind, Operation, OrderName, Outcome
from onsale.chaos.rules.facts import Facts
from onsale.chaos.rules.verdicts import Breach, Verdict, verdict
from onsale.domain.order import OrderStatus
from onsale.sales.invariants import Rule

# Until then a process may refuse by what it saw last (`sale_view_age_seconds_max`).
_PICTURE_SECONDS_MAX = 0.25
# Refusals that speak of the payment, or of an order that was there: the hold may stand or have.
_AFTER_PLACING = frozenset(
    {"payment_declined", "order_expired", "order_not_payable", "request_in_progress"}
)

# It never left, or was to come again.
_NO_REFUSAL = (None, HTTPStatus.SERVICE_UNAVAILABLE)


def i3(facts: Facts) -> Verdict:
    """Every 2xx is in the ledger exactly once, and nothing that nobody asked for."""

    def breaches() -> Iterator[Breach]:
        for row in facts.unasked:
            yield Breach(f"{row.status} {row.order_id} of {row.buyer_id!r}: nobody asked for it")
        for name, rows in facts.rows_by_name.items():
            if len(rows) > 1:
                yield Breach(f"{name.buyer_id} {name.key}: {len(rows)} orders under one key")
        for operations in facts.acknowledged.values():
            for operation in operations:
                yield from _as_told(facts, operation)
        yield from _ended_otherwise(facts)
        yield from _not_found(facts)

    return verdict(Rule.I3, len(facts.acknowledged), breaches())


def _as_told(facts: Facts, told: Operation) -> Iterator[Breach]:
    """An acknowledged order is there, for its buyer, with the items he asked for."""
    row = facts.row_of(told)
    if row is None or row.status is OrderStatus.ABANDONED:
        yield Breach(f"{told.order_id} was acknowledged and is gone", told.answered_at_seconds)
    elif row.buyer_id != told.name.buyer_id or row.items != tuple(sorted(told.items)):
        yield Breach(f"{told.order_id} is another than acknowledged", told.answered_at_seconds)


def _ended_otherwise(facts: Facts) -> Iterator[Breach]:
    """An order is what its buyer and the organiser made of it, and the sweeper of the rest."""
    operations = list(facts.evidence.history.of(Kind.PAY, Kind.RELEASE, Kind.REFUND, Kind.PLACE))
    asked = {(op.kind, op.name) for op in operations if op.outcome is not Outcome.FAILED}
    told = {(op.kind, op.name) for op in operations if op.outcome is Outcome.OK}
    confirmed = {
        op.name
        for op in operations
        if op.outcome is Outcome.OK and op.order_status == OrderStatus.CONFIRMED
    }
    for name, rows in facts.rows_by_name.items():
        for row in rows:
            if (
                _nobody_asked(row, name, asked)
                or _told_otherwise(row, name, told)
                or (name in confirmed and row.status not in _PAID)
            ):
                yield Breach(f"{row.order_id} is {row.status}, as nobody asked or was told")


_PAID = (OrderStatus.CONFIRMED, OrderStatus.REFUNDED)
_MADE_BY = {Kind.RELEASE: OrderStatus.RELEASED, Kind.REFUND: OrderStatus.REFUNDED}


def _nobody_asked(row: Row, name: OrderName, asked: set[tuple[Kind, OrderName]]) -> bool:
    return any(
        row.status is status and (kind, name) not in asked for kind, status in _MADE_BY.items()
    )


def _told_otherwise(row: Row, name: OrderName, told: set[tuple[Kind, OrderName]]) -> bool:
    return any(
        row.status is not status and (kind, name) in told for kind, status in _MADE_BY.items()
    )


def _not_found(facts: Facts) -> Iterator[Breach]:
    """Who was told of an order is not told later that there is none, or shown a list without it."""
    for op in facts.evidence.history.operations:
        told = facts.acknowledged.get(op.name)
        if told is None:
            continue
        if op.status == HTTPStatus.NOT_FOUND:
            yield Breach(f"{op.name.buyer_id}: {op.kind} was answered 404", op.answered_at_seconds)
        if _is_missing(told[0], op):
            yield Breach(f"a list lacks {told[0].order_id}", op.answered_at_seconds)


def _is_missing(told: Operation, op: Operation) -> bool:
    """Whether a list of the buyer's orders lacks one that he knew of when he asked for it."""
    assert told.answered_at_seconds is not None
    return (
        op.kind is Kind.LIST
        and op.outcome is Outcome.OK
        and op.invoked_at_seconds > told.answered_at_seconds
        and told.order_id not in op.listed
    )


def i5(facts: Facts) -> Verdict:
    """The same key and body are the same order; another body is refused and changes nothing."""

    def breaches() -> Iterator[Breach]:
        for name, told in facts.acknowledged.items():
            at_seconds = told[-1].answered_at_seconds
            if len({op.order_id for op in told}) > 1:
                yield Breach(f"{name.buyer_id} {name.key} is several orders", at_seconds)
            if len({op.body for op in told}) > 1:
                yield Breach(f"{name.buyer_id} {name.key} is several bodies", at_seconds)
            yield from _refused_otherwise(facts.placed[name], told[0])

    pressed_again = sum(len(operations) > 1 for operations in facts.placed.values())
    return verdict(Rule.I5, pressed_again, breaches())


def _refused_otherwise(operations: list[Operation], first: Operation) -> Iterator[Breach]:
    """Who has an order under a key is not refused under it, but for another body; once no process
    has a picture of the sale from before that order.
    """
    assert first.answered_at_seconds is not None
    for op in operations:
        later = op.invoked_at_seconds > first.answered_at_seconds + _PICTURE_SECONDS_MAX
        refused = op.outcome is Outcome.FAILED and op.status not in _NO_REFUSAL
        for_the_body = op.body != first.body and op.status == HTTPStatus.UNPROCESSABLE_ENTITY
        if later and refused and not for_the_body and op.code not in _AFTER_PLACING:
            yield Breach(f"{op.name.buyer_id} was refused with {op.code}", op.answered_at_seconds)


def i8(facts: Facts) -> Verdict:
    """Who was told a refusal that stands, and nothing else, has no order."""
    refused = [
        name
        for name, operations in facts.placed.items()
        if all(op.outcome is Outcome.FAILED and op.code not in _AFTER_PLACING for op in operations)
    ]
    breaches = (
        Breach(
            f"{name.buyer_id} {name.key} was told {facts.placed[name][-1].code} and has"
            f" {row.status} {row.order_id}",
            row.created_at_seconds,
        )
        for name in refused
        for row in facts.rows_by_name.get(name, ())
    )
    return verdict(Rule.I8, len(refused), breaches)


def l2(facts: Facts) -> Verdict:
    """Nobody is told of an internal error."""
    operations = facts.evidence.history.operations
    breaches = (
        Breach(f"{op.kind} at {op.api} was answered 500", op.answered_at_seconds)
        for op in operations
        if op.status == HTTPStatus.INTERNAL_SERVER_ERROR
    )
    return verdict(Rule.L2, len(operations), breaches)
