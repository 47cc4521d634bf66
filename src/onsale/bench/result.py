"""What a benchmark found: figures of each turn, their medians, and ratios round by round."""

import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, Self

from onsale.bench.probes import Holdings


@dataclass(frozen=True)
class Turn:
    """One variant in one round.

    First in a closed loop: `requests` is what the CPU was spent on, `requests_per_second` what the
    crowd was answered. CPU is in microseconds a request; `None` stands for a part that the variant
    does not touch.

    Then in an open one, at 70 % of what the closed loop came to so far (`open_…`), and at 70 % of
    what `order` came to. Latencies there are from when a request was due. The bytes are by how much
    the stores grew for `new_orders`, in both.
    """

    requests: int
    requests_per_second: float
    p50_ms: float
    p99_ms: float
    api_cpu_us: float
    redis_cpu_us: float | None = None
    postgres_cpu_us: float | None = None
    gate_batch_mean: float | None = None
    ledger_batch_mean: float | None = None
    new_orders: int = 0
    redis_bytes: int = 0
    postgres_bytes: int = 0
    open_requests_per_second: float | None = None
    open_p99_ms: float | None = None
    open_late_p99_ms: float | None = None
    order_load_p99_ms: float | None = None


class Footprint(NamedTuple):
    """The memory of an API process after so many requests."""

    requests: int
    resident_bytes: int


class Spread(NamedTuple):
    """A figure over the rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Self | None:
        """The spread of the values there are, or `None` without any."""
        found = [value for value in values if value is not None]
        return cls(statistics.median(found), min(found), max(found)) if found else None


class Ratio(NamedTuple):
    """A figure of one variant divided by the same figure of another, in the same round."""

    figure: str
    variant: str
    base: str

    @property
    def name(self) -> str:
        return f"{self.figure} {self.variant}/{self.base}"


FIGURES = (
    "requests_per_second",
    "p50_ms",
    "p99_ms",
    "api_cpu_us",
    "redis_cpu_us",
    "postgres_cpu_us",
    "gate_batch_mean",
    "ledger_batch_mean",
    "open_requests_per_second",
    "open_p99_ms",
    "open_late_p99_ms",
    "order_load_p99_ms",
)

_COMPARED = (
    *((name, "noop") for name in ("asgi", "order", "hold", "pay", "sold_out", "replay")),
    *(("order", other) for other in ("textbook", "cte", "quiet")),
    *((name, "disk_0ms") for name in ("disk_1ms", "disk_5ms")),
    *((name, "redis_0ms") for name in ("order", "redis_1ms")),
    *((name, "live_1k") for name in ("live_100k", "live_1m")),
    *((name, "events_1") for name in ("events_10", "events_100")),
    *((name, "workers_1") for name in ("workers_2", "workers_4")),
)
RATIOS = (
    *(
        Ratio(figure, variant, base)
        for variant, base in _COMPARED
        for figure in ("requests_per_second", "api_cpu_us")
    ),
    Ratio("order_load_p99_ms", "order", "noop"),
)


@dataclass(frozen=True)
class BenchResult:
    """All turns by variant, a list item for each round, with what the run was like.

    `load_average` is that of the minute before the start: what else the machine was doing.
    `filled` is what variants held before the crowd came, of those that are about it.
    `faults` has a line for every answer and order that should not have been, or is missing.
    """

    seconds: int
    connections: int
    cpus: int
    load_average: float
    turns: dict[str, list[Turn]]
    footprints: list[Footprint]
    faults: list[str]
    filled: dict[str, Holdings] = field(default_factory=dict)

    @property
    def well(self) -> bool:
        """Whether every answer was right; figures of wrong answers mean nothing."""
        return not self.faults

    def spread(self, variant: str, figure: str) -> Spread | None:
        """One of `FIGURES` over the rounds, or `None` when the variant has no such figure."""
        return Spread.of(getattr(turn, figure) for turn in self.turns.get(variant, ()))

    def bytes_per_order(self, variant: str, store: str) -> float | None:
        """Growth of `redis` or `postgres` per order over all rounds: tables grow in steps."""
        turns = self.turns.get(variant, ())
        orders = sum(turn.new_orders for turn in turns)
        grown_bytes = sum(getattr(turn, f"{store}_bytes") or 0 for turn in turns)
        return grown_bytes / orders if orders and grown_bytes else None

    def redis_bytes_per_live_order(self, variant: str) -> float | None:
        """What the event takes in Redis, divided by the orders that it was filled with."""
        filled = self.filled.get(variant)
        return filled.redis_bytes / filled.orders if filled else None

    def ratio(self, ratio: Ratio) -> Spread | None:
        """The ratio over the rounds, or `None` unless both have the figure."""
        pairs = zip(self.turns.get(ratio.variant, ()), self.turns.get(ratio.base, ()), strict=False)
        figures = [
            (getattr(ours, ratio.figure), getattr(base, ratio.figure)) for ours, base in pairs
        ]
        return Spread.of(ours / base if ours and base else None for ours, base in figures)

    def ratios(self) -> dict[Ratio, Spread]:
        """Those of `RATIOS` whose variants were run."""
        found = ((ratio, self.ratio(ratio)) for ratio in RATIOS)
        return {ratio: spread for ratio, spread in found if spread is not None}

    def memory_growth(self) -> float | None:
        """The memory after the last look at it, divided by that at the first."""
        if not self.footprints:
            return None
        return self.footprints[-1].resident_bytes / self.footprints[0].resident_bytes

    def as_json(self) -> dict[str, Any]:
        """Everything, in one object; spreads are `{median, low, high}`."""
        return {
            "seconds": self.seconds,
            "connections": self.connections,
            "cpus": self.cpus,
            "load_average": self.load_average,
            "well": self.well,
            "faults": self.faults,
            "variants": {name: self._variant_as_json(name) for name in self.turns},
            "memory": [footprint._asdict() for footprint in self.footprints],
            "ratios": {ratio.name: spread._asdict() for ratio, spread in self.ratios().items()},
        }

    def _variant_as_json(self, name: str) -> dict[str, Any]:
        spreads = ((figure, self.spread(name, figure)) for figure in FIGURES)
        return {
            **{figure: spread and spread._asdict() for figure, spread in spreads},
            "redis_bytes_per_order": self.bytes_per_order(name, "redis"),
            "postgres_bytes_per_order": self.bytes_per_order(name, "postgres"),
            "redis_bytes_per_live_order": self.redis_bytes_per_live_order(name),
            "rounds": [asdict(turn) for turn in self.turns[name]],
        }
