"""What a benchmark found: figures of each turn, their medians, and ratios round by round."""

import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Self


@dataclass(frozen=True)
class Turn:
    """One variant in one round.

    `requests` is what the CPU was spent on, `requests_per_second` what the crowd was answered.
    CPU is in microseconds a request; `None` stands for a part that the variant does not touch.
    The bytes are by how much the stores grew for `new_orders`.
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
)

RATIOS = tuple(
    Ratio(figure, variant, "noop")
    for variant in ("asgi", "order", "hold", "sold_out", "replay")
    for figure in ("requests_per_second", "api_cpu_us")
)


@dataclass(frozen=True)
class BenchResult:
    """All turns by variant, a list item for each round, with what the run was like.

    `load_average` is that of the minute before the start: what else the machine was doing.
    `faults` has a line for every answer and order that should not have been, or is missing.
    """

    seconds: int
    connections: int
    cpus: int
    load_average: float
    turns: dict[str, list[Turn]]
    faults: list[str]

    @property
    def well(self) -> bool:
        """Whether every answer was right; figures of wrong answers mean nothing."""
        return not self.faults

    def spread(self, variant: str, figure: str) -> Spread | None:
        """One of `FIGURES` over the rounds, or `None` when the variant has no such figure."""
        return Spread.of(getattr(turn, figure) for turn in self.turns[variant])

    def bytes_per_order(self, variant: str, store: str) -> float | None:
        """Growth of `redis` or `postgres` per order over all rounds: tables grow in steps."""
        orders = sum(turn.new_orders for turn in self.turns[variant])
        grown = sum(getattr(turn, f"{store}_bytes") for turn in self.turns[variant])
        return grown / orders if orders else None

    def ratios(self) -> dict[Ratio, Spread]:
        """Those of `RATIOS` whose variants were run."""
        found = ((ratio, Spread.of(self._by_round(ratio))) for ratio in RATIOS)
        return {ratio: spread for ratio, spread in found if spread is not None}

    def _by_round(self, ratio: Ratio) -> list[float]:
        pairs = zip(self.turns.get(ratio.variant, ()), self.turns.get(ratio.base, ()), strict=False)
        return [getattr(ours, ratio.figure) / getattr(base, ratio.figure) for ours, base in pairs]

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
            "ratios": {ratio.name: spread._asdict() for ratio, spread in self.ratios().items()},
        }

    def _variant_as_json(self, name: str) -> dict[str, Any]:
        spreads = ((figure, self.spread(name, figure)) for figure in FIGURES)
        return {
            **{figure: spread and spread._asdict() for figure, spread in spreads},
            "redis_bytes_per_order": self.bytes_per_order(name, "redis"),
            "postgres_bytes_per_order": self.bytes_per_order(name, "postgres"),
            "rounds": [asdict(turn) for turn in self.turns[name]],
        }
