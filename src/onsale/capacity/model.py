"""What an on-sale needs, and what gives way first.

Pure arithmetic, by the costs under full load: a service near its limit has full batches. The
reasons, and what is left out, are in docs/capacity.md.
"""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from onsale.capacity.costs import MICRO, Costs, Cpu, Kind
from onsale.capacity.curve import Curve

# On the wire, without TLS and what a browser adds; an order is the longest of the usual answers.
_REQUEST_BYTES, _ANSWER_BYTES = 420, 524
# Points at which the queue is looked at.
_STEPS = 200


@dataclass(frozen=True)
class OnSale:
    """A crowd and what it wants. Each buyer presses `presses` times, under one key.

    Who holds tickets pays once, within `pay_seconds` of the sell-out; `None`: nobody pays. Raises
    `ValueError` for figures that no sale has.
    """

    arrivals: Curve
    tickets: int
    tickets_per_order: float = 1.0
    presses: float = 1.0
    pay_seconds: float | None = None

    def __post_init__(self) -> None:
        if self.tickets < 1:
            raise ValueError("there must be a ticket")
        if not 1 <= self.tickets_per_order < math.inf:
            raise ValueError("an order has at least one ticket")
        if not 1 <= self.presses < math.inf:
            raise ValueError("a buyer presses at least once")
        if self.pay_seconds is not None and not 0 < self.pay_seconds < math.inf:
            raise ValueError("paying takes some time")

    @property
    def orders(self) -> int:
        """As many as there are tickets and buyers for."""
        return min(math.ceil(self.tickets / self.tickets_per_order), round(self.arrivals.buyers))

    @property
    def requests(self) -> float:
        """Presses and payments of everybody."""
        payments = 0 if self.pay_seconds is None else self.orders
        return self.arrivals.buyers * self.presses + payments

    @property
    def sells_out(self) -> bool:
        """Whether anybody is turned away."""
        return self.orders < round(self.arrivals.buyers)

    def placing(self, costs: Costs) -> Kind:
        """The request that takes tickets."""
        return costs.order if self.pay_seconds is None else costs.hold


@dataclass(frozen=True)
class Setup:
    """How the service is run. `workers` are API processes; `None`: as many as it takes.

    `utilisation` is how much of a part may be in use at the peak: waiting grows as 1 / (1 - it).
    The rest are the settings of the same names.
    """

    ledger_batch_size_max: int
    batch_queue_size_max: int
    db_pool_size_max: int
    redis_connections_max: int
    keep_alive_seconds: float
    workers: int | None = None
    utilisation: float = 0.7

    def __post_init__(self) -> None:
        if not 0 < self.utilisation <= 1:
            raise ValueError("the utilisation is a share: more than 0 and at most 1")


class Name(StrEnum):
    """The parts that can give way."""

    API = "API processes"
    GATE = "Redis: one event, one shard"
    LEDGER = "Postgres: CPU"
    TIER = "Postgres: the tier's row"
    PAYING = "Postgres: payments"


@dataclass(frozen=True)
class Part:
    """One part at its peak: what a rate needs of it and what there is, both in `unit`."""

    name: Name
    needs: float
    has: float
    unit: str
    rate: float
    rate_unit: str

    @property
    def load(self) -> float:
        """How much of it is in use; above 1, buyers wait for it."""
        return self.needs / self.has

    @property
    def breaks_at(self) -> float:
        """The rate for which it is just enough."""
        return self.rate / self.load


@dataclass(frozen=True)
class Queue:
    """How long the tickets last, and the buyers who wait for their turn meanwhile."""

    sold_out_seconds: float
    wait_seconds_max: float
    waiting_max: float


@dataclass(frozen=True)
class Plan:
    """What an on-sale needs. Rates are a second, at the busiest moment.

    `paid_seconds` is how long paying takes, `None` without it or where its cost is not known.
    """

    orders: int
    requests: float
    buyers_per_second: float
    orders_per_second: float
    commits_per_second: float
    workers: int
    postgres_cores: int
    parts: list[Part]
    queue: Queue
    queue_size_max: int
    paid_seconds: float | None
    client_connections: float
    postgres_connections_max: int
    redis_connections_max: int
    redis_bytes: float
    postgres_bytes: float
    network_in_bits_per_second: float
    network_out_bits_per_second: float

    @property
    def first_to_break(self) -> Part:
        """The part with the least to spare."""
        return max(self.parts, key=lambda part: part.load)

    def as_json(self) -> dict[str, Any]:
        """Everything, in one object."""
        parts = [
            asdict(part) | {"load": part.load, "breaks_at": part.breaks_at} for part in self.parts
        ]
        return asdict(self) | {"parts": parts, "first_to_break": self.first_to_break.name}


def plan(sale: OnSale, costs: Costs, setup: Setup) -> Plan:
    """What the sale needs of a service that is run like this."""
    demand = _Demand(sale, costs, setup)
    workers = setup.workers or _count(demand.busiest.api, setup.utilisation)
    postgres_cores = _count(demand.busiest.postgres, setup.utilisation)
    served = min(
        _rate(workers, demand.winner.api),
        _rate(postgres_cores, demand.winner.postgres),
        demand.decided_max,
    )
    orders_per_second = min(demand.peak, served)
    return Plan(
        orders=sale.orders,
        requests=sale.requests,
        buyers_per_second=demand.peak,
        orders_per_second=orders_per_second,
        commits_per_second=orders_per_second / demand.batch_size(orders_per_second),
        workers=workers,
        postgres_cores=postgres_cores,
        parts=[part for part in demand.parts(workers, postgres_cores) if part.needs],
        queue=queue(sale, served),
        queue_size_max=workers * setup.batch_queue_size_max,
        paid_seconds=demand.paid_seconds,
        client_connections=sale.arrivals.arrived(setup.keep_alive_seconds),
        postgres_connections_max=workers * setup.db_pool_size_max,
        redis_connections_max=workers * setup.redis_connections_max,
        redis_bytes=sale.orders * sale.placing(costs).redis_bytes,
        postgres_bytes=sale.orders * demand.postgres_bytes_per_order,
        network_in_bits_per_second=demand.peak * sale.presses * _REQUEST_BYTES * 8,
        network_out_bits_per_second=demand.peak * sale.presses * _ANSWER_BYTES * 8,
    )


