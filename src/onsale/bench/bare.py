"""The two apps that orders are compared with: they read, answer, and do nothing in between."""

from datetime import UTC, datetime

from fastapi import FastAPI

from onsale.domain.order import OrderStatus
from onsale.http.middleware import ASGIApp, Receive, Scope, Send
from onsale.http.schemas import ItemOut, OrderIn, OrderOut

_ANSWER = OrderOut(
    id="9b2f4c1d8e7a6b5c4d3e2f1a0b9c8d7e",
    event_id="0198f3a2b4c57d6e8f901a2b3c4d5e6f",
    buyer_id="buyer-0000001",
    status=OrderStatus.CONFIRMED,
    items=[ItemOut(tier_id="ga", quantity=1)],
    amount=4_900,
    currency="EUR",
    created_at=datetime(2030, 5, 1, 10, 0, 0, 123456, tzinfo=UTC),
    expires_at=None,
)
_BODY = _ANSWER.model_dump_json().encode()
_HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(_BODY))]


def create_asgi() -> ASGIApp:
    """The answer of `noop`, by the least that ASGI asks for."""
    return _answer


async def _answer(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "http.response.start", "status": 201, "headers": _HEADERS})
    await send({"type": "http.response.body", "body": _BODY})


def create_noop() -> FastAPI:
    """A FastAPI route with the models of an order."""
    app = FastAPI()

    @app.post("/v1/events/{event_id}/orders", status_code=201)
    async def do_nothing(event_id: str, order_in: OrderIn) -> OrderOut:
        return _ANSWER

    return app
