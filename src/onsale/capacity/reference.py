"""Reads the costs from what `onsale bench --json` printed."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from onsale.capacity.costs import Costs, Cpu, Kind
from onsale.capacity.errors import CapacityError
from onsale.resources import project_folder

# What the project comes with, of the machine that its README tells of.
_COMMITTED = "bench/reference.json"

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
# A part that has next to nothing to do may use less than a tick of the clock.
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Figure(BaseModel):
    median: Positive


class _Use(BaseModel):
    median: NotNegative


class _Variant(BaseModel):
    requests_per_second: _Figure
    p50_ms: _Figure
    api_cpu_us: _Figure
    redis_cpu_us: _Use
    postgres_cpu_us: _Use
    redis_bytes_per_order: float | None = None
    postgres_bytes_per_order: float | None = None

    @property
    def cpu(self) -> Cpu:
        return Cpu(self.api_cpu_us.median, self.redis_cpu_us.median, self.postgres_cpu_us.median)

    @property
    def kind(self) -> Kind:
        return Kind(
            self.cpu,
            self.requests_per_second.median,
            redis_bytes=self.redis_bytes_per_order or 0.0,
            postgres_bytes=self.postgres_bytes_per_order or 0.0,
        )


class _BatchedVariant(_Variant):
    gate_batch_mean: _Figure

    @property
    def kind(self) -> Kind:
        return Kind(
            self.cpu,
            self.requests_per_second.median,
            self.gate_batch_mean.median,
            redis_bytes=self.redis_bytes_per_order or 0.0,
            postgres_bytes=self.postgres_bytes_per_order or 0.0,
        )


class _Variants(BaseModel):
    order: _BatchedVariant
    hold: _BatchedVariant
    replay: _BatchedVariant
    sold_out: _Variant
    pay: _Variant | None = None
    order_calm: _BatchedVariant | None = None
    sold_out_calm: _Variant | None = None
    workers_2: _BatchedVariant | None = None
    workers_4: _BatchedVariant | None = None


class _Benchmark(BaseModel):
    cpus: int
    load_average: float
    well: bool
    variants: _Variants


@dataclass(frozen=True)
class Reference:
    """What a benchmark found, with where that stands and on what machine it was."""

    name: str
    cpus: int
    load_average: float
    costs: Costs

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        return asdict(self)


def read_reference(path: Path | None = None) -> Reference:
    """Read what `onsale bench --json` printed; by default the result that comes with the project.

    Raises `CapacityError` when the file is missing, is something else, or its answers were wrong.
    """
    name = str(path or f"loadtest/{_COMMITTED}")
    path = path or project_folder("loadtest") / _COMMITTED
    try:
        data = json.loads(path.read_bytes())
    except OSError as error:
        raise CapacityError(f"{name} cannot be read: {error.strerror}") from None
    except ValueError:
        raise CapacityError(f"{name} is not JSON") from None
    return reference_of(data, name)


def reference_of(data: Any, name: str) -> Reference:
    """The same of the object itself; `name` says in errors and in reports where it is from."""
    try:
        benchmark = _Benchmark.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise CapacityError(
            f"{name} is no result of `onsale bench --json`: {where or 'all of it'}: {first['msg']}"
        ) from None
    if not benchmark.well:
        raise CapacityError(f"{name}: answers of that run were wrong, so its figures mean nothing")
    return Reference(name, benchmark.cpus, benchmark.load_average, _costs(benchmark.variants))


def _costs(variants: _Variants) -> Costs:
    costs = Costs(
        order=variants.order.kind,
        hold=variants.hold.kind,
        replay=variants.replay.kind,
        sold_out=variants.sold_out.kind,
        pay=variants.pay.kind if variants.pay else None,
    )
    if variants.sold_out_calm is not None:
        costs = costs.with_calm_refusals(variants.sold_out_calm.kind)
    if variants.order_calm is not None:
        latency_seconds = variants.order_calm.p50_ms.median / 1e3
        costs = costs.with_calm_orders(variants.order_calm.kind, latency_seconds)
    several = variants.workers_4 or variants.workers_2
    return costs if several is None else costs.with_several_processes(several.kind)
