"""An event: one performance with one sale window and its tiers."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import cached_property

from onsale.domain.tier import Tier


class SaleSwitch(StrEnum):
    """What the organiser last asked for; the window decides within `open`."""

    OPEN = "open"
    PAUSED = "paused"
    CLOSED = "closed"


class SaleState(StrEnum):
    """What the sale is at a moment: the switch and the window together."""

    SCHEDULED = "scheduled"
    OPEN = "open"
    PAUSED = "paused"
    CLOSED = "closed"


class PaymentKind(StrEnum):
    """`none` confirms an order at once; `card` holds it until it is paid."""

    NONE = "none"
    CARD = "card"


@dataclass(frozen=True)
class Event:
    """An event as configured in the ledger. `max_per_buyer_units` is 0 for no limit; `version`
    grows with every change of switch or capacity.

    `gate_epoch` names the loading of the gate that the ledger authorised (see `gate.epoch`), or is
    `None` while there is none; `gate_retired` says that there will be none, for the sale is over
    and its books balanced.
    """

    id: str
    name: str
    venue: str | None
    starts_at: datetime
    sale_opens_at: datetime
    sale_closes_at: datetime
    hold_seconds: int
    max_per_buyer_units: int
    payment: PaymentKind
    currency: str
    switch: SaleSwitch
    tiers: tuple[Tier, ...]
    created_at: datetime
    version: int = 1
    gate_epoch: str | None = None
    gate_retired: bool = False

    def state_at(self, now: datetime) -> SaleState:
        """The sale's state at `now`, a time of one of the stores' clocks."""
        return sale_state(
            self.switch, _epoch_ms(now), self.sale_opens_at_ms, self.sale_closes_at_ms
        )

    @cached_property
    def sale_opens_at_ms(self) -> int:
        return _epoch_ms(self.sale_opens_at)

    @cached_property
    def sale_closes_at_ms(self) -> int:
        return _epoch_ms(self.sale_closes_at)

    @cached_property
    def tier_by_id(self) -> dict[str, Tier]:
        return {tier.id: tier for tier in self.tiers}

    @cached_property
    def tier_by_number(self) -> dict[int, Tier]:
        return {tier.number: tier for tier in self.tiers}


def sale_state(switch: SaleSwitch, now_ms: int, opens_at_ms: int, closes_at_ms: int) -> SaleState:
    """A closed sale stays closed; a pause shows even before opening, for it outlasts it."""
    if switch is SaleSwitch.CLOSED or now_ms >= closes_at_ms:
        return SaleState.CLOSED
    if switch is SaleSwitch.PAUSED:
        return SaleState.PAUSED
    return SaleState.OPEN if now_ms >= opens_at_ms else SaleState.SCHEDULED


def _epoch_ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
