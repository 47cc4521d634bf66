"""Protocol bugs that can be planted, and the rule that must find each of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from onsale.domain.inventory import Inventory, Outcome, TakenOrder


class Bug(Enum):
    """One step left out, or taken wrongly."""

    # the gate
    GIVES_BACK_TWICE = auto()
    NO_EPOCH = auto()
    FILTER_WITHOUT_EPOCH = auto()
    NO_STOCK_CHECKS = auto()
    # placing
    BATCH_FAILED_WHOLE = auto()
    RETRY_TAKES_A_NEW_ID = auto()
    COMMIT_NOT_SHIELDED = auto()
    ANSWERED_BEFORE_THE_COMMIT = auto()
    REFUSED_AFTER_A_LOST_ANSWER = auto()
    LEDGER_ADMITS_WITHOUT_LIMIT = auto()
    LEDGER_COUNTS_BEFORE_IT_LOCKS = auto()
    PLACE_WITHOUT_LIMIT = auto()
    OTHER_BODY_BY_THE_GATES_WORD = auto()
    # ending and paying
    REFUND_FORGETS_THE_GATE = auto()
    REFUND_VOIDS_A_CAPTURE = auto()
    CONFIRMS_WITHOUT_LOOKING = auto()
    # the workers
    NO_FENCE = auto()
    NO_GRACE = auto()
    COMPARES_IDS_ALONE = auto()
    ENDED_ORDERS_UNSEEN = auto()
    SWEEPER_TRUSTS_ITS_HOST = auto()
    SWEEPER_SPARES_WHO_TRIED_TO_PAY = auto()
    OUTBOX_BY_LAST_ID = auto()


@dataclass(slots=True)
class InventoryGivingBackTwice(Inventory):
    """Adds an order's units and leaves the order where it is."""

    surplus_units: dict[int, int] = field(default_factory=dict)

    def give_back(self, order_ids: Sequence[bytes]) -> int:
        given_back = [self.orders[order_id] for order_id in order_ids if order_id in self.orders]
        for item in (item for order in given_back for item in order.items):
            surplus = self.surplus_units.get(item.tier_number, 0)
            self.surplus_units[item.tier_number] = surplus + item.quantity
        return len(given_back)

    def available_units(self, tier_number: int) -> int:
        surplus = self.surplus_units.get(tier_number, 0)
        # Spelled out: `super()` does not find its way in a class with slots.
        return Inventory.available_units(self, tier_number) + surplus


@dataclass(slots=True)
class InventoryWithoutStockCheck(Inventory):
    """Admits whoever asks."""

    def admit(self, batch: Sequence[TakenOrder], now_ms: int) -> list[Outcome]:
        outcomes = Inventory.admit(self, batch, now_ms)
        for n, (order, outcome) in enumerate(zip(batch, outcomes, strict=True)):
            if outcome is Outcome.SOLD_OUT:
                self.orders[order.order_id] = order
                outcomes[n] = Outcome.ADMITTED
        return outcomes


def inventory_of(bugs: frozenset[Bug]) -> type[Inventory]:
    """The gate's arithmetic, sound or not."""
    if Bug.GIVES_BACK_TWICE in bugs:
        return InventoryGivingBackTwice
    if Bug.NO_STOCK_CHECKS in bugs:
        return InventoryWithoutStockCheck
    return Inventory
