"""The invariants held against the evidence: one function each, named as in `sales.invariants`.

A rule says how much it looked at, so that one which found nothing to look at is not taken for kept.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from onsale.chaos.evidence import Evidence, PaymentRow, Row
from onsale.chaos.history import Kind, Operation, OrderName, Outcome
from onsale.chaos.incidents import SETTLED_AFTER_SECONDS, Incident
from onsale.domain.ids import order_id
from onsale.domain.order import OrderStatus
from onsale.domain.payment import PaymentState
from onsale.payments.books import Entry
from onsale.sales.invariants import Rule

# As many attempts as `sales.placing` makes to name an order anew.
_ATTEMPTS_MAX = 8
# A hold that expired is back on sale after this, in calm.
_BACK_ON_SALE_SECONDS = 2.0
# Two looks apart; a sample cannot say it better.
_LOOK_TOLERANCE_SECONDS = 0.5
_FALSE_SOLD_OUT_SECONDS = 1.0
# Until then a process may refuse by what it saw last (`sale_view_age_seconds_max`).
_PICTURE_SECONDS_MAX = 0.25
_GATE_AWAY_SECONDS_MAX = 2.0
# Less than a look apart there are no gaps to speak of.
_LOOKS_MIN = 3
# Refusals that speak of the payment, or of an order that was there: the hold may stand or have.
_AFTER_PLACING = frozenset(
    {"payment_declined", "order_expired", "order_not_payable", "request_in_progress"}
)
_TAKEN = (PaymentState.AUTHORIZED, PaymentState.CAPTURED)


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken rule; `at_seconds` is when, if that can be said."""

    rule: Rule
    detail: str
    at_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one rule; `looked_at` counts what could have broken it."""

    rule: Rule
    looked_at: int
    violations: list[Violation]

    @property
    def kept(self) -> bool:
        return not self.violations


Found = Iterator[tuple[str, float | None]]


def judge(evidence: Evidence) -> list[Verdict]:
    """Every rule's verdict, in the order of their names."""
    facts = _Facts.of(evidence)
    return [rule(facts) for rule in _RULES]


@dataclass(frozen=True, slots=True)
class _Facts:
    """The evidence, sorted as the rules want it."""

    evidence: Evidence
    rows: dict[str, Row]
    rows_by_name: dict[OrderName, list[Row]]
    unasked: list[Row]
    placed: dict[OrderName, list[Operation]]
    acknowledged: dict[OrderName, list[Operation]]

    @classmethod
    def of(cls, evidence: Evidence) -> "_Facts":
        placed = evidence.history.by_name(Kind.PLACE)
        names = {
            order_id(*name, attempt).hex(): name
            for name in placed
            for attempt in range(_ATTEMPTS_MAX)
        }
        by_name: dict[OrderName, list[Row]] = defaultdict(list)
        unasked = []
        for row in evidence.rows:
            name = names.get(row.order_id)
            if name is None:
                unasked.append(row)
            elif row.status is not OrderStatus.ABANDONED:
                by_name[name].append(row)
        return cls(
            evidence,
            {row.order_id: row for row in evidence.rows},
            by_name,
            unasked,
            placed,
            {
                name: told
                for name, operations in placed.items()
                if (told := [op for op in operations if op.acknowledged])
            },
        )

    def row_of(self, operation: Operation) -> Row | None:
        """The row of the order that an operation was told of."""
        return self.rows.get(operation.order_id or "")


def _verdict(rule: Rule, looked_at: int, found: Iterable[tuple[str, float | None]]) -> Verdict:
    return Verdict(rule, looked_at, [Violation(rule, *each) for each in found])


# -- I1, I2, I4: the books


def _i1(facts: _Facts) -> Verdict:
    def found() -> Found:
        for audit in facts.evidence.audits:
            for difference in audit.differences:
                if difference.rule is Rule.I1:
                    yield f"{difference.kind} {difference.subject}: {difference.detail}", None
            at_gate = (
                {t.tier_number: t.available_units for t in audit.gate.tiers} if audit.gate else {}
            )
            for number, tier in enumerate(audit.ledger, start=1):
                counted = tier.counted
                if at_gate.get(number) != counted.available_units:
                    yield (
                        f"{counted.tier_id}: {at_gate.get(number)} left at the gate,"
                        f" {counted.available_units} in the ledger",
                        None,
                    )

    return _verdict(Rule.I1, len(facts.evidence.rows), found())


