"""`POST /v1/events/{event_id}/orders`, the crowd's endpoint, answered in front of the framework.

Routing, middleware and FastAPI's own validation cost more than the order does, so this one endpoint
is plain ASGI. Schemas, errors and use case are those of every other route, and FastAPI documents it
(`routes/orders.py`) from the same models; that route leads here too.
"""

import re
from functools import lru_cache
from time import perf_counter

from pydantic import ValidationError

from onsale.domain.errors import (
    FieldError,
    InvalidRequest,
    NotFound,
    OnsaleError,
    Overloaded,
    Unavailable,
)
from onsale.domain.ids import HEX_ID, IDEMPOTENCY_KEY
from onsale.domain.order import OrderStatus
from onsale.http.answers import Answer, Headers
from onsale.http.auth import Authenticator, Scope
from onsale.http.metering import RouteMeter, TurnCounter
from onsale.http.middleware import (
    BODY_BYTES_MAX,
    Receive,
    Send,
    overloaded,
    request_id_of,
    send_answer,
)
from onsale.http.middleware import Scope as AsgiScope
from onsale.http.problems import (
    BodyTooLarge,
    IdempotencyKeyMissing,
    InternalError,
    UnsupportedMediaType,
    invalid_body,
    problem,
    refusal,
)
from onsale.http.rates import RateLimits
from onsale.http.schemas import ORDER_IN, OrderOut
from onsale.ledger.ledger import OrderKey
from onsale.observability import metrics
from onsale.observability.logging import get_logger
from onsale.sales.baskets import Asked
from onsale.sales.catalog import Catalog
from onsale.sales.paying import Paying
from onsale.sales.placing import Placing

ROUTE = "/v1/events/{event_id}/orders"
_PATH = re.compile(r"/v1/events/([^/]+)/orders")
_TARGET = re.compile(rb"/v1/events/([0-9a-f]{32})/orders")

# A body of ten items written out in full is shorter.
_ORDINARY_BODY_BYTES_MAX = 1_024

_JSON = b"content-type: application/json\r\n"
_REPLAYED = b"idempotent-replayed: true\r\n"

log = get_logger(__name__)


def ordered_in(method: str, path: str) -> str | None:
    """The event of a request for an order."""
    found = _PATH.fullmatch(path) if method == "POST" else None
    return found and found[1]


def plainly_ordered_in(method: bytes, target: bytes) -> str | None:
    """The same of a request as it came; `None` also where a closer look is needed."""
    found = _TARGET.fullmatch(target) if method == b"POST" else None
    return found and found[1].decode()


class ClientGone(Exception):
    """The client went away before it had said what it wants."""


