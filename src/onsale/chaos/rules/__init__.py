"""The invariants held against the evidence: one function each, named as in `sales.invariants`.

A rule says how much it looked at, so that one which found nothing to look at is not taken for kept.
"""

from collections.abc import Callable

from onsale.chaos.evidence import Evidence
from onsale.chaos.rules.books import i1, i2, i4
from onsale.chaos.rules.facts import Facts
from onsale.chaos.rules.money import i10
from onsale.chaos.rules.service import i11, l1
from onsale.chaos.rules.times import i6, i7, i9
from onsale.chaos.rules.verdicts import Verdict
from onsale.chaos.rules.words import i3, i5, i8, l2

_RULES: tuple[Callable[[Facts], Verdict], ...] = (
    *(i1, i2, i3, i4, i5, i6, i7, i8, i9, i10, i11),
    *(l1, l2),
)


def judge(evidence: Evidence) -> list[Verdict]:
    """Every rule's verdict, in the order of their names."""
    facts = Facts.of(evidence)
    return [rule(facts) for rule in _RULES]
