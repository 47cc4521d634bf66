"""The API as one ASGI application: `create_app(settings)`."""

import asyncio
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException

from onsale.domain.errors import (
    FieldError,
    InvalidRequest,
    LedgerUnavailable,
    NotFound,
    OnsaleError,
)
from onsale.http import metering, openapi
from onsale.http.answers import Answer, Header
from onsale.http.auth import Authenticator
from onsale.http.doors import Doors
from onsale.http.intake import Intake, ordered_in, plainly_ordered_in
from onsale.http.middleware import (
    ASGIApp,
    Receive,
    RequestContext,
    Scope,
    Send,
    request_id_of,
    send_answer,
    send_completed,
)
from onsale.http.problems import (
    BodyTooLarge,
    InternalError,
    MethodNotAllowed,
    invalid,
    problem,
)
from onsale.http.rates import RateLimits
from onsale.http.routes import events, health, orders, webhooks
from onsale.http.stopping import heard_stop
from onsale.http.streams import Streams
from onsale.http.unread import headers_of_order
from onsale.observability import metrics
from onsale.observability.logging import configure_logging, get_logger
from onsale.observability.runtime import (
    calm_garbage_collector,
    serve_metrics,
    serve_metrics_when_free,
    stop,
    watch_event_loop,
)
from onsale.sales.service import Service
from onsale.settings import Settings

log = get_logger(__name__)

_DESCRIPTION = """Sells tickets at the moment everybody wants them.

Amounts are integers in the currency's minor units, times are RFC 3339 in UTC. Errors are
`application/problem+json` with a stable `code`; `Retry-After` says when to try again.
"""


