"""The budget of one order by step: the API's own functions, timed one by one in this process.

    uv run python loadtest/bench/budget.py

Microseconds of CPU for each call, the best of several repetitions with everything warm: a floor to
compare steps by, not what an order costs under load, where caches are cold and the cores are
shared (`onsale bench` measures that). Steps that wait for a store are in `docs/performance.md`.
"""

import asyncio
import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import uvicorn
from pydantic import SecretStr
from uvicorn.server import ServerState

from onsale.domain.errors import SoldOut
from onsale.domain.event import Event, PaymentKind, SaleSwitch
from onsale.domain.ids import order_id
from onsale.domain.order import Order, OrderStatus
from onsale.domain.tier import Tier
from onsale.gate.codec import encode_body
from onsale.gate.gate import Availability
from onsale.http.app import Application, create_app
from onsale.http.auth import Authenticator, make_token
from onsale.http.intake import ROUTE, idempotency_key, read_asked
from onsale.http.metering import RouteMeter
from onsale.http.middleware import request_id_of
from onsale.http.problems import refusal
from onsale.http.protocol import BoundedHttpProtocol
from onsale.http.schemas import OrderOut
from onsale.http.server import UVICORN_OPTIONS
from onsale.http.turn import Turn
from onsale.sales.baskets import Asked
from onsale.sales.sale import Sale
from onsale.settings import Settings

CALLS = 20_000
REPETITIONS = 7
BODY = b'{"items":[{"tier_id":"ga","quantity":1}]}'
BUYER = "buyer-0000001"
BATCH_ORDERS = 46

_NOW = datetime.now(UTC)
_EVENT = Event(
    id="0198f3a2b4c57d6e8f901a2b3c4d5e6f",
    name="A night to measure",
    venue=None,
    starts_at=_NOW,
    sale_opens_at=_NOW - timedelta(days=1),
    sale_closes_at=_NOW + timedelta(days=1),
    hold_seconds=600,
    max_per_buyer_units=4,
    payment=PaymentKind.NONE,
    currency="EUR",
    switch=SaleSwitch.OPEN,
    tiers=(Tier("ga", 1, "General admission", 4_900, 1_000),),
    created_at=_NOW,
)


def sold_out_sale() -> Sale:
    """A sale as a process sees it when nothing is left."""
    sale = Sale(_EVENT, age_seconds_max=3_600)
    now_ms = int(_NOW.timestamp() * 1000)
    sale.see(Availability(now_ms, SaleSwitch.OPEN, 7, {1: 0}), time.monotonic())
    sale.see_orders(range(7), 0)
    return sale


def cost_us(call: Callable[[int], object], per_call: int = 1) -> float:
    """CPU in µs of one of the `per_call` that a call does; each call gets another number."""
    calls = CALLS // per_call

    def repetition() -> float:
        started = time.process_time()
        for number in range(calls):
            call(number)
        return (time.process_time() - started) / calls / per_call * 1e6

    return min(repetition() for _ in range(REPETITIONS))


def verifier() -> Callable[[int], object]:
    """Checks a token that has not been seen before."""
    secret = secrets.token_hex(32)
    authenticator = Authenticator(Settings(auth_secret=SecretStr(secret), auth_cache_size_max=1))
    headers = [
        b"Bearer " + make_token(secret, f"buyer-{n:07}", "buy", timedelta(hours=1)).encode()
        for n in range(CALLS)
    ]

    def verify(number: int) -> None:
        try:
            authenticator.principal(headers[number]).send(None)
        except StopIteration:
            return
        raise AssertionError("nothing to wait for")

    return verify