def _i2(facts: _Facts) -> Verdict:
    def found() -> Found:
        for sale in facts.evidence.sales:
            names = [name for name in facts.placed if name.event_id == sale.event_id]
            acknowledged = sum(name in facts.acknowledged for name in names)
            unknown = sum(
                name not in facts.acknowledged
                and any(op.outcome is Outcome.UNKNOWN for op in facts.placed[name])
                for name in names
            )
            written = sum(
                row.event_id == sale.event_id and row.status is not OrderStatus.ABANDONED
                for row in facts.evidence.rows
            )
            if not acknowledged <= written <= acknowledged + unknown:
                yield (
                    f"{sale.name}: {written} orders in the ledger, {acknowledged} acknowledged and"
                    f" {unknown} unknown",
                    None,
                )
        for audit in facts.evidence.audits:
            for difference in audit.differences:
                if difference.rule is Rule.I2:
                    yield f"{difference.kind} {difference.subject}: {difference.detail}", None
        for look in facts.evidence.looks:
            for books in look.books.values():
                for tier in books:
                    if tier.oversold_units or not tier.counted.balanced:
                        yield f"oversold: {tier}", look.at_seconds

    return _verdict(Rule.I2, len(facts.acknowledged), found())


def _i4(facts: _Facts) -> Verdict:
    def found() -> Found:
        for look in facts.evidence.looks:
            for buyers in look.above_limit.values():
                for buyer in buyers:
                    yield f"{buyer.buyer_id} has {buyer.units} units", look.at_seconds
        for audit in facts.evidence.audits:
            for difference in audit.differences:
                if difference.rule is Rule.I4:
                    yield f"{difference.subject}: {difference.detail}", None

    limited = {sale.event_id for sale in facts.evidence.sales if sale.max_per_buyer_units}
    buyers = {(name.event_id, name.buyer_id) for name in facts.placed if name.event_id in limited}
    return _verdict(Rule.I4, len(buyers), found())


# -- I3, I5, I8: what clients were told


def _i3(facts: _Facts) -> Verdict:
    def found() -> Found:
        for row in facts.unasked:
            yield f"{row.status} {row.order_id} of {row.buyer_id!r}: nobody asked for it", None
        for name, rows in facts.rows_by_name.items():
            if len(rows) > 1:
                yield f"{name.buyer_id} {name.key}: {len(rows)} orders under one key", None
        for operations in facts.acknowledged.values():
            for operation in operations:
                yield from _as_told(facts, operation)
        yield from _ends(facts)
        yield from _not_found(facts)

    return _verdict(Rule.I3, len(facts.acknowledged), found())


def _as_told(facts: _Facts, told: Operation) -> Found:
    """An acknowledged order is there, for its buyer, with the items he asked for."""
    row = facts.row_of(told)
    if row is None or row.status is OrderStatus.ABANDONED:
        yield f"{told.order_id} was acknowledged and is not there", told.answered_at_seconds
    elif row.buyer_id != told.name.buyer_id or row.items != tuple(sorted(told.items)):
        yield f"{told.order_id} is another order than acknowledged", told.answered_at_seconds


def _ends(facts: _Facts) -> Found:
    """An order is what its buyer and the organiser made of it, and the sweeper of the rest."""
    told_confirmed = _told_confirmed(facts)
    asked = {
        kind: {
            op.name for op in facts.evidence.history.of(kind) if op.outcome is not Outcome.FAILED
        }
        for kind in (Kind.PAY, Kind.RELEASE, Kind.REFUND)
    }
    told_released = {
        op.name for op in facts.evidence.history.of(Kind.RELEASE) if op.outcome is Outcome.OK
    }
    told_refunded = {
        op.name for op in facts.evidence.history.of(Kind.REFUND) if op.outcome is Outcome.OK
    }
    for name, rows in facts.rows_by_name.items():
        for row in rows:
            wrong = (
                (row.status is OrderStatus.RELEASED and name not in asked[Kind.RELEASE])
                or (row.status is OrderStatus.REFUNDED and name not in asked[Kind.REFUND])
                or (
                    name in told_confirmed
                    and row.status not in (OrderStatus.CONFIRMED, OrderStatus.REFUNDED)
                )
                or (name in told_released and row.status is not OrderStatus.RELEASED)
                or (name in told_refunded and row.status is not OrderStatus.REFUNDED)
            )
            if wrong:
                yield f"{row.order_id} is {row.status}, which nobody asked for or was told", None


