"""What a request costs: CPU in microseconds, for each of the three parts that have to work for it.

Group commit makes a request cheaper the more of them come at once: a script call, a statement and a
commit are paid for once a batch. So an order's cost has two terms, one of its own and one of its
batch, and the size of the batch follows from the rate. Two measurements give both: one under full
load, and one at a rate at which most orders meet nobody.
"""

import math
from dataclasses import dataclass, replace

MICRO = 1e-6
_HALVINGS = 60


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

    `per_batch` is what a batch costs however many it has, `flight_seconds` how long one is under
    way that meets no other work, `order_seconds` how long an order takes that meets nobody.
    `calm_refusal` is a refusal where they are few, `watching` what a process that looks after a
    sale costs the stores in a second, and `crowding` by how much the API's CPU grows where several
    processes share a machine.
    """

    order: Kind
    hold: Kind
    replay: Kind
    sold_out: Kind
    pay: Kind | None = None
    per_batch: Cpu = Cpu()
    flight_seconds: float | None = None
    order_seconds: float | None = None
    calm_refusal: Kind | None = None
    watching: Cpu = Cpu()
    crowding: float = 1.0

    # -- how they are made

    def with_calm_refusals(self, calm: Kind) -> "Costs":
        """Knowing refusals at a low rate.

        They ask no store: what the stores used meanwhile is for news of the sale, by the clock.
        """
        watching = replace(calm.cpu, api=0.0) * calm.requests_per_second
        refusal = replace(calm, cpu=Cpu(api=calm.cpu.api))
        return replace(self, calm_refusal=refusal, watching=watching)

    def with_calm_orders(self, calm: Kind, seconds: float) -> "Costs":
        """Knowing orders at a low rate, in small batches, and how long one took."""
        shared = 1 / calm.batch_size - 1 / self.order.batch_size
        dearer = calm.cpu - self.watching * (1 / calm.requests_per_second) - self.order.cpu
        per_batch = (dearer * (1 / shared)).positive if shared > 0 else Cpu()
        costs = replace(self, per_batch=per_batch, order_seconds=seconds)
        idle_share = costs._idle_share(calm.requests_per_second)
        met = orders_met(calm.batch_size)
        return replace(costs, flight_seconds=met * idle_share / calm.requests_per_second)

    def with_several_processes(self, order: Kind) -> "Costs":
        """Knowing an order by one of several processes, whose batches are smaller."""
        alike = self.in_batches(self.order, order.batch_size)
        return replace(self, crowding=max(1.0, order.cpu.api / alike.api))

    # -- what they say

    def batch_size(
        self,
        arrivals_per_second: float,
        *,
        together: float = 1.0,
        slowed: float = 1.0,
    ) -> float:
        """Orders in a batch of one process where so many buyers arrive, each with some `together`.

        A batch is what arrived while the last one was under way, and that takes longer by what the
        loop has to do for those who arrive meanwhile. Work takes `slowed` times as long as its CPU
        where others want the same cores. Never smaller than the loop has time for, and never larger
        than was measured under full load: larger ones are cheaper, by a guess.
        """
        orders_per_second = arrivals_per_second * together
        idle_share = self._idle_share(orders_per_second, slowed)
        if self.flight_seconds is None or idle_share <= 0:
            return self.order.batch_size
        # An order takes two flights, one to the gate and one to the ledger.
        slower_seconds = (slowed - 1) * self.per_batch.total / 2 * MICRO
        met = arrivals_per_second * (self.flight_seconds + slower_seconds) / idle_share
        arrived = batch_of(met)
        least = orders_per_second * self.per_batch.api * slowed * MICRO / idle_share
        return min(self.order.batch_size, max(arrived * together, least))

    def in_batches(self, kind: Kind, batch_size: float) -> Cpu:
        """CPU of such a request in a batch of that size, or of the measured one if that is less."""
        size = min(batch_size, kind.batch_size)
        return kind.cpu + self.per_batch * (1 / size - 1 / kind.batch_size)

    def of_refusal(self, refusals_per_second: float) -> Cpu:
        """CPU of a refusal by one process that gives so many a second.

        A busy loop finds many requests whenever it looks, and its code in the caches; linear
        between the two rates that were measured.
        """
        calm, busy = self.calm_refusal, self.sold_out
        if calm is None or calm.requests_per_second >= busy.requests_per_second:
            return busy.cpu
        span = busy.requests_per_second - calm.requests_per_second
        share = (refusals_per_second - calm.requests_per_second) / span
        return calm.cpu + (busy.cpu - calm.cpu) * min(1.0, max(0.0, share))

    def _idle_share(self, orders_per_second: float, slowed: float = 1.0) -> float:
        """How much of the loop's time is not for the orders themselves."""
        own_us = self.order.cpu.api - self.per_batch.api / self.order.batch_size
        return 1 - orders_per_second * max(0.0, own_us) * slowed * MICRO


def batch_of(met: float) -> float:
    """The mean size of a batch when so many arrive, on average, while another is under way.

    Of x that arrive by chance none do with probability e^-x; then the next is a batch by itself.
    """
    return met + math.exp(-met)


def orders_met(batch_size: float) -> float:
    """The inverse of `batch_of`, for sizes of at least 1."""
    low, high = 0.0, max(1.0, batch_size)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if batch_of(middle) < batch_size else (low, middle)
    return low
