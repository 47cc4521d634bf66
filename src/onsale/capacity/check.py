"""The model against a real sale: predicts the demo from a benchmark of this machine, then runs it.

Two crowds come to one stack. The demo's is answered at once, so what it uses follows from the rate
at which it comes. The other comes faster than the machine can answer, so the rate at which orders
are placed follows from what they cost; k6 is on the same cores, and what it costs is taken from the
run itself, for that is nothing that the service could know.
"""

import asyncio
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self

import asyncpg

from onsale.bench.probes import ApiCounters, cpu_seconds, driver_url
from onsale.bench.run import run as run_benchmark
from onsale.bench.variants import Suite
from onsale.capacity.costs import MICRO
from onsale.capacity.curve import Curve
from onsale.capacity.errors import CapacityError
from onsale.capacity.machine import presses_per_second_max, use_of
from onsale.capacity.model import OnSale
from onsale.capacity.reference import Reference, reference_of
from onsale.demo.client import ServiceClient
from onsale.demo.sale import Verdict, run_sale
from onsale.demo.stack import Stack
from onsale.http.intake import ROUTE
from onsale.loadtests import SCENARIOS, Progress

DEVIATION_MAX = 0.25

# Apart from each other: for some seconds after its turn a server looks after its sale, at the cost
# of the stores, and a calm service does not cost them much more than that.
_SUITES = (
    Suite("under full load", ("order", "hold", "replay", "sold_out")),
    Suite("orders at a low rate", ("order_calm",)),
    Suite("refusals at a low rate", ("sold_out_calm",)),
)
_ROUNDS = 3
_DEMO = SCENARIOS["flash_sale"]
# Every tenth buyer presses twice (`DUPLICATE_SHARE` in loadtest/lib/config.js).
_PRESSES = 1.1
# More than two cores can answer, let alone those that k6 leaves; tickets for all, so that every
# answer is an order.
_MANY_BUYERS, _MANY_SECONDS = 30_000, 5
# The service's workers ask Postgres for work whether or not anybody comes, and the benchmark has no
# workers: what that costs is seen before the first buyer comes.
_IDLE_SECONDS = 3
# Of the answers of the crowded run, those in its midst: k6 starts slowly, and ends with few.
_MIDST = (0.1, 0.9)

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Compared:
    """One figure as predicted and as measured."""

    name: str
    unit: str
    predicted: float
    measured: float

    @property
    def deviation(self) -> float:
        """By what share of the measured the prediction is off."""
        return self.predicted / self.measured - 1 if self.measured else float(self.predicted > 0)

    @property
    def well(self) -> bool:
        """Whether it is near enough."""
        return abs(self.deviation) <= DEVIATION_MAX

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        return asdict(self) | {"deviation": self.deviation, "well": self.well}


@dataclass(frozen=True)
class Check:
    """All figures, with what else explains them.

    `batch` is how many orders shared one in the demo, which decides what they cost; `cores` is what
    others left of the machine to the crowded run, `crowd_us` what k6 needed for a request in it.
    """

    compared: list[Compared]
    batch: Compared
    cores: float
    crowd_us: float
    reference: Reference

    @property
    def well(self) -> bool:
        """Whether every figure is near enough."""
        return all(figure.well for figure in self.compared)

    def as_json(self) -> dict[str, Any]:
        """Everything, in one object."""
        compared = [figure.as_json() for figure in self.compared]
        return asdict(self) | {
            "compared": compared,
            "batch": self.batch.as_json(),
            "well": self.well,
        }


def check_demo(reference: Reference | None, tell: Tell) -> Check:
    """Predict the demo and a crowd that is too much, and compare. About a minute.

    Costs are measured first unless there is a `reference` of this machine. Raises
    `CapacityError` when a run says nothing, and what `bench`, `demo` and `loadtests` raise.
    """
    reference = reference or _measure(tell)
    with tempfile.TemporaryDirectory(prefix="onsale-capacity-") as name:
        folder = Path(name)
        with Stack(folder, os.urandom(32).hex(), tell=tell) as stack:
            idle = _idle(stack)
            tell(f"the demo: {_DEMO.buyers:,} buyers, {_DEMO.stock:,} tickets")
            demo = _Run.of(stack, folder / "demo", _DEMO.buyers, _DEMO.stock, _DEMO.seconds)
            sold_seconds = asyncio.run(_selling_seconds(stack.database_url))
            tell(f"too many: {_MANY_BUYERS:,} buyers in {_MANY_SECONDS} s, tickets for all")
            many = _Run.of(stack, folder / "many", _MANY_BUYERS, _MANY_BUYERS, _MANY_SECONDS)
    return _compare(reference, idle, demo.whole, sold_seconds, many.midst)


def _measure(tell: Tell) -> Reference:
    found = [run_benchmark(suite, rounds=_ROUNDS, tell=tell).as_json() for suite in _SUITES]
    variants = {name: variant for part in found for name, variant in part["variants"].items()}
    well = all(part["well"] for part in found)
    return reference_of(found[0] | {"variants": variants, "well": well}, "a benchmark just now")


def _idle(stack: Stack) -> "_Used":
    before = _Used.so_far(stack)
    time.sleep(_IDLE_SECONDS)
    return _Used.so_far(stack).since(before)