def _told_confirmed(facts: _Facts) -> set[OrderName]:
    return {
        op.name
        for op in facts.evidence.history.of(Kind.PLACE, Kind.PAY)
        if op.outcome is Outcome.OK and op.order_status == OrderStatus.CONFIRMED
    }


def _not_found(facts: _Facts) -> Found:
    """Who was told of an order is not told later that there is none, or shown a list without it."""
    known_since = {
        name: min(op.answered_at_seconds or 0.0 for op in told)
        for name, told in facts.acknowledged.items()
    }
    for operation in facts.evidence.history.operations:
        known = operation.name in known_since
        if known and operation.status == 404:
            yield (
                f"{operation.name.buyer_id}: {operation.kind} was answered 404",
                operation.answered_at_seconds,
            )
        if known and operation.kind is Kind.LIST and operation.outcome is Outcome.OK:
            ids = {op.order_id for op in facts.acknowledged[operation.name]}
            if known_since[operation.name] < operation.invoked_at_seconds and not ids & set(
                operation.listed
            ):
                yield f"{operation.name.buyer_id}'s list lacks {ids}", operation.answered_at_seconds


def _i5(facts: _Facts) -> Verdict:
    def found() -> Found:
        for name, told in facts.acknowledged.items():
            if len({op.order_id for op in told}) > 1:
                yield f"{name.buyer_id} {name.key} is several orders", told[-1].answered_at_seconds
            if len({op.body for op in told}) > 1:
                yield (
                    f"{name.buyer_id} {name.key} was taken with another body",
                    told[-1].answered_at_seconds,
                )
            yield from _refused_wrongly(facts.placed[name], told[0])

    pressed_again = sum(len(operations) > 1 for operations in facts.placed.values())
    return _verdict(Rule.I5, pressed_again, found())


def _refused_wrongly(operations: list[Operation], first: Operation) -> Found:
    """Another body under a key that has an order is refused for that and nothing else, once no
    process has a picture of the sale from before that order.
    """
    assert first.answered_at_seconds is not None
    for op in operations:
        later = op.invoked_at_seconds > first.answered_at_seconds + _PICTURE_SECONDS_MAX
        refused = op.outcome is Outcome.FAILED and op.status not in (None, 503)
        if later and refused and op.body != first.body and op.status != 422:
            yield f"another body was refused with {op.code}", op.answered_at_seconds


def _i8(facts: _Facts) -> Verdict:
    def refused() -> Iterator[OrderName]:
        for name, operations in facts.placed.items():
            if all(
                op.outcome is Outcome.FAILED and op.code not in _AFTER_PLACING for op in operations
            ):
                yield name

    names = list(refused())
    found = (
        (
            f"{name.buyer_id} {name.key} was told {facts.placed[name][-1].code} and has"
            f" {row.status} {row.order_id}",
            row.created_at_seconds,
        )
        for name in names
        for row in facts.rows_by_name.get(name, ())
    )
    return _verdict(Rule.I8, len(names), found)


# -- I6, I7, I9: time


def _i6(facts: _Facts) -> Verdict:
    expired = [row for row in facts.evidence.rows if row.status is OrderStatus.EXPIRED]

    def found() -> Found:
        for row in expired:
            promised = facts.evidence.sale(row.event_id).hold_seconds
            assert row.expires_at_seconds is not None
            assert row.ended_at_seconds is not None
            lived = row.ended_at_seconds - row.created_at_seconds
            if lived < promised or row.expires_at_seconds - row.created_at_seconds < promised:
                yield f"{row.order_id} lived {lived:.3f} s of {promised}", row.ended_at_seconds
        for operation in facts.evidence.history.operations:
            yield from _told_too_early(facts, operation)

    return _verdict(Rule.I6, len(expired), found())


def _told_too_early(facts: _Facts, operation: Operation) -> Found:
    """Nobody is told that a hold has expired before it could have."""
    if operation.code != "order_expired" and operation.order_status != OrderStatus.EXPIRED:
        return
    for row in facts.rows_by_name.get(operation.name, ()):
        lives_until = row.created_at_seconds + facts.evidence.sale(row.event_id).hold_seconds
        if (
            operation.answered_at_seconds is not None
            and operation.answered_at_seconds < lives_until
        ):
            early = lives_until - operation.answered_at_seconds
            yield f"{row.order_id}: told expired {early:.3f} s early", operation.answered_at_seconds