def queue(sale: OnSale, served_per_second: float) -> Queue:
    """What becomes of those who want tickets when so many of them are served a second, in turn."""
    served_seconds, wait_seconds_max, waiting_max = 0.0, 0.0, 0.0
    step = sale.orders / _STEPS
    for number in range(1, _STEPS + 1):
        came_seconds = sale.arrivals.seconds_of(number * step)
        served_seconds = max(came_seconds, served_seconds + step / served_per_second)
        wait_seconds_max = max(wait_seconds_max, served_seconds - came_seconds)
        waiting_max = max(waiting_max, sale.arrivals.arrived(served_seconds) - number * step)
    return Queue(served_seconds, wait_seconds_max, waiting_max)


@dataclass(frozen=True)
class _Demand:
    """What the busiest moment, the opening, asks for.

    Whoever comes then is a winner while there are tickets, and a loser from then on, when the
    winners pay. Each part has to stand both.
    """

    sale: OnSale
    costs: Costs
    setup: Setup

    @property
    def peak(self) -> float:
        return self.sale.arrivals.peak_rate

    @property
    def winner(self) -> Cpu:
        """CPU of a buyer who gets tickets."""
        again = self.costs.replay.cpu * (self.sale.presses - 1)
        return self._crowded(self.sale.placing(self.costs).cpu + again)

    @property
    def loser(self) -> Cpu:
        """CPU of a buyer who does not."""
        if not self.sale.sells_out:
            return Cpu()
        return self._crowded(self.costs.sold_out.cpu * self.sale.presses)

    @property
    def payments_per_second(self) -> float:
        return self.sale.orders / self.sale.pay_seconds if self.sale.pay_seconds else 0.0

    @property
    def paid_seconds(self) -> float | None:
        pay, wanted_seconds = self.costs.pay, self.sale.pay_seconds
        if pay is None or wanted_seconds is None:
            return None
        return max(wanted_seconds, self.sale.orders / pay.requests_per_second)

    @property
    def postgres_bytes_per_order(self) -> float:
        paid = self.costs.pay if self.sale.pay_seconds is not None else None
        return self.sale.placing(self.costs).postgres_bytes + (paid.postgres_bytes if paid else 0)

    @property
    def gate_limit(self) -> float:
        """Buyers a second that one thread of Redis decides."""
        return _rate(1, self.winner.redis)

    @property
    def tier_limit(self) -> float:
        """Orders of one tier a second: a batch locks its row until the commit is on the disk.

        That is not measured by itself, and takes no longer than a whole order that meets nobody.
        """
        if self.costs.order_seconds is None:
            return math.inf
        return self.setup.ledger_batch_size_max / self.costs.order_seconds

    def batch_size(self, orders_per_second: float) -> float:
        """Orders in a batch of the ledger: as many as measured, or as wait for the tier's row."""
        order_seconds = self.costs.order_seconds or 0.0
        return max(self.costs.order.batch_size, orders_per_second * order_seconds)

    @property
    def decided_max(self) -> float:
        """Winners a second, however much hardware there is."""
        return min(self.gate_limit, self.tier_limit)

    @property
    def selling(self) -> Cpu:
        """CPU a second while there are tickets; whoever is held up is soon a loser."""
        decided = min(self.peak, self.decided_max)
        return self.winner * decided + self.loser * (self.peak - decided)

    @property
    def sold_out(self) -> Cpu:
        """CPU a second from then on."""
        paying = Cpu() if self.costs.pay is None else self._crowded(self.costs.pay.cpu)
        return self.loser * self.peak + paying * self.payments_per_second

    @property
    def busiest(self) -> Cpu:
        return self.selling.most(self.sold_out)

    def parts(self, workers: int, postgres_cores: int) -> Iterator[Part]:
        """Every part whose limit is known, those included of which nothing is needed."""
        api, postgres = self.busiest.api * MICRO, self.busiest.postgres * MICRO
        redis = max(self.winner.redis * self.peak, self.sold_out.redis) * MICRO
        yield Part(Name.API, api, workers, "cores", self.peak, "buyers/s")
        yield Part(Name.GATE, redis, 1, "cores", self.peak, "buyers/s")
        yield Part(Name.LEDGER, postgres, postgres_cores, "cores", self.peak, "buyers/s")
        if self.tier_limit < math.inf:
            yield Part(Name.TIER, self.peak, self.tier_limit, "orders/s", self.peak, "buyers/s")
        if self.costs.pay is not None:
            rate = self.payments_per_second
            # Each payment is a commit that waits for the tier's row: more processes are no faster.
            limit = self.costs.pay.requests_per_second
            yield Part(Name.PAYING, rate, limit, "payments/s", rate, "payments/s")

    def _crowded(self, cpu: Cpu) -> Cpu:
        return cpu if self.setup.workers == 1 else cpu.crowded(self.costs.crowding)


def _rate(cores: float, cpu_us: float) -> float:
    """Requests a second that use up so many cores."""
    return cores / (cpu_us * MICRO) if cpu_us else math.inf


def _count(cpu_us_per_second: float, utilisation: float) -> int:
    """How many cores it takes when each may be in use so far."""
    return max(1, math.ceil(cpu_us_per_second * MICRO / utilisation))
