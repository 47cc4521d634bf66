"""The evidence, sorted as the rules want it."""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from onsale.chaos.evidence import Evidence, Row
from onsale.chaos.history import Kind, Operation, OrderName
from onsale.chaos.watcher import Look
from onsale.domain.ids import order_id
from onsale.domain.order import OrderStatus

# As many attempts as `sales.placing` makes to name an order anew.
_ATTEMPTS_MAX = 8
# No client waits for longer.
_PATIENCE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Facts:
    """Rows by order id, and by what their buyers call them; `unasked` are those that nobody asked
    for. Operations by what they are about; `acknowledged` are those that were told of an order.
    """

    evidence: Evidence
    rows: dict[str, Row]
    rows_by_name: dict[OrderName, list[Row]]
    unasked: list[Row]
    placed: dict[OrderName, list[Operation]]
    acknowledged: dict[OrderName, list[Operation]]

    @classmethod
    def of(cls, evidence: Evidence) -> "Facts":
        """Sort it."""
        placed = evidence.history.by_name(Kind.PLACE)
        names = {
            order_id(*name, attempt).hex(): name
            for name in placed
            for attempt in range(_ATTEMPTS_MAX)
        }
        by_name: dict[OrderName, list[Row]] = defaultdict(list)
        for row in evidence.rows:
            if row.order_id in names and row.status is not OrderStatus.ABANDONED:
                by_name[names[row.order_id]].append(row)
        return cls(
            evidence,
            rows={row.order_id: row for row in evidence.rows},
            rows_by_name=by_name,
            unasked=[row for row in evidence.rows if row.order_id not in names],
            placed=placed,
            acknowledged={
                name: told
                for name, operations in placed.items()
                if (told := [op for op in operations if op.acknowledged])
            },
        )

    def row_of(self, operation: Operation) -> Row | None:
        """The row of the order that an operation was told of."""
        return self.rows.get(operation.order_id or "")

    def looks(self, since_seconds: float, until_seconds: float) -> Sequence[Look]:
        """The looks into the stores in that time."""
        looks = self.evidence.looks
        first = bisect_left(looks, since_seconds, key=lambda look: look.at_seconds)
        last = bisect_right(looks, until_seconds, key=lambda look: look.at_seconds)
        return looks[first:last]

    def under_way(
        self, event_id: str, since_seconds: float, until_seconds: float
    ) -> list[Operation]:
        """Orders of an event that somebody waited for at any moment of that time."""
        operations = self.evidence.history.operations
        earliest = since_seconds - _PATIENCE_SECONDS
        first = bisect_left(operations, earliest, key=lambda op: op.invoked_at_seconds)
        last = bisect_right(operations, until_seconds, key=lambda op: op.invoked_at_seconds)
        return [
            op
            for op in operations[first:last]
            if op.kind is Kind.PLACE
            and op.name.event_id == event_id
            and (op.answered_at_seconds is None or op.answered_at_seconds >= since_seconds)
        ]