def _i7(facts: _Facts) -> Verdict:
    course = facts.evidence.course

    def is_late(expired_at_seconds: float, moment_seconds: float) -> bool:
        due = expired_at_seconds + _BACK_ON_SALE_SECONDS + _LOOK_TOLERANCE_SECONDS
        last_fault = course.last_fault_before(moment_seconds)
        if last_fault:
            due = max(due, last_fault + SETTLED_AFTER_SECONDS)
        return moment_seconds > due

    def found() -> Found:
        for row in facts.evidence.rows:
            if row.status is OrderStatus.EXPIRED:
                assert row.expires_at_seconds is not None
                assert row.ended_at_seconds is not None
                if is_late(row.expires_at_seconds, row.ended_at_seconds):
                    late = row.ended_at_seconds - row.expires_at_seconds
                    yield f"{row.order_id} was ended {late:.1f} s late", row.ended_at_seconds
        for look in facts.evidence.looks:
            for order, expired_at_seconds, held_by in look.late:
                if is_late(expired_at_seconds, look.at_seconds):
                    late = look.at_seconds - expired_at_seconds
                    yield f"{order} is at the {held_by} {late:.1f} s late", look.at_seconds

    expired = sum(row.status is OrderStatus.EXPIRED for row in facts.evidence.rows)
    return _verdict(Rule.I7, expired, found())


def _i9(facts: _Facts) -> Verdict:
    refused = [
        op
        for op in facts.evidence.history.of(Kind.PLACE)
        if op.code == "sold_out" and op.answered_at_seconds is not None
    ]
    calm = [op for op in refused if _in_calm(facts, op)]
    found = (
        (f"{op.name.buyer_id} was told sold_out of {dict(op.items)}", op.answered_at_seconds)
        for op in calm
        if _was_there(facts, op)
    )
    return _verdict(Rule.I9, len(calm), found)


def _in_calm(facts: _Facts, operation: Operation) -> bool:
    assert operation.answered_at_seconds is not None
    since = operation.invoked_at_seconds - _FALSE_SOLD_OUT_SECONDS
    return facts.evidence.course.calm(since, operation.answered_at_seconds)


def _was_there(facts: _Facts, refused: Operation) -> bool:
    """Whether both stores had, for more than a second, more than all who asked then wanted."""
    assert refused.answered_at_seconds is not None
    since = refused.invoked_at_seconds - _FALSE_SOLD_OUT_SECONDS - _LOOK_TOLERANCE_SECONDS
    until = refused.answered_at_seconds
    looks = [look for look in facts.evidence.looks if since <= look.at_seconds <= until]
    if len(looks) < _LOOKS_MIN:
        return False
    wanted: Counter[str] = Counter()
    for op in facts.evidence.history.of(Kind.PLACE):
        answered = op.answered_at_seconds or until
        same_event = op.name.event_id == refused.name.event_id
        if same_event and op.invoked_at_seconds <= until and answered >= since:
            wanted.update(dict(op.items))
    return all(
        min(look.units_left(refused.name.event_id, tier) for look in looks) >= wanted[tier]
        for tier, _ in refused.items
    )


# -- I10: money


def _i10(facts: _Facts) -> Verdict:
    by_order: dict[str, list[PaymentRow]] = defaultdict(list)
    for payment in facts.evidence.payments:
        by_order[payment.order_id].append(payment)
    kept = _kept_by_provider(facts)
    card = {sale.event_id for sale in facts.evidence.sales if sale.payment == "card"}

    def found() -> Found:
        for audit in facts.evidence.audits:
            for difference in audit.differences:
                if difference.rule is Rule.I10:
                    yield f"{difference.subject}: {difference.detail}", None
        for row in facts.evidence.rows:
            if row.event_id not in card:
                continue
            payments = by_order[row.order_id]
            due = row.amount_minor_units if row.status is OrderStatus.CONFIRMED else 0
            captured = sum(
                payment.amount_minor_units
                for payment in payments
                if payment.state is PaymentState.CAPTURED
            )
            at_provider = sum(kept[payment.key] for payment in payments)
            if not captured == at_provider == due:
                yield (
                    f"{row.status} {row.order_id}: {due} due, {captured} captured in the ledger,"
                    f" {at_provider} kept by the provider",
                    None,
                )
        known = {payment.key for payment in facts.evidence.payments}
        for key in kept.keys() - known:
            if kept[key]:
                yield f"{key}: the provider kept {kept[key]}, and the ledger knows nothing", None

    return _verdict(Rule.I10, len(facts.evidence.payments), found())


