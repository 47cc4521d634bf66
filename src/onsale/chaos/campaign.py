"""A campaign: let the crowd in, break things in turn, wait for quiet, judge."""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from random import Random

from onsale.chaos.crowd import Crowd
from onsale.chaos.faults import Fault, NotInjected
from onsale.chaos.history import History
from onsale.chaos.incidents import SETTLED_AFTER_SECONDS, Incident
from onsale.chaos.observation import Observation, meanwhile, observing
from onsale.chaos.report import Report, report
from onsale.chaos.rules import judge
from onsale.chaos.stage import Stage

_FIRST_CALM_SECONDS = 4.0
_CALM_SECONDS = (0.5, 2.0)
# So that there is calm to be judged as well: what has to hold then is held to less time.
_LONG_CALM_EVERY_FAULTS = 12
_LONG_CALM_SECONDS = SETTLED_AFTER_SECONDS + 6.0
_SERVING_SECONDS_MAX = 15.0
# How often a fault is tried once more in the end that was never met.
_LATE_TRIES = 3
_QUIET_SECONDS_MAX = 40.0
_POLL_SECONDS = 0.1


@dataclass(slots=True)
class Campaign:
    """One campaign on a stage: every fault once, and on in turns until `seconds` are over.

    `tell` is called with a line for every step.
    """

    stage: Stage
    faults: Mapping[str, Callable[[], Fault]]
    seed: int
    seconds: float
    tell: Callable[[str], None]
    history: History = field(default_factory=History)

    async def run(self) -> Report:
        """Run it to its end. Raises what keeps it from being run, never what it finds."""
        impossible = {
            name: reason
            for name, fault in self.faults.items()
            if (reason := fault().impossible(self.stage)) is not None
        }
        for name, reason in impossible.items():
            self.tell(f"{name}: not possible here: {reason}")
        possible = [name for name in self.faults if name not in impossible]
        async with observing(self.stage, self.history) as seen:
            crowd = Crowd(self.stage, seen.client, seen.sales, str(self.seed))
            async with meanwhile(crowd.run()):
                await self._break_things(seen, possible)
            self.tell("waiting for quiet")
            if not await seen.is_quiet_within(_QUIET_SECONDS_MAX):
                self.tell(f"it is not quiet after {_QUIET_SECONDS_MAX:.0f} s")
            evidence = await seen.evidence()
        return report(self.seed, evidence, judge(evidence), tuple(self.faults), impossible)

    async def _break_things(self, seen: Observation, names: list[str]) -> None:
        deadline = time.monotonic() + self.seconds
        dice = Random(f"{self.seed} course")
        await asyncio.sleep(_FIRST_CALM_SECONDS)
        for number, name in enumerate(_order(dice, names), start=1):
            if number > len(names) and time.monotonic() > deadline:
                break
            await self._break(seen, name, dice)
            long_calm = number % _LONG_CALM_EVERY_FAULTS == 0
            await asyncio.sleep(_LONG_CALM_SECONDS if long_calm else dice.uniform(*_CALM_SECONDS))
        # Where it breaks is chance for some: nobody refunded anything just then.
        for _ in range(_LATE_TRIES):
            for name in [name for name in names if name not in seen.course.injected]:
                await self._break(seen, name, dice)
        # The sale goes on until it is seen whether it does.
        await asyncio.sleep(SETTLED_AFTER_SECONDS)

    async def _break(self, seen: Observation, name: str, dice: Random) -> None:
        fault = self.faults[name]()
        incident = Incident(
            name,
            time.time(),
            mended_at_seconds=float("inf"),
            gate_alone=fault.gate_alone,
            ledger_crashed=fault.ledger_crashes,
        )
        seen.course.incidents.append(incident)
        try:
            await fault.inject(self.stage, dice)
            await fault.last(self.stage, dice)
        except NotInjected as reason:
            incident.injected = False
            self.tell(f"{name}: {reason}")
        finally:
            await fault.mend(self.stage)
            # What was killed is mended when it runs again; how long a start takes is for others.
            incident.mended_at_seconds = time.time()
        serving = await self._serves_again(incident)
        since, until = incident.injected_at_seconds, incident.mended_at_seconds
        orders = self.history.orders_between(since, until)
        self.tell(f"{name}: {until - since:.1f} s, {orders} orders, {serving}")

    async def _serves_again(self, incident: Incident) -> str:
        """Wait until every API process takes orders, for a while."""
        since = incident.mended_at_seconds
        waiting = set(self.stage.apis)
        while waiting and time.time() < since + _SERVING_SECONDS_MAX:
            await asyncio.sleep(_POLL_SECONDS)
            waiting -= {op.api for op in self.history.taken_since(since)}
        if waiting:
            return f"{', '.join(sorted(waiting))} does not serve"
        return f"serves after {time.time() - since:.1f} s"


def _order(dice: Random, names: list[str]) -> Iterator[str]:
    """Every fault once before any comes twice."""
    while names:
        yield from dice.sample(names, len(names))
