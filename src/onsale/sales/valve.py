"""How many orders a process takes on at once; the others are told at once to come again.

Where orders wait depends on what is short, and so does how many may:

- The process itself. Then each turn of its event loop is long, and an order passes through half a
  dozen. So the turns are measured: while they are long and many orders are there, the limit
  shrinks, down to as many as keep the batches full; while they are short it grows again. More
  would only wait longer, for the process does no more than it can.
- A store. Then the loop idles, and orders wait for batches. What the stages carry within the
  deadline follows from how long their batches take now; more are not let in.

A burst upon a process at ease is let in whole, and makes its turns long for a while: so the limit
falls only when that lasts for longer than a burst does. Once it has fallen there is no such
patience until it is back where it was.

Latency alone could not tell these apart: a batch that has grown to be worth its round trip takes
longer than an idle one, as it should, and over a slow network it takes long with nobody waiting.
"""

import asyncio
from collections.abc import Callable
from time import perf_counter

from onsale.observability import metrics

_TICK_SECONDS = 0.01
# With nobody there, turns are measured for whoever comes next.
_IDLE_TICK_SECONDS = 0.1
# Half a dozen turns of 2 ms take longer than the stores do: the turns are the wait then.
_LAG_SECONDS_MAX = 0.002
# One look that is late by itself is the machine's doing; in the average it takes two.
_LAG_WEIGHT = 0.5
# Down in a tenth of a second, up again in a few: what is served meanwhile has not waited long.
_SHRINK, _GROW = 0.8, 1.02
# Thousands who press in one moment are served in less, and who pressed then has not gone yet.
_BURST_SECONDS = 1.0


class Valve:
    """Counts the orders in flight against a limit, which is between `busy_max` and `limit_max`.

    `carried` says how many orders the stages carry within their deadline as things are. It may
    lower the limit further, but never to none: who is let in finds out how things are then.
    """

    __slots__ = (
        "_arriving",
        "_busy_max",
        "_carried",
        "_lag_seconds",
        "_limit_max",
        "_patience_seconds",
        "in_flight",
        "limit",
    )

    def __init__(self, limit_max: int, busy_max: int, carried: Callable[[], float]) -> None:
        self._limit_max = limit_max
        self._busy_max = min(busy_max, limit_max)
        self._carried = carried
        self._lag_seconds = 0.0
        self._patience_seconds = _BURST_SECONDS
        self.limit = limit_max
        self.in_flight = 0
        self._arriving = 0

    @property
    def full(self) -> bool:
        """Whether an order that arrives now is to be refused."""
        return self.in_flight + self._arriving >= self.limit

    @property
    def scarce(self) -> bool:
        """Whether there are fewer places than a process at ease has."""
        return self.limit < self._limit_max

    def expect(self) -> None:
        """Keep a place for an order that was let in and whose task has not begun: one turn of the
        event loop reads hundreds, and those there is no room for should find out before they have
        a task, too.
        """
        if not self._arriving:
            # Before the first of the tasks, which then count for themselves.
            asyncio.get_running_loop().call_soon(self._all_arrived)
        self._arriving += 1

    def _all_arrived(self) -> None:
        self._arriving = 0

    def __enter__(self) -> None:
        """An order is in flight while the block lasts; whether there is room is asked before."""
        self.in_flight += 1

    def __exit__(self, *_: object) -> None:
        self.in_flight -= 1

    async def watch(self) -> None:
        """Measure the turns of the event loop for ever, and set the limit by them."""
        while True:
            tick_seconds = _TICK_SECONDS if self.in_flight else _IDLE_TICK_SECONDS
            asleep_since = perf_counter()
            await asyncio.sleep(tick_seconds)
            self.see_lag(perf_counter() - asleep_since - tick_seconds, tick_seconds)

    def see_lag(self, seconds: float, tick_seconds: float = _TICK_SECONDS) -> None:
        """How much later than asked the loop woke a sleeper just now."""
        self._lag_seconds += _LAG_WEIGHT * (seconds - self._lag_seconds)
        wanted: float = max(self.limit, self._busy_max)
        if self._lag_seconds <= _LAG_SECONDS_MAX:
            wanted = min(wanted * _GROW ** (tick_seconds / _TICK_SECONDS) + 1, self._limit_max)
            if wanted == self._limit_max:
                # A crowd's long turns have short ones between them: patience is back as slowly as
                # it went.
                more_seconds = tick_seconds if self.in_flight >= self._busy_max else _BURST_SECONDS
                self._patience_seconds = min(self._patience_seconds + more_seconds, _BURST_SECONDS)
        elif self.in_flight >= self._busy_max:
            # Turns are long with few orders, too, while a crowd connects: that is not their doing.
            self._patience_seconds = max(0.0, self._patience_seconds - tick_seconds - seconds)
            if not self._patience_seconds:
                wanted = max(min(wanted, self.in_flight) * _SHRINK, self._busy_max)
        self.limit = max(1, int(min(wanted, self._carried())))
        metrics.orders_in_flight_limit.set(self.limit)
