"""A receiver of traces: a real HTTP server on loopback that reads OTLP."""

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1 import trace_pb2

from tests.support import wait_until


@dataclass(frozen=True)
class Told:
    """One span, its ids in hexadecimal; `links` are the ids of spans."""

    process: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: str
    failed: bool
    began_ns: int
    ended_ns: int
    links: tuple[str, ...]
    attributes: dict[str, Any]

    def __str__(self) -> str:
        return json.dumps(vars(self), default=str)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Senders give up on one that hangs; that is what a test is about."""


@dataclass
class Collector:
    """A context that serves, and keeps what it is told. One that `hangs` answers nobody."""

    hangs: bool = False
    spans: list[Told] = field(default_factory=list)
    _go_on: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._server = _Server(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._go_on.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    async def heard(self, is_it: Callable[[Told], bool]) -> Told:
        """The first such span, as soon as it is there."""
        found: list[Told] = []

        async def told() -> bool:
            found[:] = filter(is_it, list(self.spans))
            return bool(found)

        await wait_until(told)
        return found[0]

    def take(self, body: bytes) -> None:
        """Keep what a request says."""
        request = ExportTraceServiceRequest.FromString(body)
        for resource in request.resource_spans:
            process = _attributes(resource.resource)["service.name"]
            for scope in resource.scope_spans:
                self.spans += [_told(process, span) for span in scope.spans]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        collector = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if collector.hangs:
                    collector._go_on.wait()
                if self.path == "/v1/traces":
                    collector.take(body)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        return Handler


def _told(process: str, span: trace_pb2.Span) -> Told:
    return Told(
        process=process,
        name=span.name,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        kind=trace_pb2.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        failed=span.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
        began_ns=span.start_time_unix_nano,
        ended_ns=span.end_time_unix_nano,
        links=tuple(link.span_id.hex() for link in span.links),
        attributes=_attributes(span),
    )


def _attributes(of: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in of.attributes}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    return getattr(value, str(kind))
