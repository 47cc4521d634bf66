"""What a request costs: CPU in microseconds, for each of the three parts that have to work for it.

Group commit makes a request cheaper the more of them come at once: a script call, a statement and a
commit are paid for once a batch. So a cost has two terms, one of the request and one of its batch,
and the size of a batch follows from the rate. Both are measured: under full load (`order`), and
alone (`order_alone`), where each order is a batch.
"""

import math
from dataclasses import dataclass, replace

MICRO = 1e-6


@dataclass(frozen=True)
class Cpu:
    """CPU of the three parts, in microseconds."""

    api: float = 0.0
    redis: float = 0.0
    postgres: float = 0.0

    def __add__(self, other: "Cpu") -> "Cpu":
        return Cpu(self.api + other.api, self.redis + other.redis, self.postgres + other.postgres)

    def __mul__(self, times: float) -> "Cpu":
        return Cpu(self.api * times, self.redis * times, self.postgres * times)

    def __sub__(self, other: "Cpu") -> "Cpu":
        return self + other * -1

    def most(self, other: "Cpu") -> "Cpu":
        """Part by part, the larger of the two."""
        return Cpu(
            max(self.api, other.api),
            max(self.redis, other.redis),
            max(self.postgres, other.postgres),
        )

    def crowded(self, times: float) -> "Cpu":
        """With an API that needs so many times as much."""
        return replace(self, api=self.api * times)

    @property
    def positive(self) -> "Cpu":
        """Without what noise made less than nothing."""
        return self.most(Cpu())

    @property
    def total(self) -> float:
        """Of all parts."""
        return self.api + self.redis + self.postgres


@dataclass(frozen=True)
class Kind:
    """A kind of request under full load: its CPU, answers a second, the size of its batches.

    `batch_size` is 1 for requests that share nothing. The bytes are by how much each lets the
    stores grow.
    """

    cpu: Cpu
    requests_per_second: float
    batch_size: float = 1.0
    redis_bytes: float = 0.0
    postgres_bytes: float = 0.0


@dataclass(frozen=True)
class Costs:
    """Everything that was measured, on one machine; what was not is `None`, nothing or 1.

    `per_batch` is what a batch costs however many it has, `lone_order_seconds` how long an order
    takes that meets nobody, `lone_refusal` how much more a refusal costs that meets nobody, and
    `crowding` by how much the API's CPU grows where several processes share a machine.
    """

    order: Kind
    hold: Kind
    replay: Kind
    sold_out: Kind
    pay: Kind | None = None
    per_batch: Cpu = Cpu()
    lone_order_seconds: float | None = None
    lone_refusal: Cpu = Cpu()
    crowding: float = 1.0

    # -- how they are made

    def with_lone_order(self, alone: Kind, seconds: float) -> "Costs":
        """Knowing an order that has a batch to itself, and how long it took."""
        shared = 1 / alone.batch_size - 1 / self.order.batch_size
        per_batch = ((alone.cpu - self.order.cpu) * (1 / shared)).positive if shared > 0 else Cpu()
        return replace(self, per_batch=per_batch, lone_order_seconds=seconds)

    def with_lone_refusal(self, cpu: Cpu) -> "Costs":
        """Knowing a refusal that meets nobody."""
        return replace(self, lone_refusal=(cpu - self.sold_out.cpu).positive)

    def with_several_processes(self, order: Kind) -> "Costs":
        """Knowing an order by one of several processes, whose batches are smaller."""
        alike = self.in_batches(self.order, order.batch_size)
        return replace(self, crowding=max(1.0, order.cpu.api / alike.api))

    # -- what they say

    def batch_size(self, orders_per_second: float) -> float:
        """Orders in a batch of one process that gets so many of them a second.

        A batch is what arrived while the last one was in flight, and one when nobody did. Of
        Poisson arrivals x come in one flight on average, and none with probability e^-x: the mean
        is x + e^-x. A flight takes as long as that of a lone order, and what the loop does for
        those who come meanwhile. Never larger than measured: larger ones are cheaper, by a guess.
        """
        if self.lone_order_seconds is None:
            return self.order.batch_size
        # An order takes two flights, one to the gate and one to the ledger; none is over before
        # the loop has done its work for both.
        flight_seconds = max(self.lone_order_seconds / 2, self.per_batch.api * MICRO)
        own_us = max(0.0, self.order.cpu.api - self.per_batch.api / self.order.batch_size)
        idle_share = 1 - orders_per_second * own_us * MICRO
        if idle_share <= 0:
            return self.order.batch_size
        met = orders_per_second * flight_seconds / idle_share
        return min(self.order.batch_size, met + math.exp(-met))

    def in_batches(self, kind: Kind, batch_size: float) -> Cpu:
        """CPU of such a request in a batch of that size, or of the measured one if that is less."""
        size = min(batch_size, kind.batch_size)
        return kind.cpu + self.per_batch * (1 / size - 1 / kind.batch_size)

    def of_refusal(self, refusals_per_second: float) -> Cpu:
        """CPU of a refusal by one process that gives so many a second.

        A busy loop finds many requests whenever it looks; linear in between.
        """
        load = min(1.0, refusals_per_second / self.sold_out.requests_per_second)
        return self.sold_out.cpu + self.lone_refusal * (1 - load)
