"""Rate limits: so many orders a second for a buyer, and for a client address; then wait.

Both are asked for in one step, with all others who ask in the same moment: one script call for a
batch, on the server's clock, whatever process they came to. Who has to wait is remembered here
until then, so that a client who does not listen costs no more than a dictionary.

It fails open. A limit guards the service and not the stock: where Redis does not answer, everybody
passes, and the gate's breaker sees to it that few wait for that.
"""

from collections import OrderedDict
from collections.abc import Sequence
from math import ceil
from time import monotonic
from typing import NamedTuple, Self

from onsale.domain.errors import GateUnavailable, Overloaded
from onsale.gate.gate import Gate
from onsale.gate.keys import limit_key
from onsale.observability import metrics
from onsale.sales.group_commit import GroupCommit, MakeStage, Pending
from onsale.settings import Settings

_BATCH_SIZE_MAX = 512
# Of those who have to wait; who is forgotten is asked for again.
_WAITING_MAX = 50_000


class Lane(NamedTuple):
    """One kind of limit: `burst` requests at once, and one more every `interval_seconds`."""

    name: str
    interval_seconds: float
    burst: int

    @classmethod
    def of(cls, name: str, per_second: float, burst: int) -> Self:
        """By its rate."""
        return cls(name, 1 / per_second, burst)

    @property
    def window_seconds(self) -> int:
        """In which an empty bucket gets full."""
        return ceil(self.interval_seconds * self.burst)


class Standing(NamedTuple):
    """How a request stands in its lanes: seconds to wait, 0 if it passed, and for each lane how
    many more would pass now and in how many seconds all would.
    """

    wait_seconds: float
    lanes: tuple[tuple[int, int], ...]


Job = tuple[str, ...]


class Throttle:
    """See the module. `Throttle.of(...)` is `None` when no limit is set."""

    def __init__(
        self,
        lanes: tuple[Lane, ...],
        gate: Gate,
        queue_max: int,
        make_stage: MakeStage = GroupCommit,
    ) -> None:
        self.lanes = lanes
        self._gate = gate
        self._waiting: OrderedDict[str, float] = OrderedDict()
        self._args = [
            len(lanes),
            *(part for lane in lanes for part in (int(lane.interval_seconds * 1e6), lane.burst)),
        ]
        self._stage: GroupCommit[Job, Standing | None] = make_stage(
            self._ask,
            stage="throttle",
            batch_size_max=_BATCH_SIZE_MAX,
            in_flight_max=2,
            queue_size_max=queue_max,
        )

    @classmethod
    def of(
        cls, gate: Gate, settings: Settings, make_stage: MakeStage = GroupCommit
    ) -> "Throttle | None":
        """By the settings."""
        lanes = []
        if settings.rate_limit_buyer_per_second:
            rate, burst = settings.rate_limit_buyer_per_second, settings.rate_limit_buyer_burst
            lanes.append(Lane.of("buyer", rate, burst))
        if settings.rate_limit_address_per_second:
            rate, burst = settings.rate_limit_address_per_second, settings.rate_limit_address_burst
            lanes.append(Lane.of("address", rate, burst))
        if not lanes:
            return None
        return cls(tuple(lanes), gate, settings.batch_queue_size_max, make_stage)

    async def standing(self, buyer_id: str, address: str) -> Standing | None:
        """Ask for one request; `None` when nobody could say, and it passes."""
        named = {"buyer": buyer_id, "address": address}
        job = tuple(limit_key(lane.name, named[lane.name]) for lane in self.lanes)
        waiting = self._remembered(job)
        if waiting is not None:
            return waiting
        try:
            return await self._stage.submit(job)
        except (GateUnavailable, Overloaded):
            metrics.rate_limits_skipped_total.inc()
            return None

    def _remembered(self, job: Job) -> Standing | None:
        for key in job:
            until = self._waiting.get(key, 0.0)
            if until > monotonic():
                seconds = until - monotonic()
                return Standing(seconds, tuple((0, ceil(seconds)) for _ in self.lanes))
        return None

    async def _ask(self, batch: list[Pending[Job, Standing | None]]) -> None:
        keys = [key for pending in batch for key in pending.job]
        reply = await self._gate.throttle(keys, self._args)
        width = 1 + len(self.lanes)
        for number, pending in enumerate(batch):
            wait_us, *full_us = reply[number * width : (number + 1) * width]
            standing = self._standing(wait_us, full_us)
            if wait_us:
                self._remember(pending.job, full_us)
            pending.answer(standing)

    def _standing(self, wait_us: int, full_us: list[int]) -> Standing:
        lanes = tuple(
            (max(0, int(lane.burst - us / 1e6 / lane.interval_seconds)), ceil(us / 1e6))
            for lane, us in zip(self.lanes, full_us, strict=True)
        )
        return Standing(wait_us / 1e6, lanes)

    def _remember(self, job: Job, full_us: Sequence[int]) -> None:
        """Those of its buckets that were empty, each until it has room again: an address has it
        long before the buyer who was told to wait, and others are behind it.
        """
        for key, lane, us in zip(job, self.lanes, full_us, strict=True):
            empty_seconds = us / 1e6 - lane.interval_seconds * (lane.burst - 1)
            if empty_seconds > 0:
                self._waiting[key] = monotonic() + empty_seconds
                self._waiting.move_to_end(key)
        while len(self._waiting) > _WAITING_MAX:
            self._waiting.popitem(last=False)
