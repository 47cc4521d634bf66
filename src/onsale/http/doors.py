"""Who is let in: the one place that refuses a request before anything is done for it.

Orders come by the valve (`sales.valve`): they are the crowd, and kept to what the process can do.
Everything else shares places of its own, so that who holds seats can pay for them and an organiser
can pause the sale however many press the button; and of these the readers, who are many and can
look again, leave a part to those who pay, release or organise. Health is always answered.

A process that is told to stop lets nobody in any more; who is inside is served to the end.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from onsale.http.middleware import Scope
from onsale.sales.valve import Valve

HEALTH = "/healthz"
_READERS_SHARE = 0.5


class Doors:
    """See the module; `others_max` is how many requests that are not orders there may be."""

    def __init__(self, valve: Valve, others_max: int) -> None:
        self._valve = valve
        self._others_max = others_max
        self._readers_max = int(others_max * _READERS_SHARE)
        self._others = 0
        self.closed = False

    def close(self) -> None:
        """Let nobody in any more."""
        self.closed = True

    @property
    def wide_open(self) -> bool:
        """Whether nobody is refused; no more than this is asked while things are well."""
        return self.open_for_orders and self._others < self._readers_max

    @property
    def open_for_orders(self) -> bool:
        """Whether an order is let in."""
        return not (self.closed or self._valve.full)

    def open_for(self, method: str, path: str, *, an_order: bool) -> bool:
        """Whether this request is let in."""
        if path == HEALTH:
            return True
        if an_order:
            return self.open_for_orders
        if self.closed:
            return False
        reads = method in ("GET", "HEAD")
        return self._others < (self._readers_max if reads else self._others_max)

    @contextmanager
    def inside(self, scope: Scope) -> Iterator[Any]:
        """Count a request that is not an order while it lasts; streams have places of their own."""
        counts = not scope["path"].endswith("/stream")
        self._others += counts
        try:
            yield
        finally:
            self._others -= counts
