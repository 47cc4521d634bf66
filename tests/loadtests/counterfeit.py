"""A counterfeit ticket service, in memory, that can be made to go wrong on purpose.

It answers just enough of the orders contract for the load scenarios. The tests here are about the
generator: whether its thresholds stay green at a service that is right and go red at each fault.
"""

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from enum import Enum
from typing import Any

import jwt
import uvicorn

EVENT_ID = "ev-1"
TIER_IDS = ("floor", "balcony")
AUTH_SECRET = "a secret of the tests, longer than 32 bytes"
SLOW_SECONDS = 0.7

Message = MutableMapping[str, Any]
Answer = tuple[int, dict[str, Any]]


class Fault(Enum):
    """What is wrong with the service."""

    NONE = "none"
    OVERSELLS = "oversells"
    UNDERSELLS = "undersells"
    IS_ABSENT = "answers 404 to everything"
    FORGETS_KEYS = "makes a new order at each press"
    IS_SLOW = "slow"
    FORGETS_ONCE_SOLD_OUT = "answers sold_out before it looks whose key it is"
    STUMBLES = "answers 503 to the first press of every fifth buyer"
    ANSWERS_PLAINLY = "refuses with a status but without a problem code"


class Counterfeit:
    """The ASGI application; `stock` is in tickets, of which each order takes one."""

    def __init__(self, *, stock: int, payment: str, fault: Fault) -> None:
        self._left = stock
        self._payment = payment
        self._fault = fault
        self._orders: dict[tuple[str, str], dict[str, Any]] = {}
        self._stumbled: set[str] = set()

    @property
    def sold(self) -> int:
        """Tickets held or confirmed."""
        return sum(order["status"] != "released" for order in self._orders.values())

    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        assert scope["type"] == "http"
        request = await receive()
        if self._fault is Fault.IS_SLOW:
            await asyncio.sleep(SLOW_SECONDS)
        status, body = self._answer(scope, request["body"])
        kind = b"application/json" if status < 400 else b"application/problem+json"
        headers = [(b"content-type", kind), (b"retry-after", b"1")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        content = b"" if status == 204 else json.dumps(body).encode()
        await send({"type": "http.response.body", "body": content})

    def _answer(self, scope: Message, body: bytes) -> Answer:
        if self._fault is Fault.IS_ABSENT:
            return 404, {"code": "not_found"}
        headers = dict(scope["headers"])
        bearer = headers[b"authorization"].removeprefix(b"Bearer ")
        claims = jwt.decode(bearer, AUTH_SECRET, algorithms=["HS256"])
        assert claims["scope"] == "buy"
        match scope["method"], scope["path"].split("/")[1:]:
            case "POST", ["v1", "events", str(event_id), "orders"] if event_id == EVENT_ID:
                key = headers[b"idempotency-key"].decode()
                return self._place(claims["sub"], key, json.loads(body)["items"])
            case "POST", ["v1", "events", str(event_id), "orders", order_id, "payment"]:
                return self._pay(self._order(order_id), json.loads(body)["method"])
            case "DELETE", ["v1", "events", str(event_id), "orders", order_id]:
                return self._release(self._order(order_id))
            case _:
                return 404, {"code": "not_found"}

    def _place(self, buyer_id: str, key: str, items: list[dict[str, Any]]) -> Answer:
        if self._stumbles(buyer_id):
            return 503, {"code": "overloaded"}
        if self._fault is Fault.FORGETS_KEYS:
            key += f" {len(self._orders)}"
        is_forgetful = self._fault is Fault.FORGETS_ONCE_SOLD_OUT and self._left <= 0
        if not is_forgetful and (known := self._orders.get((buyer_id, key))):
            return 201, known
        if self._left <= self._kept_back():
            return 409, {} if self._fault is Fault.ANSWERS_PLAINLY else {"code": "sold_out"}
        self._left -= 1
        order = {
            "id": f"order-{len(self._orders)}",
            "event_id": EVENT_ID,
            "buyer_id": buyer_id,
            "status": "held" if self._payment == "card" else "confirmed",
            "items": items,
        }
        self._orders[buyer_id, key] = order
        return 201, order

    def _kept_back(self) -> int:
        """How many tickets are left when the service says that it is sold out."""
        return {Fault.OVERSELLS: -3, Fault.UNDERSELLS: 1}.get(self._fault, 0)

    def _stumbles(self, buyer_id: str) -> bool:
        is_chosen = int(buyer_id.rsplit("-", 1)[1]) % 5 == 0
        if self._fault is not Fault.STUMBLES or not is_chosen or buyer_id in self._stumbled:
            return False
        self._stumbled.add(buyer_id)
        return True

    def _order(self, order_id: str) -> dict[str, Any]:
        return next(order for order in self._orders.values() if order["id"] == order_id)

    @staticmethod
    def _pay(order: dict[str, Any], method: str) -> Answer:
        if method == "declined":
            return 402, {"code": "payment_declined"}
        order["status"] = "confirmed"
        return 200, order

    def _release(self, order: dict[str, Any]) -> Answer:
        order["status"] = "released"
        self._left += 1
        return 204, {}


@contextmanager
def serving(service: Counterfeit) -> Iterator[str]:
    """Serves it on a free loopback port in a thread; yields the base URL."""
    config = uvicorn.Config(service, port=0, lifespan="off", log_level="critical")
    server = uvicorn.Server(config)
    listener = config.bind_socket()
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        # The socket listens from its binding on: early requests wait in its queue.
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=10)
        listener.close()
