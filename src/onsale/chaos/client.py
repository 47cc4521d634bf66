"""A client of the API that writes every word down; see `history`."""

import asyncio
import time
from collections.abc import Mapping
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

import httpx

from onsale.chaos.history import History, Kind, Operation, OrderName, Outcome
from onsale.http.auth import make_token

_TOKEN_LIFETIME = timedelta(hours=12)
# These answers promise that nothing happened: a refusal is decided before anything is done.
_STANDS_FROM, _STANDS_TO = 400, 500
_OVERLOADED = "overloaded"
# The request never left.
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
# As many connections as are used when everything hangs.
_CONNECTIONS_MAX = 400


class Client:
    """Asks the API processes at `addresses` (name → base URL)."""

    def __init__(
        self,
        addresses: Mapping[str, str],
        auth_secret: str,
        history: History,
        timeout_seconds: float,
    ) -> None:
        self.apis = tuple(addresses)
        self._addresses = addresses
        self._auth_secret = auth_secret
        self._history = history
        self._tokens: dict[tuple[str, str], str] = {}
        limits = httpx.Limits(max_connections=_CONNECTIONS_MAX, max_keepalive_connections=64)
        self._http = httpx.AsyncClient(timeout=timeout_seconds, limits=limits)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._http.aclose()

    # -- what buyers and organisers ask

    async def place(
        self,
        api: str,
        name: OrderName,
        items: tuple[tuple[str, int], ...],
        *,
        method: str | None = None,
        hangs_up_after_seconds: float | None = None,
    ) -> Operation:
        """Order tickets, and go away after a while if told to."""
        body: dict[str, Any] = {
            "items": [{"tier_id": tier, "quantity": quantity} for tier, quantity in items]
        }
        if method is not None:
            body["payment"] = {"method": method}
        operation = Operation(Kind.PLACE, api, name, time.time(), items, method)
        return await self._ask(
            operation,
            "POST",
            f"/v1/events/{name.event_id}/orders",
            json=body,
            headers={"Idempotency-Key": name.key},
            hangs_up_after_seconds=hangs_up_after_seconds,
        )

    async def pay(self, api: str, name: OrderName, order_id: str, method: str) -> Operation:
        """Pay for a hold."""
        operation = Operation(Kind.PAY, api, name, time.time(), method=method)
        path = f"{_path(name, order_id)}/payment"
        return await self._ask(operation, "POST", path, json={"method": method})

    async def release(self, api: str, name: OrderName, order_id: str) -> Operation:
        """Give a hold up."""
        operation = Operation(Kind.RELEASE, api, name, time.time())
        return await self._ask(operation, "DELETE", _path(name, order_id))

    async def refund(self, api: str, name: OrderName, order_id: str) -> Operation:
        """Refund an order, as the organiser."""
        operation = Operation(Kind.REFUND, api, name, time.time())
        path = f"{_path(name, order_id)}/refund"
        return await self._ask(operation, "POST", path, scope="admin")

    async def read(self, api: str, name: OrderName, order_id: str) -> Operation:
        """Look at an order of one's own."""
        operation = Operation(Kind.READ, api, name, time.time())
        return await self._ask(operation, "GET", _path(name, order_id))

    async def list(self, api: str, name: OrderName) -> Operation:
        """Look at all of one's own orders."""
        operation = Operation(Kind.LIST, api, name, time.time())
        return await self._ask(operation, "GET", "/v1/orders")

    async def resize(self, api: str, event_id: str, tier_id: str, capacity: int) -> Operation:
        """Give a tier another capacity, as the organiser."""
        name = OrderName(event_id, "organiser", "")
        operation = Operation(Kind.RESIZE, api, name, time.time(), ((tier_id, capacity),))
        path = f"/v1/events/{event_id}/tiers/{tier_id}"
        return await self._ask(operation, "PATCH", path, scope="admin", json={"capacity": capacity})

    # -- how

    async def _ask(
        self,
        operation: Operation,
        method: str,
        path: str,
        *,
        scope: str = "buy",
        headers: Mapping[str, str] | None = None,
        json: Any = None,
        hangs_up_after_seconds: float | None = None,
    ) -> Operation:
        self._history.invoked(operation)
        token = self._token(operation.name.buyer_id, scope)
        try:
            async with asyncio.timeout(hangs_up_after_seconds):
                answer = await self._http.request(
                    method,
                    self._addresses[operation.api] + path,
                    headers={"Authorization": f"Bearer {token}", **(headers or {})},
                    json=json,
                )
        except _NOT_SENT as error:
            operation.outcome, operation.code = Outcome.FAILED, type(error).__name__
        except TimeoutError:
            operation.code = "hung_up"
        except httpx.TransportError as error:
            operation.code = type(error).__name__
        else:
            _note(operation, answer)
        operation.answered_at_seconds = time.time()
        return operation

    def _token(self, subject: str, scope: str) -> str:
        key = (subject, scope)
        if key not in self._tokens:
            self._tokens[key] = make_token(self._auth_secret, *key, _TOKEN_LIFETIME)
        return self._tokens[key]


def _note(operation: Operation, answer: httpx.Response) -> None:
    """Write down what the answer means."""
    operation.status = answer.status_code
    body = answer.json() if answer.content else {}
    if answer.is_success:
        operation.outcome = Outcome.OK
        operation.order_id, operation.order_status = body.get("id"), body.get("status")
        operation.listed = tuple(order["id"] for order in body.get("data", ()))
        return
    operation.code = body.get("code")
    operation.order_id = body.get("order_id")
    if _STANDS_FROM <= answer.status_code < _STANDS_TO or operation.code == _OVERLOADED:
        operation.outcome = Outcome.FAILED


def _path(name: OrderName, order_id: str) -> str:
    return f"/v1/events/{name.event_id}/orders/{order_id}"
