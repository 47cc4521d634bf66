"""HTTP metrics: one set of names and labels, fed by two meters.

prometheus-fastapi-instrumentator meters every route that FastAPI serves. The crowd's endpoint is
metered here, with the label children at hand, because the instrumentator's middleware would cost
that route a third of its throughput.
"""

import asyncio
from collections import defaultdict

from fastapi import FastAPI
from prometheus_client import Counter
from prometheus_fastapi_instrumentator.instrumentation import PrometheusFastApiInstrumentator
from prometheus_fastapi_instrumentator.metrics import Info

from onsale.http.answers import Answer, Headers
from onsale.http.middleware import overloaded
from onsale.observability import metrics
from onsale.observability.bulk import BulkHistogram

_METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})


def instrument(app: FastAPI) -> None:
    """Meter every route of the app."""
    PrometheusFastApiInstrumentator(
        should_group_status_codes=False, should_exclude_streaming_duration=True
    ).add(_observe).instrument(app)


def refused(method: str, headers: Headers) -> Answer:
    """The completed answer to a request that is not let in; of no route, for nobody looked."""
    answer = overloaded(headers)
    method = method if method in _METHODS else "other"
    metrics.http_requests_total.labels(method, "refused", str(answer.status)).inc()
    return answer


def _observe(info: Info) -> None:
    # Anybody can invent methods and paths; neither may become a label.
    method = info.method if info.method in _METHODS else "other"
    route, status = info.modified_handler, info.modified_status
    metrics.http_requests_total.labels(method, route, status).inc()
    metrics.http_request_duration_seconds.labels(method, route, f"{status[0]}xx").observe(
        # A stream lasts as long as somebody listens; its latency is when it begins.
        info.modified_duration_without_streaming
    )
    if info.response is not None:
        length = info.response.headers.get("content-length")
        metrics.http_response_bytes_total.labels(route).inc(int(length or 0))


class RouteMeter:
    """Meters one route, for an endpoint that answers in front of the app.

    What one turn of the event loop answered is counted together at its end.
    """

    def __init__(self, method: str, route: str) -> None:
        self._method = method
        self._route = route
        self._bytes = metrics.http_response_bytes_total.labels(route)
        self._by_status: dict[int, tuple[Counter, BulkHistogram]] = {}
        self._durations_seconds: defaultdict[int, list[float]] = defaultdict(list)
        self._body_bytes = 0
        # There from the start: of a series that begins at 500 Prometheus cannot tell that it rose,
        # and the first errors of an outage would be missed.
        for status in (201, 409, 500, 503):
            self._meters_of(status)

    def observe(self, status: int, duration_seconds: float, body_bytes: int) -> None:
        """Count one answer."""
        if not self._durations_seconds:
            asyncio.get_running_loop().call_soon(self.count_turn)
        self._durations_seconds[status].append(duration_seconds)
        self._body_bytes += body_bytes

    def count_turn(self) -> None:
        """Hand over what was observed in this turn."""
        for status, durations_seconds in self._durations_seconds.items():
            counter, histogram = self._meters_of(status)
            counter.inc(len(durations_seconds))
            histogram.observe_many(durations_seconds)
        self._bytes.inc(self._body_bytes)
        self._durations_seconds.clear()
        self._body_bytes = 0

    def _meters_of(self, status: int) -> "tuple[Counter, BulkHistogram]":
        meters = self._by_status.get(status)
        if meters is None:
            meters = self._by_status[status] = (
                metrics.http_requests_total.labels(self._method, self._route, str(status)),
                metrics.http_request_duration_seconds.labels(
                    self._method, self._route, f"{status // 100}xx"
                ),
            )
        return meters


class TurnCounter:
    """A counter of what crowds do, told at the end of a turn of the event loop."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._more = 0

    def inc(self) -> None:
        """Count one."""
        if not self._more:
            asyncio.get_running_loop().call_soon(self._count_turn)
        self._more += 1

    def _count_turn(self) -> None:
        self._counter.inc(self._more)
        self._more = 0
