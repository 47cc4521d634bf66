"""A campaign: open the sales, let the crowd in, break things in turn, wait for quiet, judge."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Any

from onsale.chaos import evidence
from onsale.chaos.client import Client
from onsale.chaos.crowd import Crowd
from onsale.chaos.evidence import Evidence
from onsale.chaos.faults import FAULTS, NotInjected
from onsale.chaos.history import History
from onsale.chaos.incidents import SETTLED_AFTER_SECONDS, Course, Incident
from onsale.chaos.report import Report, report
from onsale.chaos.rules import judge
from onsale.chaos.sales import Sales, open_sales
from onsale.chaos.stage import Stage
from onsale.chaos.watcher import Watcher
from onsale.domain.errors import OnsaleError
from onsale.domain.order import OrderStatus
from onsale.observability.runtime import stop

# Longer than any patience of the service, so that it is the service that gives up.
_CLIENT_TIMEOUT_SECONDS = 4.0
_FIRST_CALM_SECONDS = 4.0
_CALM_SECONDS = (0.5, 2.0)
# So that there is calm to be judged as well: what has to hold then is held to less time.
_LONG_CALM_EVERY_FAULTS = 9
_LONG_CALM_SECONDS = SETTLED_AFTER_SECONDS + 6.0
_SERVING_SECONDS_MAX = 15.0
_QUIET_SECONDS_MAX = 40.0
_POLL_SECONDS = 0.1


class Campaign:
    """One campaign on a stage; `tell` is called with a line for every step."""

    def __init__(
        self,
        stage: Stage,
        faults: Sequence[str],
        *,
        seed: int,
        seconds: float,
        tell: Callable[[str], None],
    ) -> None:
        self._stage = stage
        self._faults = faults
        self._seed = seed
        self._seconds = seconds
        self._tell = tell
        self._dice = Random(f"{seed} course")
        self.history = History()
        self._course = Course()

    async def run(self) -> Report:
        """Run it to its end. Raises what keeps it from being run, never what it finds."""
        stage = self._stage
        impossible = {
            name: reason
            for name in self._faults
            if (reason := FAULTS[name]().impossible(stage)) is not None
        }
        for name, reason in impossible.items():
            self._tell(f"{name}: not possible here: {reason}")
        possible = [name for name in self._faults if name not in impossible]
        address = next(iter(stage.addresses.values()))
        sales = await open_sales(address, stage.auth_secret)
        async with Client(
            stage.addresses, stage.auth_secret, self.history, _CLIENT_TIMEOUT_SECONDS
        ) as client:
            watcher = Watcher(stage.service, stage.redis, (sales.card, sales.free))
            async with _meanwhile(watcher.run()):
                crowd = Crowd(stage, client, sales, str(self._seed))
                async with _meanwhile(crowd.run()):
                    await self._break_things(possible)
                await self._wait_for_quiet(sales)
        found = await self._evidence(sales, watcher)
        return report(self._seed, found, judge(found), self._faults, impossible)

    # -- the course

    async def _break_things(self, names: Sequence[str]) -> None:
        deadline = time.monotonic() + self._seconds
        await asyncio.sleep(_FIRST_CALM_SECONDS)
        for number, name in enumerate(self._order(names), start=1):
            if time.monotonic() > deadline:
                break
            await self._break(name)
            long_calm = number % _LONG_CALM_EVERY_FAULTS == 0
            calm = _LONG_CALM_SECONDS if long_calm else self._dice.uniform(*_CALM_SECONDS)
            await asyncio.sleep(calm)
        # The sale goes on until it is seen whether it does.
        await asyncio.sleep(SETTLED_AFTER_SECONDS)

    def _order(self, names: Sequence[str]) -> Iterator[str]:
        """Every fault once before any comes twice."""
        while names:
            yield from self._dice.sample(names, len(names))

    async def _break(self, name: str) -> None:
        stage, fault = self._stage, FAULTS[name]()
        incident = Incident(
            name,
            time.time(),
            mended_at_seconds=float("inf"),
            gate_alone=fault.gate_alone,
            ledger_crashed=fault.ledger_crashes,
        )
        self._course.incidents.append(incident)
        try:
            await fault.inject(stage, self._dice)
            await fault.last(stage, self._dice)
        except NotInjected as reason:
            incident.injected = False
            self._tell(f"{name}: {reason}")
        finally:
            await fault.mend(stage)
            # What was killed is mended when it runs again; how long a start takes is for others.
            incident.mended_at_seconds = time.time()
        serving = await self._serves_again(incident)
        orders = self.history.orders_between(
            incident.injected_at_seconds, incident.mended_at_seconds
        )
        seconds = incident.mended_at_seconds - incident.injected_at_seconds
        self._tell(f"{name}: {seconds:.1f} s, {orders} orders, {serving}")

    async def _serves_again(self, incident: Incident) -> str:
        """Wait until every API process takes orders, for a while."""
        deadline = time.time() + _SERVING_SECONDS_MAX
        waiting = set(self._stage.apis)
        while waiting and time.time() < deadline:
            await asyncio.sleep(_POLL_SECONDS)
            since = incident.mended_at_seconds
            waiting -= {op.api for op in self.history.taken_since(since)}
        took = time.time() - incident.mended_at_seconds
        return f"serves after {took:.1f} s" if not waiting else f"{waiting} does not serve"

    # -- the end

    async def _wait_for_quiet(self, sales: Sales) -> None:
        self._tell("waiting for quiet")
        deadline = time.monotonic() + _QUIET_SECONDS_MAX
        while time.monotonic() < deadline:
            try:
                if await self._is_quiet(sales):
                    return
            except OnsaleError:
                pass
            await asyncio.sleep(_POLL_SECONDS)
        self._tell(f"it is not quiet after {_QUIET_SECONDS_MAX:.0f} s")

    async def _is_quiet(self, sales: Sales) -> bool:
        """Whether nothing is on its way: no hold, no payment, no difference."""
        service = self._stage.service
        rows = await evidence.rows_of(service)
        return (
            not any(row.status is OrderStatus.HELD for row in rows)
            and not await service.ledger.count_payments_due(0)
            and all(a.balanced for a in await evidence.audits_of(service, sales.all))
        )

    async def _evidence(self, sales: Sales, watcher: Watcher) -> Evidence:
        service = self._stage.service
        return Evidence(
            sales=sales.all,
            probe=sales.probe,
            apis=tuple(self._stage.apis),
            history=self.history,
            course=self._course,
            looks=watcher.looks,
            audits=await evidence.audits_of(service, sales.all),
            rows=await evidence.rows_of(service),
            payments=await evidence.payments_of(service),
            provider=evidence.provider_lines(self._stage.provider_books),
        )


@asynccontextmanager
async def _meanwhile(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Something that goes on beside the block; if it fails, so does the block."""
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(work)
        try:
            yield
        finally:
            await stop(task)
