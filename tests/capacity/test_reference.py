"""Costs are read from what the benchmark really prints, and from nothing else."""

import json
from pathlib import Path
from typing import Any

import pytest

from onsale.bench.result import BenchResult, Turn
from onsale.capacity.costs import Cpu
from onsale.capacity.errors import CapacityError
from onsale.capacity.reference import read_reference, reference_of


def turn(rate: float, cpu: Cpu, batch: float | None = None, p50_ms: float = 20) -> Turn:
    return Turn(
        requests=1_000,
        requests_per_second=rate,
        p50_ms=p50_ms,
        p99_ms=30,
        api_cpu_us=cpu.api,
        redis_cpu_us=cpu.redis,
        postgres_cpu_us=cpu.postgres,
        gate_batch_mean=batch,
        ledger_batch_mean=batch,
        new_orders=1_000 if batch else 0,
        redis_bytes=100_000,
        postgres_bytes=400_000,
    )


TURNS = {
    "order": turn(5_000, Cpu(100, 10, 30), 50),
    "hold": turn(5_000, Cpu(120, 10, 40), 50),
    "replay": turn(6_000, Cpu(80, 5, 20), 50),
    "sold_out": turn(10_000, Cpu(50, 1, 0)),
}
MORE_TURNS = {
    "pay": turn(200, Cpu(1_000, 0, 1_000)),
    "order_calm": turn(500, Cpu(1_080, 206, 520), 1, p50_ms=4),
    "sold_out_calm": turn(500, Cpu(150, 20, 4)),
    "workers_1": turn(5_000, Cpu(100, 10, 30), 50),
    "workers_2": turn(6_000, Cpu(270, 10, 30), 10),
}


def printed(turns: dict[str, Turn], faults: list[str] | None = None) -> Any:
    """What `onsale bench --json` prints, which is how the two rooms keep to one shape."""
    result = BenchResult(
        seconds=1,
        connections=128,
        cpus=2,
        load_average=0.5,
        turns={name: [turn] for name, turn in turns.items()},
        footprints=[],
        faults=faults or [],
    )
    return json.loads(json.dumps(result.as_json()))


def test_the_usual_variants_are_enough() -> None:
    reference = reference_of(printed(TURNS), "a run")
    costs = reference.costs
    assert (reference.cpus, reference.load_average, reference.name) == (2, 0.5, "a run")
    assert (costs.order.cpu, costs.order.batch_size) == (Cpu(100, 10, 30), 50)
    assert (costs.order.redis_bytes, costs.order.postgres_bytes) == (100, 400)
    assert (costs.sold_out.cpu, costs.sold_out.batch_size) == (Cpu(50, 1, 0), 1)
    assert (costs.pay, costs.order_seconds, costs.calm_refusal) == (None, None, None)
    assert (costs.per_batch, costs.crowding) == (Cpu(), 1)


def test_what_else_was_measured_is_used() -> None:
    costs = reference_of(printed(TURNS | MORE_TURNS), "a run").costs
    assert costs.pay is not None
    assert costs.pay.requests_per_second == 200
    assert costs.order_seconds == pytest.approx(0.004)
    assert costs.per_batch.api == pytest.approx(1_000)
    assert costs.calm_refusal is not None
    assert costs.calm_refusal.cpu.api == 150
    assert costs.crowding == pytest.approx(270 / (80 + 1_000 / 10))


def test_the_committed_reference_has_everything() -> None:
    reference = read_reference()
    costs = reference.costs
    assert costs.pay is not None
    assert costs.order_seconds is not None
    assert costs.calm_refusal is not None
    assert reference.name == "loadtest/bench/reference.json"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (None, "No such file"),
        ("no json", "is not JSON"),
        ("\xff\xfe", "is not JSON"),
        ("[]", "is no result"),
        ("{}", "is no result of `onsale bench --json`: cpus"),
        (json.dumps(printed({})), "variants.order: Field required"),
        (json.dumps(printed(TURNS | {"order": TURNS["sold_out"]})), "variants.order.gate_batch"),
        (json.dumps(printed(TURNS | {"pay": turn(0, Cpu(1))})), "pay.requests_per_second"),
        (json.dumps(printed(TURNS, faults=["a wrong answer"])), "were wrong"),
    ],
)
def test_anything_else_is_one_line(tmp_path: Path, text: str | None, complaint: str) -> None:
    path = tmp_path / "bench.json"
    if text is not None:
        path.write_text(text, encoding="latin-1")
    with pytest.raises(CapacityError) as raised:
        read_reference(path)
    assert complaint in str(raised.value)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)
