"""What a rule says."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from onsale.sales.invariants import Rule


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken rule; `at_seconds` is when, if that can be said."""

    rule: Rule
    detail: str
    at_seconds: float | None = None


class Breach(NamedTuple):
    """What a rule finds; see `Violation`."""

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


def verdict(rule: Rule, looked_at: int, breaches: Iterable[Breach]) -> Verdict:
    """The verdict, when these are the breaches that there are."""
    return Verdict(rule, looked_at, [Violation(rule, *breach) for breach in breaches])
