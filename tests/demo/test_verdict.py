"""What a load test comes to: one ticket too many or too few fails it, whatever k6 thought."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from onsale.demo.sale import Verdict
from onsale.loadtests import GeneratorUse, LoadResult, Run

LOAD = LoadResult(
    requests=110,
    iterations=100,
    dropped_iterations=0,
    duration_seconds=1.0,
    outcomes={"confirmed": 10, "sold_out": 100},
    duplicates=10,
    arrival_rate=100.0,
    answer_rate=110.0,
    latency_ms={"p50": 1.0, "p95": 2.0, "p99": 3.0},
    thresholds={"checks: rate==1": True},
    thresholds_passed=True,
    report=Path("report.html"),
    summary=Path("summary.json"),
    k6_cpu_seconds=0.1,
    k6_exit_code=0,
    run=Run("r", 100, 0.0, 1.0, GeneratorUse(2, 0.1, 0.0, 0.2, 0.5)),
)


def books(sold: int, *, left_at_gate: int, difference: str | None = None) -> dict[str, Any]:
    """An audit of one tier of ten."""
    found = [{"kind": difference, "subject": "ga", "detail": "planted"}] if difference else []
    left = 10 - sold
    tier = {"id": "ga", "capacity": 10, "available": left, "held": 0, "sold": sold}
    return {
        "balanced": not found,
        "oversold": max(0, sold - 10),
        "tiers": [tier],
        "gate": {"tiers": [{"id": "ga", "available": left_at_gate}]},
        "ledger": {},
        "differences": found,
    }


WELL = Verdict(10, 10, LOAD, books(10, left_at_gate=0))


def test_all_is_well() -> None:
    assert (WELL.well, WELL.faults) == (True, [])


@pytest.mark.parametrize(
    ("verdict", "fault"),
    [
        (replace(WELL, audit=books(9, left_at_gate=1)), "9 tickets sold where 10"),
        (replace(WELL, audit=books(11, left_at_gate=-1)), "1 tickets sold that do not exist"),
        (replace(WELL, audit=books(10, left_at_gate=1)), "do not have the same seats left"),
        (replace(WELL, audit=books(10, left_at_gate=0, difference="gate_only")), "gate_only ga"),
        (
            replace(
                WELL,
                load=replace(LOAD, thresholds={"checks: rate==1": False}, thresholds_passed=False),
            ),
            "threshold failed: checks: rate==1",
        ),
    ],
)
def test_a_fault_is_named_and_fails_the_run(verdict: Verdict, fault: str) -> None:
    assert not verdict.well
    assert any(fault in found for found in verdict.faults)


def test_the_json_has_what_others_read() -> None:
    found = WELL.as_json()
    assert {
        *("capacity", "sold", "held", "available", "oversold", "duplicates", "requests"),
        *("outcomes", "latency_ms", "audit", "thresholds_passed", "report"),
    } <= set(found)
    assert set(found["latency_ms"]) == {"p50", "p95", "p99"}
    assert {"balanced", "gate", "ledger"} <= set(found["audit"])
