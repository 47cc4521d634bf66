"""Group commit: what arrives while a batch is in flight is the next batch.

As `sales.group_commit`.
"""

from collections.abc import Callable
from typing import NamedTuple

from onsale.domain.errors import OnsaleError
from onsale.domain.inventory import Outcome, TakenOrder
from tests.simulation.ledger import Placement
from tests.simulation.scheduler import Host, Promise, Steps


class Refusal(NamedTuple):
    """A refusal of the gate or the ledger; a stranger's order surely was never admitted before."""

    outcome: Outcome
    stranger: bool


Verdict = Refusal | Placement


class Pending(NamedTuple):
    """An order on its way and whoever waits for it.

    `asked_gate_at_ms` is set when the gate has just admitted it, having been asked then.
    """

    order: TakenOrder
    waiter: Promise[Verdict]
    asked_gate_at_ms: int | None = None


class Failed(OnsaleError):
    """The order failed."""

    code = "failed"


Flush = Callable[[list[Pending]], Steps[object]]


class GroupCommit:
    """One stage; `flush` answers or passes on every order of its batch."""

    def __init__(self, host: Host, flush: Flush, size_max: int, in_flight_max: int) -> None:
        self._host = host
        self._flush = flush
        self._size_max = size_max
        self._in_flight_max = in_flight_max
        self._queue: list[Pending] = []
        self._flights: list[list[Pending]] = []
        self._departure_called = False

    def submit(self, order: TakenOrder) -> Promise[Verdict]:
        """The answer to an order, or what its batch failed with."""
        waiter: Promise[Verdict] = Promise(self._host.scheduler)
        self.enqueue(Pending(order, waiter))
        return waiter

    def enqueue(self, pending: Pending) -> None:
        """Let an order join the next batch."""
        self._queue.append(pending)
        if not self._departure_called and len(self._flights) < self._in_flight_max:
            self._departure_called = True
            # Soon, not now: whatever else comes at this time joins the same batch.
            self._host.spawn(self._depart())

    def _depart(self) -> Steps[None]:
        self._departure_called = False
        while self._queue and len(self._flights) < self._in_flight_max:
            batch, self._queue = self._queue[: self._size_max], self._queue[self._size_max :]
            self._flights.append(batch)
            self._host.spawn(self._fly(batch))
        yield from ()  # there is nothing to wait for

    def _fly(self, batch: list[Pending]) -> Steps[None]:
        try:
            yield from self._flush(batch)
        except OnsaleError as error:
            for pending in batch:
                pending.waiter.fail(error)
        self._flights.remove(batch)
        yield from self._depart()

    def cancel_flight_of(self, waiter: Promise[Verdict]) -> None:
        """What a commit that is not shielded does when one of its clients goes away."""
        for batch in self._flights:
            if any(pending.waiter is waiter for pending in batch):
                for pending in batch:
                    pending.waiter.fail(Failed())
