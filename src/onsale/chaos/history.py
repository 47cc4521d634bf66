"""What clients asked and what they were told: the evidence that the ledger is held against.

Every operation is written down when it is invoked, and its end is `ok`, `failed` or `unknown`.
`failed` is a word that stands: a refusal, or a request that never left. A time-out, a broken
connection and an answer that promises nothing either way are `unknown`: it may have happened.
"""

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple


class Kind(StrEnum):
    """What was asked."""

    PLACE = "place"
    PAY = "pay"
    RELEASE = "release"
    REFUND = "refund"
    READ = "read"
    LIST = "list"
    RESIZE = "resize"


class Outcome(StrEnum):
    """How it ended, as far as the client can know."""

    OK = "ok"
    FAILED = "failed"
    UNKNOWN = "unknown"


class OrderName(NamedTuple):
    """What a client calls an order before it has an id: the event, the buyer, the key."""

    event_id: str
    buyer_id: str
    key: str


@dataclass(slots=True)
class Operation:
    """One request. `items` are (tier id, quantity); times are seconds since 1970.

    `order_id` is set where the answer names an order that stands: a 2xx, or the hold that outlives
    a declined payment. `code` is the problem's, or the name of what broke the connection.
    """

    kind: Kind
    api: str
    name: OrderName
    invoked_at_seconds: float
    items: tuple[tuple[str, int], ...] = ()
    method: str | None = None
    outcome: Outcome = Outcome.UNKNOWN
    answered_at_seconds: float | None = None
    status: int | None = None
    code: str | None = None
    order_id: str | None = None
    order_status: str | None = None
    listed: tuple[str, ...] = ()

    @property
    def body(self) -> tuple[object, ...]:
        """What was asked for under the key; another body is another order."""
        return (tuple(sorted(self.items)), self.method)

    @property
    def acknowledged(self) -> bool:
        """Whether the buyer was told that an order stands."""
        return self.order_id is not None


@dataclass(slots=True)
class History:
    """Every operation, in the order of their invocation."""

    operations: list[Operation] = field(default_factory=list)

    def invoked(self, operation: Operation) -> Operation:
        """Write down that it was asked; until an answer comes it is unknown."""
        self.operations.append(operation)
        return operation

    def of(self, *kinds: Kind) -> Iterator[Operation]:
        """The operations of these kinds."""
        return (operation for operation in self.operations if operation.kind in kinds)

    def by_name(self, *kinds: Kind) -> dict[OrderName, list[Operation]]:
        """The operations of these kinds, by the order that they are about."""
        found: dict[OrderName, list[Operation]] = defaultdict(list)
        for operation in self.of(*kinds):
            found[operation.name].append(operation)
        return found

    def orders_between(self, from_seconds: float, to_seconds: float) -> int:
        """How many buyers were told of an order in that time."""
        return sum(
            operation.outcome is Outcome.OK
            and operation.answered_at_seconds is not None
            and from_seconds <= operation.answered_at_seconds <= to_seconds
            for operation in self.of(Kind.PLACE)
        )

    def taken_since(self, since_seconds: float) -> Iterator[Operation]:
        """Orders that were asked for since then and acknowledged."""
        for operation in reversed(self.operations):
            if operation.invoked_at_seconds < since_seconds:
                return
            if operation.kind is Kind.PLACE and operation.outcome is Outcome.OK:
                yield operation

    def write(self, path: Path) -> None:
        """One JSON object a line."""
        with path.open("w") as file:
            file.writelines(json.dumps(asdict(op)) + "\n" for op in self.operations)