def _kept_by_provider(facts: _Facts) -> Counter[str]:
    """What the provider has taken and not given back, by payment."""
    authorized: dict[str, int] = {}
    captured, refunded = set(), set()
    for entry, key, amount in facts.evidence.provider:
        match entry:
            case Entry.AUTHORIZED:
                authorized[key] = amount
            case Entry.CAPTURED:
                captured.add(key)
            case Entry.REFUNDED:
                refunded.add(key)
    # A capture that nobody had authorised takes what it never may, and counts as one unit astray.
    return Counter({key: authorized.get(key, 1) for key in captured - refunded})


# -- I11, L1, L2: crashes and service


def _i11(facts: _Facts) -> Verdict:
    crashes = [i for i in facts.evidence.course.incidents if i.ledger_crashed]
    told = [op for operations in facts.acknowledged.values() for op in operations]

    def found() -> Found:
        for crash in crashes:
            for op in told:
                assert op.answered_at_seconds is not None
                if op.answered_at_seconds <= crash.mended_at_seconds and not facts.row_of(op):
                    yield f"{op.order_id} is gone since {crash.fault}", crash.injected_at_seconds

    return _verdict(Rule.I11, len(crashes), found())


def _l1(facts: _Facts) -> Verdict:
    def found() -> Found:
        for incident in facts.evidence.course.incidents:
            seconds = seconds_to_serve_again(facts.evidence, incident)
            if seconds is None or seconds > SETTLED_AFTER_SECONDS:
                took = "not at all" if seconds is None else f"after {seconds:.1f} s"
                yield f"{incident.fault}: orders again {took}", incident.mended_at_seconds
            if incident.gate_alone:
                stopped = longest_stop_seconds(facts.evidence, incident)
                if stopped > _GATE_AWAY_SECONDS_MAX:
                    yield (
                        f"{incident.fault}: no order for {stopped:.1f} s",
                        incident.injected_at_seconds,
                    )

    return _verdict(Rule.L1, len(facts.evidence.course.incidents), found())


def seconds_to_serve_again(evidence: Evidence, incident: Incident) -> float | None:
    """From the mending until every API process had taken an order that was asked for after it."""
    slowest = 0.0
    for api in evidence.apis:
        first = min(
            (
                op.answered_at_seconds
                for op in _probes(evidence, api)
                if op.invoked_at_seconds >= incident.mended_at_seconds
                and op.answered_at_seconds is not None
            ),
            default=None,
        )
        if first is None:
            return None
        slowest = max(slowest, first - incident.mended_at_seconds)
    return slowest


def longest_stop_seconds(evidence: Evidence, incident: Incident) -> float:
    """The longest time without an order at one of the API processes while a fault was there."""
    longest = 0.0
    for api in evidence.apis:
        served = [
            op.answered_at_seconds
            for op in _probes(evidence, api)
            if op.answered_at_seconds is not None
            and incident.injected_at_seconds <= op.answered_at_seconds <= incident.mended_at_seconds
        ]
        moments = [incident.injected_at_seconds, *sorted(served), incident.mended_at_seconds]
        longest = max(longest, *(later - earlier for earlier, later in pairwise(moments)))
    return longest


def _probes(evidence: Evidence, api: str) -> Iterator[Operation]:
    return (
        op
        for op in evidence.history.of(Kind.PLACE)
        if op.api == api
        and op.name.event_id == evidence.probe.event_id
        and op.outcome is Outcome.OK
    )


def _l2(facts: _Facts) -> Verdict:
    operations = facts.evidence.history.operations
    found = (
        (f"{op.kind} at {op.api} was answered 500", op.answered_at_seconds)
        for op in operations
        if op.status == 500
    )
    return _verdict(Rule.L2, len(operations), found)


_RULES: tuple[Callable[[_Facts], Verdict], ...] = (
    *(_i1, _i2, _i3, _i4, _i5, _i6, _i7, _i8, _i9, _i10, _i11),
    *(_l1, _l2),
)
