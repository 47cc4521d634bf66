"""I11 and L1: nothing is lost in a crash, and the sale goes on."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from onsale.chaos.evidence import Evidence
from onsale.chaos.history import Kind, Outcome
from onsale.chaos.incidents import SETTLED_AFTER_SECONDS, Incident
from onsale.chaos.rules.facts import Facts
from onsale.chaos.rules.verdicts import Breach, Verdict, verdict
from onsale.sales.invariants import Rule

_GATE_AWAY_SECONDS_MAX = 2.0


def i11(facts: Facts) -> Verdict:
    """What was acknowledged before a crash of Postgres is there after it."""
    crashes = [i for i in facts.evidence.course.incidents if i.ledger_crashed]
    gone = [
        op
        for operations in facts.acknowledged.values()
        for op in operations
        if facts.row_of(op) is None
    ]
    breaches = (
        Breach(f"{op.order_id} is gone since {crash.fault}", crash.injected_at_seconds)
        for crash in crashes
        for op in gone
        if (op.answered_at_seconds or 0.0) <= crash.mended_at_seconds
    )
    return verdict(Rule.I11, len(crashes), breaches)


def l1(facts: Facts) -> Verdict:
    """Orders are taken again soon, and hardly stop when the gate alone is away."""
    incidents, serving = facts.evidence.course.incidents, Serving.of(facts.evidence)

    def breaches() -> Iterator[Breach]:
        for incident in incidents:
            seconds = serving.again_after_seconds(incident)
            if seconds is None or seconds > SETTLED_AFTER_SECONDS:
                when = "not at all" if seconds is None else f"after {seconds:.1f} s"
                yield Breach(f"{incident.fault}: orders again {when}", incident.mended_at_seconds)
            stopped = serving.longest_stop_seconds(incident)
            if incident.gate_alone and stopped > _GATE_AWAY_SECONDS_MAX:
                yield Breach(
                    f"{incident.fault}: no order for {stopped:.1f} s", incident.injected_at_seconds
                )

    return verdict(Rule.L1, len(incidents), breaches())


@dataclass(frozen=True, slots=True)
class Serving:
    """When each API process took an order of the sale that cannot sell out: (asked, answered)."""

    _taken: Mapping[str, Sequence[tuple[float, float]]]

    @classmethod
    def of(cls, evidence: Evidence) -> "Serving":
        """By the history."""
        taken: dict[str, list[tuple[float, float]]] = {api: [] for api in evidence.apis}
        for op in evidence.history.of(Kind.PLACE):
            if op.name.event_id == evidence.probe.event_id and op.outcome is Outcome.OK:
                assert op.answered_at_seconds is not None
                taken[op.api].append((op.invoked_at_seconds, op.answered_at_seconds))
        return cls(taken)

    def again_after_seconds(self, incident: Incident) -> float | None:
        """From the mending until every process had taken an order that was asked for after it."""
        since = incident.mended_at_seconds
        firsts = [
            min((answered for asked, answered in taken if asked >= since), default=None)
            for taken in self._taken.values()
        ]
        seconds = [first - since for first in firsts if first is not None]
        return max(seconds) if seconds and len(seconds) == len(firsts) else None

    def longest_stop_seconds(self, incident: Incident) -> float:
        """The longest time without an order at one of the processes while the fault was there."""
        since, until = incident.injected_at_seconds, incident.mended_at_seconds
        return max(
            later - earlier
            for taken in self._taken.values()
            for earlier, later in pairwise(
                [since, *sorted(at for _, at in taken if since <= at <= until), until]
            )
        )
