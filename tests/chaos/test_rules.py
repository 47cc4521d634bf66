"""Each rule against a small sound history, and against the same with one thing wrong."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from onsale.chaos.evidence import Evidence
from onsale.chaos.history import Kind, Operation, OrderName, Outcome
from onsale.chaos.incidents import Incident
from onsale.chaos.receiver import Message
from onsale.chaos.rules import judge
from onsale.chaos.watcher import Late
from onsale.domain.ids import order_id
from onsale.domain.order import OrderStatus
from onsale.domain.payment import PaymentState
from onsale.ledger.ledger import BuyerUnits
from onsale.payments.books import Entry, ProviderLine
from onsale.sales.invariants import Difference, Rule
from tests.chaos.small_history import (
    CARD,
    EVENT,
    FORGOTTEN,
    HOLD_SECONDS,
    PAID,
    REFUSED,
    T,
    audit,
    books,
    id_of,
    look,
    operation,
    refused,
    row,
    sound,
)


def of(evidence: Evidence, kind: Kind, name: OrderName) -> Operation:
    """The first operation of that kind."""
    return next(op for op in evidence.history.of(kind) if op.name == name)


def change_row(evidence: Evidence, name: OrderName, **fields: object) -> None:
    at = next(i for i, row in enumerate(evidence.rows) if row.order_id == id_of(name))
    evidence.rows[at] = replace(evidence.rows[at], **fields)  # type: ignore[arg-type]


def with_difference(kind: str) -> Callable[[Evidence], None]:
    def change(evidence: Evidence) -> None:
        evidence.audits[0].differences.append(Difference(kind, "ga", "planted"))

    return change


def gate_says_other(evidence: Evidence) -> None:
    evidence.audits[0] = replace(audit(CARD, 1), gate=audit(CARD, 2).gate)


def ledger_has_too_few(evidence: Evidence) -> None:
    evidence.rows.pop()


def ledger_has_too_many(evidence: Evidence) -> None:
    evidence.rows.append(row(REFUSED, CARD, OrderStatus.CONFIRMED, 4.2))


def oversold_at_a_look(evidence: Evidence) -> None:
    evidence.looks[9] = look(2.25, sold=11)


def acknowledged_and_gone(evidence: Evidence) -> None:
    change_row(evidence, PAID, order_id="0" * 32)


def unasked(evidence: Evidence) -> None:
    evidence.rows.append(replace(evidence.rows[0], order_id="f" * 32))


def two_under_one_key(evidence: Evidence) -> None:
    second = order_id(*PAID, 1).hex()
    evidence.rows.append(replace(evidence.rows[0], order_id=second))


def of_somebody_else(evidence: Evidence) -> None:
    change_row(evidence, PAID, buyer_id="eve")


def with_other_items(evidence: Evidence) -> None:
    change_row(evidence, PAID, items=(("ga", 3),))


def released_unasked(evidence: Evidence) -> None:
    change_row(evidence, FORGOTTEN, status=OrderStatus.RELEASED)


def paid_and_expired(evidence: Evidence) -> None:
    evidence.rows[0] = replace(row(PAID, CARD, OrderStatus.EXPIRED, 2.0))


def read_as_not_found(evidence: Evidence) -> None:
    of(evidence, Kind.READ, PAID).status = 404


def list_without_it(evidence: Evidence) -> None:
    of(evidence, Kind.LIST, PAID).listed = ()


def above_limit_at_a_look(evidence: Evidence) -> None:
    evidence.looks[9].above_limit[EVENT].append(BuyerUnits("ann", 5))


def another_order_for_the_same_key(evidence: Evidence) -> None:
    again = [op for op in evidence.history.of(Kind.PLACE) if op.name == PAID][1]
    again.order_id = id_of(FORGOTTEN)


def another_body_taken(evidence: Evidence) -> None:
    again = [op for op in evidence.history.of(Kind.PLACE) if op.name == PAID][1]
    again.items = (("ga", 2),)


def another_body_sold_out(evidence: Evidence) -> None:
    other = [op for op in evidence.history.of(Kind.PLACE) if op.name == PAID][2]
    other.status, other.code = 409, "sold_out"


def same_body_sold_out(evidence: Evidence) -> None:
    again = [op for op in evidence.history.of(Kind.PLACE) if op.name == PAID][1]
    again.outcome, again.status, again.code, again.order_id = Outcome.FAILED, 409, "sold_out", None


def short_lived(evidence: Evidence) -> None:
    change_row(evidence, FORGOTTEN, ended_at_seconds=T + 2.1 + HOLD_SECONDS - 0.1)


def promised_too_little(evidence: Evidence) -> None:
    change_row(evidence, FORGOTTEN, expires_at_seconds=T + 2.1 + HOLD_SECONDS - 0.1)


def told_expired_early(evidence: Evidence) -> None:
    early = operation(
        *(Kind.PAY, FORGOTTEN, 4.0), outcome=Outcome.FAILED, status=409, code="order_expired"
    )
    evidence.history.operations.append(early)


def ended_late(evidence: Evidence) -> None:
    change_row(evidence, FORGOTTEN, ended_at_seconds=T + 2.1 + HOLD_SECONDS + 2.6)


def at_the_gate_late(evidence: Evidence) -> None:
    evidence.looks[40].late.append(Late(id_of(FORGOTTEN), T + 6.1, "gate"))


def late_long_after_the_fault(evidence: Evidence) -> None:
    evidence.looks[130].late.append(Late(id_of(FORGOTTEN), T + 19, "ledger"))


def refused_and_there(evidence: Evidence) -> None:
    evidence.rows.append(row(REFUSED, CARD, OrderStatus.EXPIRED, 4.2))


def sold_out_though_there(evidence: Evidence) -> None:
    for at, each in enumerate(evidence.looks):
        evidence.looks[at] = replace(each, books={EVENT: [books(10, 2)]})


def not_captured(evidence: Evidence) -> None:
    evidence.payments[0] = evidence.payments[0]._replace(state=PaymentState.AUTHORIZED)
    evidence.provider.pop()


def captured_in_the_ledger_alone(evidence: Evidence) -> None:
    evidence.provider.pop()


def captured_unauthorised(evidence: Evidence) -> None:
    evidence.provider.pop(0)


def kept_for_nobody(evidence: Evidence) -> None:
    evidence.provider.append(ProviderLine(Entry.CAPTURED, f"{EVENT}.{'0' * 32}.1", 0))


def not_told(evidence: Evidence) -> None:
    evidence.messages.pop()


def told_under_two_ids(evidence: Evidence) -> None:
    evidence.messages.append(evidence.messages[0]._replace(id="another"))


def told_what_was_not(evidence: Evidence) -> None:
    evidence.messages.append(Message("more", id_of(PAID), "refunded"))


def does_not_serve_again(evidence: Evidence) -> None:
    evidence.history.operations[:] = [
        op for op in evidence.history.operations if op.invoked_at_seconds < T + 21
    ]


def serves_late(evidence: Evidence) -> None:
    again = next(op for op in evidence.history.operations if op.invoked_at_seconds == T + 21.5)
    again.answered_at_seconds = T + 31.5
    evidence.history.operations.pop()


def stops_without_the_gate(evidence: Evidence) -> None:
    evidence.course.incidents.append(Incident("kill-redis", T + 22, T + 25, gate_alone=True))


def answered_500(evidence: Evidence) -> None:
    asked = refused(REFUSED, 5.0, "internal_error", 500)
    asked.outcome = Outcome.UNKNOWN
    evidence.history.operations.append(asked)


BREACHES: list[tuple[Rule, Callable[[Evidence], None]]] = [
    *((Rule.I1, with_difference(kind)) for kind in ("gate_only", "ledger_only", "gate_unbalanced")),
    (Rule.I1, gate_says_other),
    *((Rule.I2, change) for change in (ledger_has_too_few, ledger_has_too_many)),
    *((Rule.I2, change) for change in (oversold_at_a_look, with_difference("oversold"))),
    *((Rule.I3, change) for change in (acknowledged_and_gone, unasked, two_under_one_key)),
    *((Rule.I3, change) for change in (of_somebody_else, with_other_items, released_unasked)),
    *((Rule.I3, change) for change in (paid_and_expired, read_as_not_found, list_without_it)),
    *((Rule.I4, change) for change in (above_limit_at_a_look, with_difference("limit_exceeded"))),
    *((Rule.I5, change) for change in (another_order_for_the_same_key, another_body_taken)),
    *((Rule.I5, change) for change in (another_body_sold_out, same_body_sold_out)),
    *((Rule.I6, change) for change in (short_lived, promised_too_little, told_expired_early)),
    *((Rule.I7, change) for change in (ended_late, at_the_gate_late, late_long_after_the_fault)),
    (Rule.I8, refused_and_there),
    (Rule.I9, sold_out_though_there),
    *((Rule.I10, change) for change in (not_captured, captured_in_the_ledger_alone)),
    *((Rule.I10, change) for change in (captured_unauthorised, kept_for_nobody)),
    *((Rule.I10, change) for change in (not_told, told_under_two_ids, told_what_was_not)),
    (Rule.I11, acknowledged_and_gone),
    *((Rule.L1, change) for change in (does_not_serve_again, serves_late, stops_without_the_gate)),
    (Rule.L2, answered_500),
]


def test_a_sound_history_keeps_every_rule() -> None:
    verdicts = judge(sound())
    assert {v.rule: v.violations for v in verdicts if not v.kept} == {}
    assert [v.rule for v in verdicts] == list(Rule)
    assert all(v.looked_at for v in verdicts), "a rule that looked at nothing says nothing"


@pytest.mark.parametrize(
    ("rule", "breach"), BREACHES, ids=lambda each: getattr(each, "__name__", str(each))
)
def test_what_is_wrong_is_found(rule: Rule, breach: Callable[[Evidence], None]) -> None:
    evidence = sound()
    breach(evidence)
    assert rule in {verdict.rule for verdict in judge(evidence) if not verdict.kept}


# -- what is not wrong


def keeps(evidence: Evidence, rule: Rule) -> bool:
    return next(verdict for verdict in judge(evidence) if verdict.rule is rule).kept


def test_late_is_not_late_while_a_fault_is_there_and_shortly_after() -> None:
    evidence = sound()
    for at in (20.5, 30.9):
        evidence.looks[int(at * 4)].late.append(Late(id_of(FORGOTTEN), T + 17, "ledger"))
    assert keeps(evidence, Rule.I7)


def test_what_was_not_answered_may_have_happened() -> None:
    evidence = sound()
    unknown = refused(REFUSED, 5.0)
    unknown.outcome, unknown.code, unknown.status = Outcome.UNKNOWN, "ReadTimeout", None
    evidence.history.operations.append(unknown)
    evidence.rows.append(row(REFUSED, CARD, OrderStatus.EXPIRED, 5.0))
    for rule in (Rule.I2, Rule.I3, Rule.I8):
        assert keeps(evidence, rule)


def test_seats_that_others_want_at_that_time_may_be_gone() -> None:
    evidence = sound()
    sold_out_though_there(evidence)
    for number in range(8):
        name = OrderName(EVENT, f"other-{number}", "press-1")
        evidence.history.operations.append(refused(name, 4.0))
    evidence.history.operations.sort(key=lambda op: op.invoked_at_seconds)
    assert keeps(evidence, Rule.I9)


def test_refused_amid_a_fault_is_not_held_against_calm() -> None:
    evidence = sound()
    sold_out_though_there(evidence)
    evidence.course.incidents.append(Incident("kill-redis", T + 1, T + 1.5))
    assert keeps(evidence, Rule.I9)
