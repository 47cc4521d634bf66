"""A tier: a priced block of interchangeable capacity in an event."""

from dataclasses import dataclass

CAPACITY_UNITS_MAX = 10_000_000
TIERS_PER_EVENT_MAX = 100


@dataclass(frozen=True, slots=True)
class Tier:
    """One tier as configured; how much of it is left is the gate's and the ledger's to say.

    `number` counts from 1 in the order the tiers were given and never changes: the gate stores it
    in one byte where the id would take many.
    """

    id: str
    number: int
    name: str
    price_minor_units: int
    capacity_units: int


@dataclass(frozen=True, slots=True)
class TierBooks:
    """The units of one tier in one store; `held` and `sold` are parts of what is reserved."""

    tier_id: str
    capacity_units: int
    available_units: int
    held_units: int
    sold_units: int

    @property
    def balanced(self) -> bool:
        """`available + held + sold = capacity`, and none of them below zero."""
        parts = (self.available_units, self.held_units, self.sold_units)
        return min(parts) >= 0 and sum(parts) == self.capacity_units
