"""What was seen: every press of a buyer with its answer, and what processes noted on the way."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from onsale.domain.ids import order_id
from onsale.domain.order import Item
from tests.simulation.scheduler import Scheduler

EVENT_ID = "e" * 32
ATTEMPTS_MAX = 8


class Key(NamedTuple):
    """Whose press: a buyer and the Idempotency-Key."""

    buyer: str
    name: str

    def order_id(self, attempt: int) -> bytes:
        """The id of the order in this attempt."""
        return order_id(EVENT_ID, self.buyer, self.name, attempt)


class Answer(NamedTuple):
    """What a client was told. `order_id` and `fingerprint` are those of the order that it got."""

    code: str
    order_id: bytes | None = None
    fingerprint: bytes | None = None

    @property
    def placed(self) -> bool:
        return self.order_id is not None

    @property
    def refused(self) -> bool:
        """A definite no; a 503 or `request_in_progress` promises nothing either way."""
        return self.code in REFUSALS


REFUSALS = frozenset({"sold_out", "buyer_limit_reached", "idempotency_key_reused", "failed"})


@dataclass(slots=True, eq=False)
class Press:
    """One request of a client. Without an answer its outcome is unknown to the client."""

    key: Key
    items: tuple[Item, ...]
    fingerprint: bytes
    pressed_at_ms: int
    answer: Answer | None = None
    answered_at_ms: int | None = None

    @property
    def units(self) -> int:
        return sum(item.quantity for item in self.items)


class BrokenPromise(NamedTuple):
    """The ledger did not take an order that the gate, asked so long ago, had just admitted."""

    order_id: bytes
    asked_gate_ago_ms: int
    why: str


@dataclass(slots=True)
class History:
    """See the module. The two watchers are called as things happen."""

    scheduler: Scheduler
    watch_answer: Callable[[Press], None]
    watch_broken_promise: Callable[[BrokenPromise], None]
    presses: dict[Key, list[Press]] = field(default_factory=dict)
    # Every id that a press may have given its order, and whose it is.
    ids: dict[bytes, Key] = field(default_factory=dict)
    # Since when the gate is not all there is to go by: what came first.
    gate_passed_by: str | None = None

    def press(self, key: Key, items: tuple[Item, ...], fingerprint: bytes) -> Press:
        """A client presses."""
        press = Press(key, items, fingerprint, self.scheduler.now_ms)
        if key not in self.presses:
            self.presses[key] = []
            self.ids.update((key.order_id(attempt), key) for attempt in range(ATTEMPTS_MAX))
        self.presses[key].append(press)
        return press

    def answered(self, press: Press, answer: Answer) -> None:
        """The client has its answer."""
        press.answer = answer
        press.answered_at_ms = self.scheduler.now_ms
        self.watch_answer(press)

    def promise_broken(self, promise: BrokenPromise) -> None:
        """A process met one."""
        self.watch_broken_promise(promise)

    def pass_by_gate(self, why: str) -> None:
        """From now on the ledger may have to refuse what the gate admits."""
        self.gate_passed_by = self.gate_passed_by or why
