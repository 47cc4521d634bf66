"""One load test from event to books: what `onsale demo` and `onsale loadtest` have in common."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onsale.demo.client import ServiceClient
from onsale.loadtests import LoadResult, Progress, Scenario, run_k6

# Holds of a load test outlive it; only what is still on its way to the ledger has to arrive.
_QUIET_SECONDS_MAX = 20.0
_QUIET_POLL_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Verdict:
    """A load test and the books after it."""

    capacity: int
    # What has to be sold in the end, where the scenario leaves no choice.
    due: int | None
    load: LoadResult
    audit: dict[str, Any]

    @property
    def sold(self) -> int:
        return self._sum("sold")

    @property
    def held(self) -> int:
        return self._sum("held")

    @property
    def available(self) -> int:
        return self._sum("available")

    @property
    def oversold(self) -> int:
        return int(self.audit["oversold"])

    @property
    def faults(self) -> list[str]:
        """What went wrong, a line each; empty when all is well."""
        found = [
            f"{difference['kind']} {difference['subject']}: {difference['detail']}"
            for difference in self.audit["differences"]
        ]
        if not _is_quiet(self.audit):
            found.append("gate and ledger do not have the same seats left")
        if self.due is not None and self.sold != self.due:
            found.append(f"{self.sold} tickets sold where {self.due} were wanted and there")
        if self.oversold:
            found.append(f"{self.oversold} tickets sold that do not exist")
        found += [
            f"threshold failed: {rule}" for rule, held in self.load.thresholds.items() if not held
        ]
        return found

    @property
    def well(self) -> bool:
        return not self.faults and self.audit["balanced"] and self.load.thresholds_passed

    def _sum(self, part: str) -> int:
        return sum(tier[part] for tier in self.audit["tiers"])

    def as_json(self) -> dict[str, Any]:
        """The object that `--json` prints."""
        return {
            "capacity": self.capacity,
            "sold": self.sold,
            "held": self.held,
            "available": self.available,
            "oversold": self.oversold,
            "duplicates": self.load.duplicates,
            "requests": self.load.requests,
            "outcomes": self.load.outcomes,
            "latency_ms": self.load.latency_ms,
            "arrival_rate": round(self.load.arrival_rate, 1),
            "answer_rate": round(self.load.answer_rate, 1),
            "dropped_iterations": self.load.dropped_iterations,
            "testid": self.load.run.testid,
            "generator": {
                "cpus": self.load.run.generator.cpus,
                "cpu_seconds": round(self.load.run.generator.cpu_seconds, 2),
                "wait_seconds": round(self.load.run.generator.wait_seconds, 2),
                "peak_cpus": round(self.load.run.generator.peak_cpus, 2),
                "strain": self.load.run.generator.strain,
                "limit": self.load.generator_limit,
            },
            "audit": {
                "balanced": self.audit["balanced"],
                "gate": self.audit["gate"],
                "ledger": self.audit["ledger"],
                "differences": self.audit["differences"],
            },
            "thresholds": self.load.thresholds,
            "thresholds_passed": self.load.thresholds_passed,
            "report": str(self.load.report) if self.load.report else None,
        }


def run_sale(
    scenario: Scenario,
    client: ServiceClient,
    *,
    base_url: str,
    auth_secret: str,
    stock: int,
    buyers: int,
    seconds: int,
    report_dir: Path,
    env: Mapping[str, str],
    on_progress: Callable[[Progress], None],
    prometheus_url: str | None = None,
) -> Verdict:
    """Open an event of `stock` tickets, send the scenario at it, audit the books.

    The Prometheus at `prometheus_url` is told what k6 measures.

    Raises `ServiceError`, `LoadTestError`.
    """
    event = client.create_event(
        f"Load test: {scenario.name}",
        [{"id": "ga", "name": "General admission", "price": 4_900, "capacity": stock}],
        payment=scenario.payment,
    )
    load = run_k6(
        scenario,
        base_url=base_url,
        event_id=event["id"],
        tier_ids=["ga"],
        auth_secret=auth_secret,
        stock=stock,
        buyers=buyers,
        seconds=seconds,
        report_dir=report_dir,
        prometheus_url=prometheus_url,
        env=env,
        on_progress=on_progress,
    )
    due = min(stock, buyers) if scenario.sells_all else None
    return Verdict(stock, due, load, _audit_at_quiet(client, event["id"]))


def _audit_at_quiet(client: ServiceClient, event_id: str) -> dict[str, Any]:
    """The books once nothing is on its way any more, or as they are after a while."""
    deadline = time.monotonic() + _QUIET_SECONDS_MAX
    while True:
        found = client.audit(event_id)
        if (found["balanced"] and _is_quiet(found)) or time.monotonic() > deadline:
            return found
        time.sleep(_QUIET_POLL_SECONDS)


def _is_quiet(audit: dict[str, Any]) -> bool:
    """Whether both stores say the same of every tier: no order is between the two."""
    left_at_gate = {tier["id"]: tier["available"] for tier in audit["gate"]["tiers"]}
    return all(left_at_gate.get(tier["id"]) == tier["available"] for tier in audit["tiers"])
