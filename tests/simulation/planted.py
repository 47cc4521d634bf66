"""Protocol bugs that can be planted, and the rule that must find each of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from onsale.domain.inventory import Inventory, Outcome, TakenOrder
from tests.simulation.plan import Theme


class Bug(Enum):
    """One step left out, or taken wrongly: what somebody might think, the rule that such runs
    break, and what they are about.
    """

    # the gate
    GIVES_BACK_TWICE = "an order's units may come back without the order going", "I1"
    NO_EPOCH = "a gate that answers is the gate that was loaded", "I9", Theme.LOST_GATE
    NO_STOCK_CHECKS = "stock may be looked at and taken later, in both stores", "I2"
    # placing
    BATCH_FAILED_WHOLE = "who shares a batch shares its fate", "I9"
    RETRY_TAKES_A_NEW_ID = "a press that is repeated is a new order", "I5"
    COMMIT_NOT_SHIELDED = "a commit whose client has gone need not be made", "I8"
    ANSWERED_BEFORE_THE_COMMIT = "what the gate admits is as good as written down", "I3"
    REFUSED_AFTER_A_LOST_ANSWER = "what is not answered did not happen", "I8", Theme.SLOW_LEDGER
    LEDGER_ADMITS_WITHOUT_LIMIT = "limits are the gate's affair", "I4", Theme.LOST_GATE
    LEDGER_COUNTS_BEFORE_IT_LOCKS = "what was read is what is", "I4", Theme.LOST_GATE
    PLACE_WITHOUT_LIMIT = "what the gate let through needs no second look", "I4", Theme.MIXED_MODE
    OTHER_BODY_BY_THE_GATES_WORD = "the gate knows which body came first", "I5", Theme.LOST_GATE
    GIVES_BACK_ANOTHER_BODY = "the gate has what was asked last", "G", Theme.SLOW_LEDGER
    # ending and paying
    REFUND_FORGETS_THE_GATE = "a refund is about money", "I1"
    REFUND_VOIDS_A_CAPTURE = "what is not known to be captured is not", "I10", Theme.CARDS
    CONFIRMS_WITHOUT_LOOKING = "whoever pays has a hold to pay for", "I1", Theme.CARDS
    # the workers
    NO_FENCE = "what has not arrived by now never will", "G", Theme.SOUND_GATE
    NO_GRACE = "what has not arrived is not on its way", "G", Theme.SOUND_GATE
    COMPARES_IDS_ALONE = "the same id is the same order", "I1", Theme.MIXED_MODE
    ENDED_ORDERS_UNSEEN = "an order that is over is nobody's any more", "I5", Theme.MIXED_MODE
    SWEEPER_TRUSTS_ITS_HOST = "it is the same time everywhere", "I6"
    SWEEPER_SPARES_WHO_TRIED_TO_PAY = "who tried to pay will pay", "I7"
    OUTBOX_BY_LAST_ID = "what comes later has a higher number", "I10", Theme.CARDS

    def __init__(self, mistake: str, rule: str, theme: Theme | None = None) -> None:
        self.mistake = mistake
        self.rule = rule
        self.theme = theme


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
