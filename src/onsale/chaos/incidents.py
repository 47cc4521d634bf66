"""When which fault was there: what the rules need to know of the campaign's course."""

from dataclasses import dataclass, field

# After a fault the service has this long to be as it was.
SETTLED_AFTER_SECONDS = 10.0


@dataclass(slots=True)
class Incident:
    """One fault, mended from `mended_at_seconds` on; seconds since 1970.

    `injected` is false when the service never got to where it was to be broken. `gate_alone` says
    that nothing but the gate was away; `ledger_crashed` that Postgres lost whatever it had not made
    durable.
    """

    fault: str
    injected_at_seconds: float
    mended_at_seconds: float
    gate_alone: bool = False
    ledger_crashed: bool = False
    injected: bool = True

    @property
    def settled_at_seconds(self) -> float:
        return self.mended_at_seconds + SETTLED_AFTER_SECONDS


@dataclass(slots=True)
class Course:
    """Every incident of a campaign, in their order."""

    incidents: list[Incident] = field(default_factory=list)

    @property
    def injected(self) -> set[str]:
        """The faults that were injected at least once."""
        return {incident.fault for incident in self.incidents if incident.injected}

    def calm(self, from_seconds: float, to_seconds: float) -> bool:
        """Whether nothing was broken, nor had been shortly before, in all of that time."""
        return not any(
            incident.injected_at_seconds <= to_seconds
            and incident.settled_at_seconds >= from_seconds
            for incident in self.incidents
        )

    def last_fault_before(self, moment_seconds: float) -> float:
        """When the latest fault until then was mended, or the moment itself while one is there; 0
        when there was none.
        """
        begun = (i for i in self.incidents if i.injected_at_seconds <= moment_seconds)
        return max((min(i.mended_at_seconds, moment_seconds) for i in begun), default=0.0)

    def at(self, moment_seconds: float) -> list[Incident]:
        """The incidents that something at that moment may come from."""
        return [
            incident
            for incident in self.incidents
            if incident.injected_at_seconds <= moment_seconds <= incident.settled_at_seconds
        ]
