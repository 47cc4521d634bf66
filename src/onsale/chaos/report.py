"""What came of a campaign: fault by fault, rule by rule."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from onsale.chaos.evidence import Evidence
from onsale.chaos.incidents import Incident
from onsale.chaos.rules.service import Serving
from onsale.chaos.rules.verdicts import Verdict, Violation
from onsale.sales.invariants import RULES, Rule

_VIOLATIONS_SHOWN_MAX = 20


@dataclass(frozen=True, slots=True)
class FaultLine:
    """One kind of fault. `serves_after_seconds` is the slowest, `None` if once not at all;
    `not_done` says why it was never injected; `broken` are rules broken at the time.
    """

    fault: str
    times: int
    orders: int
    serves_after_seconds: float | None
    longest_stop_seconds: float
    broken: tuple[Rule, ...]
    not_done: str | None


@dataclass(frozen=True, slots=True)
class Report:
    """See the module. `operations` are counted by outcome."""

    seed: int
    seconds: float
    operations: dict[str, int]
    orders: int
    faults: list[FaultLine]
    verdicts: list[Verdict]

    @property
    def well(self) -> bool:
        """Whether every rule was kept, and every fault injected that is possible here."""
        return all(verdict.kept for verdict in self.verdicts) and not any(
            line.times == 0 and line.not_done is None for line in self.faults
        )

    @property
    def broken(self) -> tuple[Rule, ...]:
        """The rules that were not kept."""
        return tuple(verdict.rule for verdict in self.verdicts if not verdict.kept)

    def as_json(self) -> dict[str, Any]:
        """The object that `--json` prints."""
        return {
            "seed": self.seed,
            "seconds": round(self.seconds, 1),
            "well": self.well,
            "operations": self.operations,
            "orders": self.orders,
            "faults": [asdict(line) for line in self.faults],
            "invariants": [
                {
                    "rule": verdict.rule,
                    "text": RULES[verdict.rule],
                    "kept": verdict.kept,
                    "looked_at": verdict.looked_at,
                    "violations": [
                        asdict(found) for found in verdict.violations[:_VIOLATIONS_SHOWN_MAX]
                    ],
                }
                for verdict in self.verdicts
            ],
        }


def report(
    seed: int,
    evidence: Evidence,
    verdicts: list[Verdict],
    names: Sequence[str],
    impossible: Mapping[str, str],
) -> Report:
    """Sum a campaign up."""
    operations = evidence.history.operations
    moments = [op.invoked_at_seconds for op in operations]
    violations = [violation for verdict in verdicts for violation in verdict.violations]
    serving = Serving.of(evidence)
    return Report(
        seed=seed,
        seconds=max(moments, default=0.0) - min(moments, default=0.0),
        operations=dict(Counter(str(op.outcome) for op in operations)),
        orders=len(evidence.rows),
        faults=[_line(name, evidence, serving, violations, impossible.get(name)) for name in names],
        verdicts=verdicts,
    )


def _line(
    name: str,
    evidence: Evidence,
    serving: Serving,
    violations: list[Violation],
    not_done: str | None,
) -> FaultLine:
    incidents = [i for i in evidence.course.incidents if i.fault == name and i.injected]
    serves_after = [serving.again_after_seconds(incident) for incident in incidents]
    known = [seconds for seconds in serves_after if seconds is not None]
    return FaultLine(
        fault=name,
        times=len(incidents),
        orders=sum(
            evidence.history.orders_between(i.injected_at_seconds, i.mended_at_seconds)
            for i in incidents
        ),
        serves_after_seconds=max(known) if known and len(known) == len(serves_after) else None,
        longest_stop_seconds=max(
            (serving.longest_stop_seconds(incident) for incident in incidents), default=0.0
        ),
        broken=tuple(sorted({v.rule for v in violations if _during(v, incidents)})),
        not_done=not_done,
    )


def _during(violation: Violation, incidents: list[Incident]) -> bool:
    moment = violation.at_seconds
    return moment is not None and any(
        incident.injected_at_seconds <= moment <= incident.settled_at_seconds
        for incident in incidents
    )
