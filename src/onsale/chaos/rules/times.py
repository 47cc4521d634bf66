"""I6, I7 and I9: holds live as long as they were promised, and no longer; seats are on sale."""

from collections import Counter
from collections.abc import Iterator

from onsale.chaos.evidence import Row
from onsale.chaos.history import Kind, Operation
from onsale.chaos.incidents import SETTLED_AFTER_SECONDS, Course
from onsale.chaos.rules.facts import Facts
from onsale.chaos.rules.verdicts import Breach, Verdict, verdict
from onsale.domain.order import OrderStatus
from onsale.sales.invariants import Rule

# A hold that expired is back on sale after this, in calm.
_BACK_ON_SALE_SECONDS = 2.0
_FALSE_SOLD_OUT_SECONDS = 1.0
# Two looks into the stores are apart by less; they cannot say it better.
_LOOK_TOLERANCE_SECONDS = 0.5
# With fewer in more than a second nobody knows what was there.
_LOOKS_MIN = 3


def i6(facts: Facts) -> Verdict:
    """A hold lives as long as it was promised, by the ledger's clock; nobody hears otherwise."""
    expired = _expired(facts)

    def breaches() -> Iterator[Breach]:
        for row in expired:
            promised = facts.evidence.sale(row.event_id).hold_seconds
            lived = _end(row) - row.created_at_seconds
            if lived < promised or _expiry(row) - row.created_at_seconds < promised:
                yield Breach(f"{row.order_id} lived {lived:.3f} s of {promised}", _end(row))
        for operation in facts.evidence.history.operations:
            yield from _told_too_early(facts, operation)

    return verdict(Rule.I6, len(expired), breaches())


def _told_too_early(facts: Facts, op: Operation) -> Iterator[Breach]:
    if op.code != "order_expired" and op.order_status != OrderStatus.EXPIRED:
        return
    for row in facts.rows_by_name.get(op.name, ()):
        lives_until = row.created_at_seconds + facts.evidence.sale(row.event_id).hold_seconds
        if op.answered_at_seconds is not None and op.answered_at_seconds < lives_until:
            early = lives_until - op.answered_at_seconds
            yield Breach(f"{row.order_id}: expired, {early:.3f} s early", op.answered_at_seconds)


def i7(facts: Facts) -> Verdict:
    """An unpaid hold is back on sale soon after it expired, or after the last fault."""
    course, expired = facts.evidence.course, _expired(facts)

    def breaches() -> Iterator[Breach]:
        for row in expired:
            if _is_late(course, _expiry(row), _end(row)):
                late = _end(row) - _expiry(row)
                yield Breach(f"{row.order_id} was ended {late:.1f} s late", _end(row))
        for look in facts.evidence.looks:
            for order, expired_at_seconds, held_by in look.late:
                if _is_late(course, expired_at_seconds, look.at_seconds):
                    late = look.at_seconds - expired_at_seconds
                    yield Breach(f"{order} is at the {held_by} {late:.1f} s late", look.at_seconds)

    return verdict(Rule.I7, len(expired), breaches())


def _is_late(course: Course, expired_at_seconds: float, moment_seconds: float) -> bool:
    due = expired_at_seconds + _BACK_ON_SALE_SECONDS + _LOOK_TOLERANCE_SECONDS
    last_fault = course.last_fault_before(moment_seconds)
    return moment_seconds > max(due, last_fault + SETTLED_AFTER_SECONDS)


def _expired(facts: Facts) -> list[Row]:
    return [row for row in facts.evidence.rows if row.status is OrderStatus.EXPIRED]


def _expiry(row: Row) -> float:
    assert row.expires_at_seconds is not None, "an expired order had a time to expire at"
    return row.expires_at_seconds


def _end(row: Row) -> float:
    assert row.ended_at_seconds is not None, "an expired order has ended"
    return row.ended_at_seconds


def i9(facts: Facts) -> Verdict:
    """In calm, nobody is told that seats are sold out which were there for more than a second."""
    calm = [
        op
        for op in facts.evidence.history.of(Kind.PLACE)
        if op.code == "sold_out" and facts.evidence.course.calm(*_second_before(op))
    ]
    breaches = (
        Breach(f"{op.name.buyer_id} was told sold_out of {dict(op.items)}", op.answered_at_seconds)
        for op in calm
        if _was_there(facts, op)
    )
    return verdict(Rule.I9, len(calm), breaches)


def _second_before(refused: Operation) -> tuple[float, float]:
    """More than a second before somebody asked, until he was answered."""
    assert refused.answered_at_seconds is not None
    since = refused.invoked_at_seconds - _FALSE_SOLD_OUT_SECONDS - _LOOK_TOLERANCE_SECONDS
    return since, refused.answered_at_seconds


def _was_there(facts: Facts, refused: Operation) -> bool:
    """Whether there was as much, all of that time, as everybody wanted who asked then."""
    event_id, time = refused.name.event_id, _second_before(refused)
    looks = facts.looks(*time)
    if len(looks) < _LOOKS_MIN:
        return False
    wanted: Counter[str] = Counter()
    for op in facts.under_way(event_id, *time):
        wanted.update(dict(op.items))
    return all(
        min(look.units_left(event_id, tier) for look in looks) >= wanted[tier]
        for tier, _ in refused.items
    )