def _compare(
    reference: Reference, idle: "_Used", demo: "_Used", sold_seconds: float, midst: "_Used"
) -> Check:
    arrivals = Curve.of_load_test(_DEMO.buyers, _DEMO.seconds)
    use = use_of(OnSale(arrivals, _DEMO.stock, presses=_PRESSES), reference.costs)
    postgres = use.postgres_cpu_seconds + idle.postgres / idle.seconds * _DEMO.seconds
    selling_seconds = use.sold_out_seconds - arrivals.seconds_of(1)
    orders_per_second = presses_per_second_max(
        reference.costs, _PRESSES, cores=midst.cores_left, crowd_us=midst.crowd_us
    )
    return Check(
        compared=[
            Compared("demo: CPU of the API", "s", use.api_cpu_seconds, demo.api),
            Compared("demo: CPU of Redis", "s", use.redis_cpu_seconds, demo.redis),
            Compared("demo: CPU of Postgres", "s", postgres, demo.postgres),
            Compared("demo: first ticket to last", "s", selling_seconds, sold_seconds),
            Compared("too many: answers", "/s", orders_per_second, midst.answers / midst.seconds),
        ],
        batch=Compared("orders a batch", "", use.batch_size, demo.batched / demo.batches),
        cores=midst.cores_left,
        crowd_us=midst.crowd_us,
        reference=reference,
    )


class _Used(NamedTuple):
    """Answers so far, or between two looks, with the time that took and the CPU, in seconds.

    `crowd` is k6 with this process, which watches; `others` is what else the machine was doing,
    the service's workers included, for the benchmark has none.
    """

    seconds: float
    answers: int
    batches: int
    batched: int
    api: float
    redis: float
    postgres: float
    crowd: float
    others: float

    @classmethod
    def so_far(cls, stack: Stack) -> Self:
        counted = ApiCounters.scrape([stack.metrics_port], ROUTE)
        names = ("api", "redis", "postgres", "worker")
        api, redis, postgres, workers, family = cpu_seconds(
            *(stack.pids[name] for name in names), os.getpid()
        )
        return cls(
            time.monotonic(),
            sum(counted.answers.values()),
            counted.batches.get("gate", 0),
            counted.batched.get("gate", 0),
            api,
            redis,
            postgres,
            crowd=family - api - redis - postgres - workers,
            others=_machine_cpu_seconds() - family + workers,
        )

    def since(self, before: "_Used") -> "_Used":
        return _Used(
            seconds=self.seconds - before.seconds,
            answers=self.answers - before.answers,
            batches=self.batches - before.batches,
            batched=self.batched - before.batched,
            api=self.api - before.api,
            redis=self.redis - before.redis,
            postgres=self.postgres - before.postgres,
            crowd=self.crowd - before.crowd,
            others=self.others - before.others,
        )

    @property
    def crowd_us(self) -> float:
        """CPU of the crowd for each of its requests."""
        return self.crowd / self.answers / MICRO

    @property
    def cores_left(self) -> float:
        """Cores that nobody else used."""
        return (os.cpu_count() or 1) - self.others / self.seconds


@dataclass(frozen=True)
class _Run:
    """A load test, looked at all along."""

    looks: list[_Used] = field(default_factory=list)

    @classmethod
    def of(cls, stack: Stack, report_dir: Path, buyers: int, stock: int, seconds: int) -> Self:
        run = cls([_Used.so_far(stack)])

        def look(progress: Progress) -> None:
            run.looks.append(_Used.so_far(stack))

        verdict = run_sale(
            _DEMO,
            ServiceClient(stack.base_url, stack.auth_secret),
            base_url=stack.base_url,
            auth_secret=stack.auth_secret,
            stock=stock,
            buyers=buyers,
            seconds=seconds,
            report_dir=report_dir,
            env={},
            on_progress=look,
        )
        run.looks.append(_Used.so_far(stack))
        _require_sound(verdict)
        return run

    @property
    def whole(self) -> _Used:
        """All of it."""
        return self.looks[-1].since(self.looks[0])

    @property
    def midst(self) -> _Used:
        """Without its beginning and its end. Raises `CapacityError` when nothing is left then."""
        least, most = (self.looks[0].answers + self.whole.answers * share for share in _MIDST)
        looks = [look for look in self.looks if least <= look.answers <= most]
        if len(looks) < 2:
            raise CapacityError("the crowd was gone before it could be watched; try again")
        return looks[-1].since(looks[0])


def _require_sound(verdict: Verdict) -> None:
    """A run may be too much for its thresholds; its books balance all the same."""
    if verdict.oversold or not verdict.audit["balanced"]:
        raise CapacityError(f"the books do not balance: {'; '.join(verdict.faults)}")


def _machine_cpu_seconds() -> float:
    """CPU that everybody on this machine has used; proc(5): idle and iowait are the 4th and 5th."""
    ticks = [int(part) for part in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(ticks) - sum(ticks[3:5])) / os.sysconf("SC_CLK_TCK")


async def _selling_seconds(database_url: str) -> float:
    """From the first order in the ledger to the last."""
    connection = await asyncpg.connect(driver_url(database_url))
    try:
        return float(
            await connection.fetchval(
                "SELECT extract(epoch FROM max(created_at) - min(created_at)) FROM orders"
            )
        )
    finally:
        await connection.close()
