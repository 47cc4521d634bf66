"""k6's own summary, as `loadtest/lib/summary.js` writes it, turned into a `LoadResult`."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onsale.loadtests.errors import LoadTestError
from onsale.loadtests.generator import GeneratorUse

# The requests that `latency_ms` is about: those that place an order.
PURCHASE_LATENCY = "http_req_duration{name:POST /v1/events/{event_id}/orders}"
OUTCOME_PREFIX = "outcome_"
THRESHOLDS_FAILED_EXIT_CODE = 99

Metrics = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Run:
    """When a run was, in Unix time, under which `testid`; who were to come, what k6 itself used."""

    testid: str
    buyers: int
    began_at: float
    ended_at: float
    generator: GeneratorUse


@dataclass(frozen=True)
class LoadResult:
    """What one run found.

    `iterations` are buyers who came and left; `dropped_iterations` are arrivals that k6 had no
    VU for. `outcomes` counts the answers to requests about orders, `duplicates` the buyers'
    simultaneous presses under one key. Both rates are means over the run, per second: buyers
    arriving, requests answered. `latency_ms` has `p50`, `p95` and `p99` of the purchase requests.
    `thresholds` says of each rule ("metric: rule") whether it held. `report` is k6's HTML page;
    runs of about two seconds or less leave none.
    """

    requests: int
    iterations: int
    dropped_iterations: int
    duration_seconds: float
    outcomes: dict[str, int]
    duplicates: int
    arrival_rate: float
    answer_rate: float
    latency_ms: dict[str, float]
    thresholds: dict[str, bool]
    thresholds_passed: bool
    report: Path | None
    summary: Path
    k6_cpu_seconds: float
    k6_exit_code: int
    run: Run

    @property
    def generator_limit(self) -> str | None:
        """Why the generator was the limit and not the service, or `None` where it was not.

        Not everybody who was to come did, and k6 had not the CPU for it. Where it had, its virtual
        users all waited for the service.
        """
        return self.run.generator.limit if self.iterations < self.run.buyers else None


def read_result(
    summary: Path, *, report: Path, k6_exit_code: int, k6_cpu_seconds: float, run: Run
) -> LoadResult:
    """Read the summary of a run that came to its end.

    Raises `LoadTestError` when the file is missing or is not one of ours.
    """
    try:
        data = json.loads(summary.read_bytes())
        metrics: Metrics = data["metrics"]
        duration_seconds = data["state"]["testRunDurationMs"] / 1000
        latency = metrics[PURCHASE_LATENCY]["values"]
        latency_ms = {f"p{rank}": float(latency[f"p({rank})"]) for rank in (50, 95, 99)}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LoadTestError(f"k6 left no usable summary at {summary}: {error!r}") from None
    outcomes = _outcomes(metrics)
    thresholds = _thresholds(metrics)
    requests = _count(metrics, "http_reqs")
    buyers = _count(metrics, "buyers")
    dropped = _count(metrics, "dropped_iterations")
    return LoadResult(
        requests=requests,
        iterations=buyers,
        dropped_iterations=dropped,
        duration_seconds=duration_seconds,
        outcomes=outcomes,
        duplicates=_count(metrics, "duplicate_presses"),
        arrival_rate=(buyers + dropped) / duration_seconds,
        answer_rate=(requests - outcomes.get("no_answer", 0)) / duration_seconds,
        latency_ms=latency_ms,
        thresholds=thresholds,
        thresholds_passed=k6_exit_code == 0 and all(thresholds.values()),
        report=report if report.exists() else None,
        summary=summary,
        k6_cpu_seconds=k6_cpu_seconds,
        k6_exit_code=k6_exit_code,
        run=run,
    )


def _count(metrics: Metrics, name: str) -> int:
    """A counter's value; k6 leaves out those that nothing was added to."""
    return int(metrics[name]["values"]["count"]) if name in metrics else 0


def _outcomes(metrics: Metrics) -> dict[str, int]:
    counted = {
        name.removeprefix(OUTCOME_PREFIX): _count(metrics, name)
        for name in sorted(metrics)
        if name.startswith(OUTCOME_PREFIX)
    }
    return {outcome: count for outcome, count in counted.items() if count}


def _thresholds(metrics: Metrics) -> dict[str, bool]:
    return {
        f"{name}: {rule}": bool(verdict["ok"])
        for name, metric in sorted(metrics.items())
        for rule, verdict in metric.get("thresholds", {}).items()
    }