class Application:
    """The front: the crowd's endpoint before the framework, everything else through it."""

    def __init__(self, api: FastAPI, intake: Intake, doors: Doors) -> None:
        self.api = api
        self._intake = intake
        self._doors = doors
        self._rest: ASGIApp = RequestContext(api)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._rest(scope, receive, send)
        elif refusal := self.refusal(scope):
            await send_completed(scope, send, refusal)
        else:
            await self._serve(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if event_id := ordered_in(scope["method"], scope["path"]):
                await self._intake(scope, receive, send, event_id)
            else:
                with self._doors.inside(scope):
                    await self._rest(scope, receive, send)
        except asyncio.CancelledError:
            if not self._doors.closed:
                raise
            # The process ends before the stores have answered: what becomes of the request is found
            # out by asking again.
            request_id = request_id_of(dict(scope["headers"]))
            await send_answer(scope, send, problem(LedgerUnavailable(), request_id), request_id)

    def refusal(self, scope: Scope) -> Answer | None:
        """The completed answer to a request that is not let in; `None` for all others."""
        if self._doors.wide_open:
            return None
        method, path, headers = scope["method"], scope["path"], dict(scope["headers"])
        an_order = ordered_in(method, path) is not None
        if self._doors.open_for(method, path, an_order=an_order):
            return None
        return self._intake.refusal(headers) if an_order else metering.refused(method, headers)

    def refuse_unread(self, data: bytes) -> Answer | None:
        """The completed answer to an order that there is no room for, if it is all of `data` and
        nothing about it is unusual; `None` for all others.
        """
        if self._doors.open_for_orders:
            return None
        headers = headers_of_order(data)
        return None if headers is None else self._intake.refusal(headers)

    def answer_at_once(
        self, method: bytes, target: bytes, headers: list[Header], body: bytes
    ) -> Answer | None:
        """The completed answer to an order that there is no room for, or to a loser of whom nobody
        has to be asked; `None` for all others.

        The server asks when a whole request is here (`http.protocol`), and makes nothing of it but
        what is said here: these are the crowd.
        """
        event_id = plainly_ordered_in(method, target)
        if event_id is None:
            return None
        if not self._doors.open_for_orders:
            return self._intake.refusal(dict(headers))
        return self._intake.answer_at_once(event_id, dict(headers), body)


def create_app(settings: Settings) -> Application:
    """The application; it connects when it starts, not when it is made.

    Raises `ValueError` when the settings name no way to check tokens.
    """
    if not settings.auth_is_configured:
        raise ValueError("set ONSALE_AUTH_SECRET or ONSALE_AUTH_JWKS_URL: tokens must be checked")
    service = Service.of(settings)
    authenticator = Authenticator(settings)
    api = FastAPIOffline(
        redoc_url=None,
        title="onsale",
        version=version("onsale"),
        description=_DESCRIPTION,
        lifespan=_lifespan,
        webhooks=webhooks.messages,
        # One address for each thing: a slash too many is a 404 like any other.
        redirect_slashes=False,
        # Its own spans and metrics cost more than what they are about (docs/tracing.md).
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    api.state.service = service
    api.state.authenticator = authenticator
    api.state.intake = Intake(
        authenticator,
        service.catalog,
        service.placing,
        service.paying,
        RateLimits.of(service.throttle, settings),
    )
    api.state.streams = Streams(settings.availability_streams_max)
    api.state.doors = Doors(service.placing.valve, settings.requests_in_flight_max)
    for router in (events.router, orders.router, webhooks.router, health.router):
        api.include_router(router)
    _answer_errors_as_problems(api)
    metering.instrument(api)
    openapi.tell_the_truth(api)
    if service.tracing is not None:
        from onsale.http.traced import TracedApplication

        return TracedApplication(api, api.state.intake, api.state.doors, service.tracing)
    return Application(api, api.state.intake, api.state.doors)


def create_app_from_environment() -> Application:
    """The factory that `onsale serve` gives to uvicorn: one call in each worker process."""
    settings = Settings()
    configure_logging(settings.log_level, traced=bool(settings.tracing_endpoint))
    _end_with_the_supervisor()
    return create_app(settings)


def _end_with_the_supervisor() -> None:
    """One of several processes ends when the one that started them is killed: nobody would restart
    it, and it would keep the port.
    """
    supervisor = multiprocessing.parent_process()
    if supervisor is None:
        return

    def wait_for_its_end() -> None:
        multiprocessing.connection.wait([supervisor.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait_for_its_end, daemon=True).start()


@asynccontextmanager
async def _lifespan(api: FastAPI) -> AsyncIterator[None]:
    service: Service = api.state.service
    settings = service.settings
    metrics.gate_mode.labels("redis").set(1)
    log.info("serving", port=settings.port)
    if service.tracing is not None:
        service.tracing.start("api")
    calm_garbage_collector()
    if settings.workers == 1:
        serve_metrics(settings.metrics_host, settings.metrics_port)
    background: list[asyncio.Task[None]] = [
        *([asyncio.create_task(_serve_metrics(settings))] if settings.workers > 1 else []),
        asyncio.create_task(service.catalog.keep_young()),
        asyncio.create_task(service.placing.valve.watch()),
        asyncio.create_task(watch_event_loop(service.database.report_pool)),
    ]
    doors: Doors = api.state.doors
    streams: Streams = api.state.streams

    def end() -> None:
        doors.close()
        streams.end()

    try:
        with heard_stop(end):
            yield
    finally:
        await stop(*background)
        await service.close()


async def _serve_metrics(settings: Settings) -> None:
    ports = settings.workers
    port = await serve_metrics_when_free(settings.metrics_host, settings.metrics_port, ports)
    log.info("serving metrics", metrics_port=port)


def _answer_errors_as_problems(api: FastAPI) -> None:
    @api.exception_handler(OnsaleError)
    async def ours(request: Request, error: OnsaleError) -> Response:
        return _response(request, error)

    @api.exception_handler(RequestValidationError)
    async def not_valid(request: Request, error: RequestValidationError) -> Response:
        # The first part of each place says where FastAPI looked: body, query, path, header.
        return _response(request, invalid(error.errors(), skip=1))

    @api.exception_handler(HTTPException)
    async def framework(request: Request, error: HTTPException) -> Response:
        answer = _response(request, _FRAMEWORK_ERRORS.get(error.status_code, InternalError()))
        answer.headers.update(error.headers or {})
        return answer

    @api.exception_handler(Exception)
    async def not_foreseen(request: Request, error: Exception) -> Response:
        return _response(request, InternalError())


_FRAMEWORK_ERRORS: dict[int, OnsaleError] = {
    400: InvalidRequest(FieldError("body", "not JSON that can be read")),
    404: NotFound(),
    405: MethodNotAllowed(),
    413: BodyTooLarge(),
}


def _response(request: Request, error: OnsaleError) -> Response:
    answer = problem(error, request.state.request_id)
    response = Response(answer.body, answer.status)
    response.raw_headers[:] = [
        *answer.headers,
        (b"content-length", b"%d" % len(answer.body)),
    ]
    return response
