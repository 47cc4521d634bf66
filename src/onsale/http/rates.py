"""Rate limits as clients meet them: `429` with `Retry-After`, and the headers of the draft.

`RateLimit-Policy` and `RateLimit` are those of draft-ietf-httpapi-ratelimit-headers: for each
policy its quota `q` in a window of `w` seconds, and how many requests remain (`r`), all of them
again in `t` seconds.
"""

from typing import Self

from onsale.http.addresses import ClientAddresses
from onsale.http.auth import Principal
from onsale.http.middleware import Scope
from onsale.http.problems import RateLimited
from onsale.observability import metrics
from onsale.sales.throttling import Standing, Throttle
from onsale.settings import Settings


class RateLimits:
    """Admits orders by the throttle; `RateLimits.of(...)` is `None` when there is none."""

    def __init__(self, throttle: Throttle, addresses: ClientAddresses, *, headers: bool) -> None:
        self._throttle = throttle
        self._addresses = addresses
        self._limited = metrics.admissions_total.labels("rate_limited")
        self._tells = headers
        policies = (f'"{x.name}";q={x.burst};w={x.window_seconds}' for x in throttle.lanes)
        self._policy = ", ".join(policies)

    @classmethod
    def of(cls, throttle: Throttle | None, settings: Settings) -> Self | None:
        """By the settings."""
        if throttle is None:
            return None
        addresses = ClientAddresses(settings.trusted_proxies)
        return cls(throttle, addresses, headers=settings.rate_limit_headers)

    async def admit(self, principal: Principal, scope: Scope) -> bytes:
        """The header lines that tell how it stands. Raises `RateLimited`."""
        standing = await self._throttle.standing(principal.subject, self._addresses.of(scope))
        if standing is None:
            return b""
        head = self._head(standing) if self._tells else b""
        if standing.wait_seconds:
            self._limited.inc()
            raise RateLimited(standing.wait_seconds, head)
        return head

    def _head(self, standing: Standing) -> bytes:
        named = zip(self._throttle.lanes, standing.lanes, strict=True)
        limits = (f'"{lane.name}";r={left};t={full}' for lane, (left, full) in named)
        lines = f"ratelimit-policy: {self._policy}\r\nratelimit: {', '.join(limits)}\r\n"
        return lines.encode()
