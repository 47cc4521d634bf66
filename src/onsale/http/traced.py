"""The application where tracing is on: a span for each request that is chosen, told of what its
client was told.
"""

import json
import re
from contextlib import suppress
from http import HTTPStatus
from time import perf_counter, time_ns
from typing import Any

from fastapi import FastAPI
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, StatusCode

from onsale.http.answers import Answer, Header, head_of
from onsale.http.app import Application
from onsale.http.doors import Doors
from onsale.http.intake import ROUTE, Intake, ordered_in
from onsale.http.middleware import Message, Receive, Scope, Send
from onsale.http.protocol import WHOLE_ANSWER
from onsale.observability import metrics
from onsale.observability.tracing import Attributes, Tracing, trace_id_of

# Asked every few seconds by machines; and a stream lasts for as long as somebody looks.
_UNTRACED = ("/healthz", "/readyz", "/stream")
_NANOSECONDS_PER_SECOND = 1_000_000_000
_EVENT = re.compile(r"/v1/events/([0-9a-f]{32})(?:/|$)")


class TracedApplication(Application):
    """See the module. Whoever is not chosen is served as by `Application`."""

    def __init__(self, api: FastAPI, intake: Intake, doors: Doors, tracing: Tracing) -> None:
        super().__init__(api, intake, doors)
        self._tracing = tracing

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        parent = self._parent_of(scope)
        if parent is None:
            await super()._serve(scope, receive, send)
            return
        heard = Heard(send)
        scope = heard.listening(scope)
        started = perf_counter()
        with self._tracing.span(scope["method"], parent, kind=SpanKind.SERVER) as span:
            try:
                await super()._serve(scope, receive, heard.send)
            finally:
                _describe(span, scope, heard.answer, perf_counter() - started)

    def refusal(self, scope: Scope) -> Answer | None:
        """See `Application.refusal`."""
        started = perf_counter()
        answer = super().refusal(scope)
        return answer and self._answered_at_once(scope, answer, started)

    def refuse_unread(self, data: bytes) -> Answer | None:
        """Nobody: whether an order is traced is said in its headers."""
        return None

    def answer_at_once(
        self, method: bytes, target: bytes, headers: list[Header], body: bytes
    ) -> Answer | None:
        """See `Application.answer_at_once`."""
        started = perf_counter()
        answer = super().answer_at_once(method, target, headers, body)
        if answer is None:
            return None
        # A target that is answered at once is all path, and nothing in it is encoded.
        scope = {"method": method.decode(), "path": target.decode(), "headers": headers}
        return self._answered_at_once(scope, answer, started)

    def _answered_at_once(self, scope: Scope, answer: Answer, started: float) -> Answer:
        parent = self._parent_of(scope)
        if parent is not None:
            seconds = perf_counter() - started
            with self._tracing.span(
                scope["method"],
                parent,
                kind=SpanKind.SERVER,
                started_ns=time_ns() - int(seconds * _NANOSECONDS_PER_SECOND),
            ) as span:
                _describe(span, scope, answer, seconds)
        return answer

    def _parent_of(self, scope: Scope) -> Context | None:
        watched = not scope["path"].endswith(_UNTRACED)
        return self._tracing.parent_of(scope["headers"]) if watched else None


class Heard:
    """What a client is told: `answer`, as far as it was sent. `send` is to be used instead of the
    one given.
    """

    def __init__(self, send: Send) -> None:
        self.answer = Answer(0, b"", b"")
        self._send = send

    def listening(self, scope: Scope) -> Scope:
        """The scope to be used instead of this one. It refers to here, and must not be kept here:
        a request that refers to itself waits for the garbage collector, with its connection.
        """
        send_whole = scope.get("extensions", {}).get(WHOLE_ANSWER)
        if send_whole is None:
            return scope

        def hear_whole(answer: Answer) -> Any:
            self.answer = answer
            return send_whole(answer)

        return {**scope, "extensions": {WHOLE_ANSWER: hear_whole}}

    async def send(self, message: Message) -> None:
        """Pass a message on; of a body its first piece is remembered, which a problem has only."""
        if message["type"] == "http.response.start":
            self.answer = Answer(message["status"], head_of(message["headers"]), b"")
        elif not self.answer.body:
            self.answer = self.answer._replace(body=message.get("body", b""))
        await self._send(message)


def _describe(span: Span, scope: Scope, answer: Answer, seconds: float) -> None:
    """Say what was asked and answered, and show the span beside the histogram of all requests."""
    method, route, status = scope["method"], _route_of(scope), answer.status
    span.set_attribute("http.request.method", method)
    if event := _EVENT.match(scope["path"]):
        span.set_attribute("onsale.event_id", event[1])
    if route is not None:
        span.update_name(f"{method} {route}")
        span.set_attribute("http.route", route)
    if not status:
        # The client went away before it was answered.
        return
    span.set_attributes({"http.response.status_code": status, **_outcome(answer)})
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        span.set_status(StatusCode.ERROR)
    if route is not None:
        metrics.http_request_duration_seconds.labels(
            method, route, f"{status // 100}xx"
        ).set_exemplar(seconds, {"trace_id": trace_id_of(span)})


def _route_of(scope: Scope) -> str | None:
    """The template of the route that answered; `None` where there is none for this method."""
    if ordered_in(scope["method"], scope["path"]) is not None:
        return ROUTE
    route = scope.get("route")
    if scope["method"] not in (getattr(route, "methods", None) or ()):
        return None
    path: str | None = getattr(route, "path", None)
    return path


def _outcome(answer: Answer) -> Attributes:
    """The code of a problem; of an order, whether it was there before."""
    if answer.status >= HTTPStatus.BAD_REQUEST:
        with suppress(ValueError, KeyError):
            return {"onsale.code": str(json.loads(answer.body)["code"])}
        return {}
    replayed = b"idempotent-replayed" in dict(answer.headers)
    return {"onsale.replayed": True} if replayed else {}
