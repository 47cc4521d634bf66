"""What surrounds every request: its id, its place in the log, and an answer whatever happens.

Plain ASGI: Starlette's function middleware more than halves the throughput.
"""

import random
import re
from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from typing import Any

import structlog
from starlette.exceptions import HTTPException

from onsale.domain.errors import Overloaded
from onsale.http.answers import Answer, Headers
from onsale.http.problems import InternalError, problem, refusal
from onsale.http.protocol import WHOLE_ANSWER
from onsale.observability import metrics
from onsale.observability.logging import get_logger

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

BODY_BYTES_MAX = 64 * 1024
REQUEST_ID_HEADER = b"x-request-id"
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")

_OVERLOADED = Overloaded()

log = get_logger(__name__)


def request_id_of(headers: Headers) -> str:
    """The id that the client gave the request, if it is a decent one, or a new one."""
    given = headers.get(REQUEST_ID_HEADER)
    return given.decode() if given and _REQUEST_ID.fullmatch(given) else new_request_id()


def new_request_id() -> str:
    """32 hexadecimal digits, to be told from others and not to be secret: no system call."""
    return random.randbytes(16).hex()


def overloaded(headers: Headers) -> Answer:
    """The completed answer to a request that there is no room for."""
    return refusal(_OVERLOADED, request_id_of(headers))


async def send_answer(scope: Scope, send: Send, answer: Answer, request_id: str) -> None:
    """Complete and send an answer."""
    await send_completed(scope, send, answer.completed(request_id))


async def send_completed(scope: Scope, send: Send, answer: Answer) -> None:
    """Send a completed answer, in one piece where the server can."""
    send_whole = scope.get("extensions", {}).get(WHOLE_ANSWER)
    if send_whole is not None and send_whole(answer):
        return
    start = {"type": "http.response.start", "status": answer.status, "headers": answer.headers}
    await send(start)
    await send({"type": "http.response.body", "body": answer.body})


class RequestContext:
    """Gives every request an id, counts it while it lasts, limits its body, and answers what went
    wrong inside.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = scope.setdefault("state", {})["request_id"] = request_id_of(
            dict(scope["headers"])
        )
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                header = (REQUEST_ID_HEADER, request_id.encode())
                message = {**message, "headers": [*message.get("headers", ()), header]}
            await send(message)

        metrics.http_requests_in_flight.inc()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        try:
            await self._app(scope, _limited(scope, receive), send_with_id)
        except Exception:
            log.exception("request failed", method=scope["method"], path=scope["path"])
            if not started:
                answer = problem(InternalError(), request_id)
                await send_answer(scope, send, answer, request_id)
        finally:
            structlog.contextvars.unbind_contextvars("request_id")
            metrics.http_requests_in_flight.dec()


def _limited(scope: Scope, receive: Receive) -> Receive:
    """A `receive` that raises the framework's 413 in place of a body that is too large."""
    declared_bytes = int(dict(scope["headers"]).get(b"content-length", 0))
    received_bytes = 0

    async def limited() -> Message:
        nonlocal received_bytes
        message = await receive() if declared_bytes <= BODY_BYTES_MAX else {}
        received_bytes += len(message.get("body", b""))
        if max(declared_bytes, received_bytes) > BODY_BYTES_MAX:
            raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        return message

    return limited
