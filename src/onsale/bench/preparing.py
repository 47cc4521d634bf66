"""What the crowd asks for, made ready: events on sale, and orders that were there before."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import httpx

from onsale.bench.crowd import Cells, Crowd, Request, buyer_id, key_of
from onsale.bench.filling import Press, fill
from onsale.bench.probes import ApiCounters, Holdings
from onsale.bench.stage import Server
from onsale.bench.variants import Sale, Variant
from onsale.demo.client import ServiceClient
from onsale.domain.order import OrderStatus

# A limit that nobody reaches: the gate counts every buyer's units, as in a real sale.
_PER_BUYER_MAX = 1_000

_ORDERS = "/v1/events/{event_id}/orders"
_PAYMENT = f"{_ORDERS}/{{order_id}}/payment"
_ORDER_BODY = '{"items":[{"tier_id":"ga","quantity":1}]}'
_PAYMENT_BODY = '{"method":"ok"}'

# Paying is several statements of the request's own: in the time of at least so many orders.
_ORDERS_PER_PAYMENT = 2

# The event of variants that have none.
_NO_EVENT = "none"
# Longer than a breaker leaves a store alone.
_PICTURE_SECONDS_MAX = 30.0
_PICTURE_POLL_SECONDS = 0.05


@dataclass
class Subject:
    """A server and what the crowd asks of it, at `route` as its metrics name it."""

    server: Server
    route: str
    request: Request
    events: Sequence[str]
    requests_max: int | None = None
    # What was there before the crowd, of variants that are about it.
    filled: Holdings | None = None
    # Requests go on where the last turn ended, so that each has a key and a buyer of its own.
    next_index: int = 0

    @property
    def variant(self) -> Variant:
        return self.server.variant

    def sleep(self) -> None:
        """Have nothing done by the server until it is `awake`."""
        # Those who look after several processes would miss a sign of life.
        if self.variant.workers == 1:
            self.server.sleep()

    @contextmanager
    def awake(self) -> Iterator[None]:
        """A turn of the server's. It begins when the server knows again how its sale stands."""
        self.server.wake()
        if self.variant.sale is not None:
            self._wait_for_a_picture()
        yield
        self.sleep()

    def _wait_for_a_picture(self) -> None:
        address = f"{self.server.base_url}/v1/events/{self.events[0]}/availability"
        deadline = time.monotonic() + _PICTURE_SECONDS_MAX
        while time.monotonic() < deadline:
            self.server.check()
            # What was under way when it fell asleep may count as failed now, for a moment.
            with suppress(httpx.TransportError):
                if httpx.get(address).status_code == HTTPStatus.OK:
                    return
            time.sleep(_PICTURE_POLL_SECONDS)
        raise self.server.failure("did not wake up")

    def counters(self) -> ApiCounters | None:
        """What its processes have counted, or `None` when they count nothing."""
        if self.variant.sale is None or not self.variant.metered:
            return None
        return ApiCounters.scrape(self.server.metrics_ports, self.route)

    def holdings(self) -> Holdings | None:
        """What its orders left in the stores, or `None` when it has none."""
        stores, variant = self.server.stores, self.variant
        if variant.sale is not None:
            return stores.holdings_of_events(self.events, variant.sale.leaves)
        if variant.schema is not None:
            return stores.holdings_of_schema(variant.schema)
        return None


def prepare(
    server: Server, folder: Path, auth_secret: str, crowd: Crowd, requests_max: int
) -> Subject:
    """Make ready what the crowd asks for, at most so often. Raises `ServiceError`."""
    sale = server.variant.sale
    if sale is None:
        return _ordering(server, folder, [_NO_EVENT])
    events = _create_events(server, sale, auth_secret)
    if sale.pays:
        holds_max = requests_max // _ORDERS_PER_PAYMENT
        presses = [Press(buyer_id(i % crowd.buyers), key_of(i)) for i in range(holds_max)]
        return _paying(server, folder, events, presses)
    if sale.live_orders:
        presses = [Press(f"earlier-{i:07d}", "earlier") for i in range(sale.live_orders)]
        fill(server.stores, events[0], presses, OrderStatus.CONFIRMED)
        subject = _ordering(server, folder, events)
        subject.filled = subject.holdings()
        return subject
    return _ordering(server, folder, events)


def _ordering(server: Server, folder: Path, events: Sequence[str]) -> Subject:
    paths = [_ORDERS.format(event_id=event) for event in events]
    cells = Cells.write(folder / f"{server.variant.name}.paths", paths)
    return Subject(server, _ORDERS, Request(server.base_url, cells, _ORDER_BODY), events)


def _paying(
    server: Server, folder: Path, events: Sequence[str], presses: Sequence[Press]
) -> Subject:
    holds = fill(server.stores, events[0], presses, OrderStatus.HELD)
    paths = [_PAYMENT.format(event_id=events[0], order_id=hold.hex()) for hold in holds]
    cells = Cells.write(folder / f"{server.variant.name}.paths", paths)
    request = Request(server.base_url, cells, _PAYMENT_BODY)
    return Subject(server, _PAYMENT, request, events, requests_max=len(holds))


def _create_events(server: Server, sale: Sale, auth_secret: str) -> list[str]:
    client = ServiceClient(server.base_url, auth_secret)
    tier = {"id": "ga", "name": "General admission", "price": 4_900, "capacity": sale.stock}
    return [
        client.create_event(
            f"A benchmark of {server.variant.name}",
            [tier],
            payment=sale.payment,
            max_per_buyer=_PER_BUYER_MAX,
        )["id"]
        for _ in range(sale.events)
    ]
