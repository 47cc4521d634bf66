"""A stand-in for a process of the service: every metric that there is, with the labels it bears.

Serves them on a free port of 127.0.0.1, which it prints, until its parent closes its input. The
counters and histograms move with each scrape, so that a rate is never the rate of nothing.
"""

import itertools
import sys
import threading
from collections.abc import Iterable
from wsgiref.simple_server import WSGIRequestHandler, make_server
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from prometheus_client import Counter, Gauge, Histogram, make_wsgi_app
from prometheus_client.metrics import MetricWrapperBase

from onsale.observability import metrics

LABEL_VALUES = {
    "method": ["POST"],
    "route": ["/v1/events/{event_id}/orders", "/healthz"],
    "status": ["201", "409", "503"],
    "status_class": ["2xx", "4xx", "5xx"],
    "event": ["concert", "other"],
    "tier": ["balcony", "floor"],
    "outcome": ["held", "confirmed", "sold_out", "error"],
    "reason": ["released", "expired"],
    "currency": ["EUR"],
    "stage": ["gate", "ledger", "ledger_only"],
    "decision": ["accepted", "shed", "rate_limited"],
    "mode": ["redis", "ledger_only", "closed"],
    "state": ["idle", "in_use", "open"],
    "to": ["open"],
    "operation": ["admit", "insert"],
    "error": ["timeout"],
    "dependency": ["postgres", "redis"],
    "kind": ["fence", "give_back", "adopt", "rebuild"],
    "version": ["0"],
    "python": ["3"],
}


def children() -> list[MetricWrapperBase]:
    """Every metric of the catalogue, once for each combination of its labels' values."""
    found: list[MetricWrapperBase] = []
    for metric in vars(metrics).values():
        if not isinstance(metric, MetricWrapperBase):
            continue
        names = metric._labelnames
        if not names:
            found.append(metric)
            continue
        combinations = itertools.product(*(LABEL_VALUES[name] for name in names))
        found.extend(metric.labels(*values) for values in combinations)
    return found


def move(metric: MetricWrapperBase) -> None:
    """One step of life."""
    match metric:
        case Counter():
            metric.inc()
        case Histogram():
            metric.observe(0.01)
        case Gauge():
            metric.set(1)


class Silent(WSGIRequestHandler):
    """Writes no access log."""

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


def main() -> None:
    """Serves until standard input ends, which it does when the parent is gone."""
    every = children()
    scrape: WSGIApplication = make_wsgi_app()

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        for metric in every:
            move(metric)
        return scrape(environ, start_response)

    with make_server("127.0.0.1", 0, app, handler_class=Silent) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print(server.server_port, flush=True)
        sys.stdin.read()
        server.shutdown()


if __name__ == "__main__":
    main()