class Wire(asyncio.Transport):
    """One connection to the whole API, which nobody reads from."""

    def __init__(self, app: Application, secret: str) -> None:
        super().__init__()
        config = uvicorn.Config(app, http=BoundedHttpProtocol, lifespan="off", **UVICORN_OPTIONS)
        config.load()
        self._protocol = BoundedHttpProtocol(config, ServerState(), {})
        self._protocol.connection_made(self)
        token = make_token(secret, BUYER, "buy", timedelta(hours=1))
        self._request = (
            f"POST /v1/events/{_EVENT.id}/orders HTTP/1.1\r\nHost: localhost\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(BODY)}\r\n"
            f"Authorization: Bearer {token}\r\nIdempotency-Key: press-1\r\n\r\n"
        ).encode() + BODY
        self.status = b""

    def ask(self, _: object) -> None:
        """Send as many requests as a turn of the event loop has, and see it to its end."""
        turn = Turn.of(asyncio.get_running_loop())
        for _ in range(BATCH_ORDERS):
            self._protocol.data_received(self._request)
        turn.serve()
        turn.write()

    def get_extra_info(self, name: str, default: object = None) -> object:
        return {"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)}.get(name, default)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.status = bytes(data[9:12])

    def is_closing(self) -> bool:
        return False

    def resume_reading(self) -> None:
        pass


def wired(sale: Sale) -> tuple[Application, Wire]:
    """The API that knows this sale, and a connection to it."""
    secret = secrets.token_hex(32)
    app = create_app(Settings(auth_secret=SecretStr(secret)))
    app.api.state.service.catalog._sales[_EVENT.id] = sale
    return app, Wire(app, secret)


async def of_whole_requests(sale: Sale) -> None:
    """From the bytes of a request to those of its answer, where nobody has to be asked."""
    app, wire = wired(sale)
    for name, status in (("a loser", b"409"), ("one there is no room for", b"503")):
        us = cost_us(wire.ask, BATCH_ORDERS)
        assert wire.status == status, wire.status
        print(f"{us:6.2f} µs  {name}, from bytes to bytes (token known, {BATCH_ORDERS} in a turn)")
        await asyncio.sleep(0)
        app.api.state.service.placing.valve.limit = 0


def count(meter: RouteMeter) -> None:
    """What one turn of the event loop answers, and its end."""
    for _ in range(BATCH_ORDERS):
        meter.observe(201, 0.004, 300)
    meter.count_turn()


async def main() -> None:
    """Print the table."""
    sale, meter = sold_out_sale(), RouteMeter("POST", ROUTE)
    asked = Asked((("ga", 1),), None)
    basket = sale.baskets.of(asked)
    named = order_id(_EVENT.id, BUYER, "press-1")
    order = Order(
        event_id=_EVENT.id,
        id=named,
        buyer_id=BUYER,
        status=OrderStatus.CONFIRMED,
        fingerprint=basket.fingerprint,
        items=basket.items,
        amount_minor_units=basket.amount_minor_units,
        currency="EUR",
        created_at=_NOW,
        expires_at=None,
    )
    headers = {b"host": b"localhost", b"idempotency-key": b"press-1"}
    batch = [order] * BATCH_ORDERS
    steps: list[tuple[str, Callable[[int], object], int]] = [
        ("a token seen for the first time", verifier(), 1),
        ("request id", lambda _: request_id_of(headers), 1),
        ("Idempotency-Key", lambda _: idempotency_key(b"press-1"), 1),
        ("body, as a crowd sends it", lambda _: read_asked(BODY), 1),
        ("basket: items, amount, fingerprint", lambda _: sale.baskets.of(asked), 1),
        ("order id", lambda n: order_id(_EVENT.id, BUYER, f"press-{n}"), 1),
        ("refused from memory", lambda _: sale.refusal(basket.items), 1),
        ("who was admitted", lambda _: sale.may_have_admitted(named), 1),
        ("a refusal's answer", lambda _: refusal(SoldOut(), "5f0c1d7e9a3b4c2d"), 1),
        ("body for the gate", lambda _: encode_body(BUYER, basket.fingerprint, basket.items), 1),
        ("an order's answer", lambda _: OrderOut.json_of(order, _EVENT), 1),
        (f"counting answers ({BATCH_ORDERS} in a turn)", lambda _: count(meter), BATCH_ORDERS),
        (
            f"counting orders ({BATCH_ORDERS} at once)",
            lambda _: sale.meters.placed(batch),
            BATCH_ORDERS,
        ),
    ]
    for name, call, per_call in steps:
        print(f"{cost_us(call, per_call):6.2f} µs  {name}")
        await asyncio.sleep(0)  # what the step has left for the end of the loop's turn
    await of_whole_requests(sale)


if __name__ == "__main__":
    asyncio.run(main())