class Intake:
    """An ASGI endpoint that places orders."""

    def __init__(
        self,
        authenticator: Authenticator,
        catalog: Catalog,
        placing: Placing,
        paying: Paying,
        rates: RateLimits | None,
    ) -> None:
        self._authenticator = authenticator
        self._catalog = catalog
        self._placing = placing
        self._paying = paying
        self._rates = rates
        self._meter = RouteMeter("POST", ROUTE)
        self._accepted = TurnCounter(metrics.admissions_total.labels("accepted"))
        self._shed = TurnCounter(metrics.admissions_total.labels("shed"))

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send, event_id: str) -> None:
        """Answer one request."""
        started = perf_counter()
        request_id = request_id_of(dict(scope["headers"]))
        metrics.http_requests_in_flight.inc()
        try:
            answer = await self.answer(scope, receive, event_id, request_id)
            await send_answer(scope, send, answer, request_id)
            self._meter.observe(answer.status, perf_counter() - started, len(answer.body))
        except ClientGone:
            pass
        finally:
            metrics.http_requests_in_flight.dec()

    def refusal(self, headers: Headers) -> Answer:
        """The completed answer to whom there is no room for."""
        started = perf_counter()
        answer = overloaded(headers)
        self._shed.inc()
        self._meter.observe(answer.status, perf_counter() - started, len(answer.body))
        return answer

    def answer_at_once(self, event_id: str, headers: Headers, body: bytes) -> Answer | None:
        """The completed answer to a buyer who is refused without asking anybody, else `None`.

        Where places are scarce one is kept for an order that is not refused.
        """
        # Who asks how often is counted by the gate.
        sale = self._placing.refusing(event_id) if self._rates is None else None
        valve = self._placing.valve
        if sale is None and not valve.scarce:
            return None
        started = perf_counter()
        try:
            understood = self._understood(headers, body)
            if understood is None:
                return None
            refused = self._placing.refusal(sale, *understood) if sale is not None else None
        except OnsaleError:
            # Something is wrong with the request. It is told so in the ordinary way.
            return None
        if refused is None:
            if valve.scarce:
                valve.expect()
            return None
        answer = refusal(refused, request_id_of(headers))
        self._meter.observe(answer.status, perf_counter() - started, len(answer.body))
        return answer

    def _understood(self, headers: Headers, body: bytes) -> tuple[str, str, Asked] | None:
        """Buyer, key and what is asked for, if that takes neither time nor questions."""
        principal = self._authenticator.known(headers.get(b"authorization"))
        if principal is None or len(body) > _ORDINARY_BODY_BYTES_MAX:
            return None
        principal.require(Scope.BUY)
        key = idempotency_key(headers.get(b"idempotency-key"))
        require_json(headers.get(b"content-type"))
        return principal.subject, key, read_asked(body)

    async def answer(
        self, scope: AsgiScope, receive: Receive, event_id: str, request_id: str
    ) -> Answer:
        """The answer to one request, whatever happens. Raises `ClientGone`."""
        try:
            return await self._place(scope, receive, event_id)
        except OnsaleError as error:
            if isinstance(error, Unavailable):
                log.warning("order not placed", code=error.code, request_id=request_id)
            return problem(error, request_id)
        except ClientGone:
            raise
        except Exception:
            log.exception("order failed", request_id=request_id)
            return problem(InternalError(), request_id)

    async def _place(self, scope: AsgiScope, receive: Receive, event_id: str) -> Answer:
        headers = dict(scope["headers"])
        principal = await self._authenticator.principal(headers.get(b"authorization"))
        principal.require(Scope.BUY)
        if not HEX_ID.fullmatch(event_id):
            raise NotFound
        key = idempotency_key(headers.get(b"idempotency-key"))
        require_json(headers.get(b"content-type"))
        # Who has asked too often is refused before anything is read or looked up for them.
        told = await self._rates.admit(principal, scope) if self._rates is not None else b""
        body = await read_body(receive, headers.get(b"content-length"))
        asked = read_asked(body)
        valve = self._placing.valve
        if valve.full:
            # There was room when the head was read, also for others whose bodies were on their way.
            self._shed.inc()
            raise Overloaded
        with valve:
            try:
                order, replayed = await self._placing.place(event_id, principal.subject, key, asked)
            except Unavailable:
                self._shed.inc()
                raise
            self._accepted.inc()
        # Who waits for a payment provider has a hold, and takes nobody's room.
        if asked.payment_method is not None and order.status is OrderStatus.HELD:
            order_key = OrderKey(event_id, order.id)
            order = await self._paying.pay(order_key, principal.subject, asked.payment_method)
        sale = await self._catalog.require(event_id)
        location = f"location: /v1/events/{event_id}/orders/{order.id.hex()}\r\n"
        head = _JSON + location.encode() + told + (_REPLAYED if replayed else b"")
        return Answer(201, head, OrderOut.json_of(order, sale.event))


def read_asked(body: bytes) -> Asked:
    """What a body asks for. Raises `InvalidRequest`."""
    return _read_ordinary(body) if len(body) <= _ORDINARY_BODY_BYTES_MAX else _read(body)


def _read(body: bytes) -> Asked:
    try:
        order_in = ORDER_IN.validate_json(body)
    except ValidationError as error:
        raise invalid_body(error) from None
    method = order_in.payment.method if order_in.payment else None
    return Asked(tuple((item.tier_id, item.quantity) for item in order_in.items), method)


# A crowd sends few different bodies, and what one of them asks for does not change.
_read_ordinary = lru_cache(maxsize=1_024)(_read)


def idempotency_key(value: bytes | None) -> str:
    """The key. Raises `IdempotencyKeyMissing`, `InvalidRequest`."""
    if not value:
        raise IdempotencyKeyMissing
    key = value.decode("latin-1")
    if not IDEMPOTENCY_KEY.fullmatch(key):
        raise InvalidRequest(
            FieldError("Idempotency-Key", "1 to 255 visible ASCII characters, without spaces")
        )
    return key


def require_json(content_type: bytes | None) -> None:
    """Raises `UnsupportedMediaType` unless the body is said to be JSON."""
    if content_type == b"application/json":
        return
    media_type = (content_type or b"").partition(b";")[0].strip().lower()
    if media_type != b"application/json":
        raise UnsupportedMediaType


async def read_body(receive: Receive, content_length: bytes | None) -> bytes:
    """The whole body. Raises `BodyTooLarge`, `ClientGone`."""
    if content_length is not None and int(content_length) > BODY_BYTES_MAX:
        raise BodyTooLarge
    body = b""
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        body += message.get("body", b"")
        if len(body) > BODY_BYTES_MAX:
            raise BodyTooLarge
        more = message.get("more_body", False)
    return body
