"""A circuit breaker: a server that just failed is left alone for a moment.

Asking it would make every batch of buyers wait for the same time-out. asyncio libraries for this
wrap one function each and let every caller try at once when the moment is over; here several kinds
of call share one breaker, and one call at a time tries whether the server is back.
"""

from collections.abc import Callable
from enum import StrEnum
from time import monotonic

from onsale.observability import metrics


class BreakerState(StrEnum):
    """Closed lets calls through, open does not, half-open lets one try."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Breaker:
    """Opens at the first failure, for `rest_seconds`; closes at the first success."""

    def __init__(
        self, dependency: str, rest_seconds: float, clock: Callable[[], float] = monotonic
    ) -> None:
        self._dependency = dependency
        self._rest_seconds = rest_seconds
        self._clock = clock
        self._rests_until_seconds = 0.0
        self._state = BreakerState.CLOSED
        self._tell()

    @property
    def state(self) -> BreakerState:
        return self._state

    def allows(self) -> bool:
        """Whether to call; who is let through while it is open tries for all the others."""
        if self._state is BreakerState.CLOSED:
            return True
        if self._clock() < self._rests_until_seconds:
            return False
        # A trial that never ends, for its caller was cancelled, is followed by another.
        self._rests_until_seconds = self._clock() + self._rest_seconds
        self._enter(BreakerState.HALF_OPEN)
        return True

    def succeeded(self) -> None:
        """A call was answered."""
        if self._state is not BreakerState.CLOSED:
            self._enter(BreakerState.CLOSED)

    def failed(self) -> None:
        """A call was not answered."""
        self._rests_until_seconds = self._clock() + self._rest_seconds
        self._enter(BreakerState.OPEN)

    def _enter(self, state: BreakerState) -> None:
        if state is not self._state:
            self._state = state
            metrics.circuit_breaker_transitions_total.labels(self._dependency, state).inc()
            self._tell()

    def _tell(self) -> None:
        for state in BreakerState:
            metrics.circuit_breaker_state.labels(self._dependency, state).set(state is self._state)
