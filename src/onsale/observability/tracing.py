"""Traces: a few spans made by hand, of a few requests, sent by OTLP over HTTP.

Whether a request is traced is decided once, when it comes in, and without OpenTelemetry: all others
meet a look at their headers and nothing more. Nobody imports this module unless
`ONSALE_TRACING_ENDPOINT` is set.

Spans name events, never a buyer, a token or a key; errors are named by their kind, for their
messages may hold anything.
"""

import asyncio
import os
import random
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from importlib.metadata import version
from threading import Thread
from time import monotonic
from typing import Any

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    Link,
    NoOpTracer,
    Span,
    SpanKind,
    StatusCode,
    Tracer,
    format_span_id,
    format_trace_id,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from onsale.settings import Settings

# Encoding holds the interpreter, and the event loop with it: little at a time, 2 ms or so.
_EXPORT_SPANS_MAX = 64
_EXPORT_DELAY_MS = 1_000
# Beyond it spans are dropped: memory is bounded, whatever the receiver does.
_QUEUE_SPANS_MAX = 2_048
_EXPORT_SECONDS_MAX = 5.0
# For what is left when the process ends.
_CLOSE_SECONDS_MAX = 1.0

_TRACEPARENT = b"traceparent"
# Below nothing: the span begins a trace.
ROOT = Context()

Attributes = Mapping[str, str | int | float | bool | Sequence[str]]

# The span that this task works for, if it works for one that is sampled.
_current: ContextVar[Span | None] = ContextVar("onsale_span", default=None)


def current() -> Span | None:
    """The span that is open here; `None` in everything that is not sampled."""
    return _current.get()


def leave() -> None:
    """Work for nobody's span any more: of tasks that got somebody's context by chance."""
    _current.set(None)


def trace_id_of(span: Span) -> str:
    """32 hexadecimal digits."""
    return format_trace_id(span.get_span_context().trace_id)


def add_trace_ids(logger: object, method: str, event: Any) -> Any:
    """A processor of structlog: says to which span a line belongs, where there is one."""
    span = current()
    if span is not None:
        event["trace_id"] = trace_id_of(span)
        event["span_id"] = format_span_id(span.get_span_context().span_id)
    return event


class Pace:
    """Lets so many through a second, one by one and not all at its beginning."""

    def __init__(self, per_second_max: float) -> None:
        self._interval_seconds = 1 / per_second_max
        self._next_seconds = 0.0

    def allows(self) -> bool:
        """Whether this one goes through."""
        now_seconds = monotonic()
        if now_seconds < self._next_seconds:
            return False
        self._next_seconds = now_seconds + self._interval_seconds
        return True


class Tracing:
    """One process's traces. It records from `start` on; `sample_share` is of the requests, of which
    `per_second_max` are taken.
    """

    def __init__(self, endpoint: str, sample_share: float, per_second_max: float) -> None:
        self._endpoint = f"{endpoint.rstrip('/')}/v1/traces"
        self._sample_share = sample_share
        self._tracer: Tracer = NoOpTracer()
        self._provider: TracerProvider | None = None
        self._chosen = Pace(per_second_max)
        # Callers who ask for a trace may be anybody: they can neither have everything traced nor
        # take the places of those that are chosen here.
        self._asked = Pace(per_second_max)

    @classmethod
    def of(cls, settings: Settings) -> "Tracing":
        """By the settings, which name an endpoint."""
        return cls(
            settings.tracing_endpoint,
            settings.tracing_sample_share,
            settings.tracing_requests_per_second_max,
        )

    # -- its life

    def start(self, process: str) -> None:
        """Record and send from now on, in the name of a kind of process."""
        resource = Resource.create(
            {
                "service.name": f"onsale-{process}",
                "service.version": version("onsale"),
                "service.instance.id": f"{socket.gethostname()}:{os.getpid()}",
            }
        )
        # Whom to trace is decided here, not by OpenTelemetry.
        self._provider = TracerProvider(ALWAYS_ON, resource, shutdown_on_exit=False)
        self._provider.add_span_processor(
            BatchSpanProcessor(
                OTLPSpanExporter(self._endpoint, timeout=_EXPORT_SECONDS_MAX),
                max_queue_size=_QUEUE_SPANS_MAX,
                schedule_delay_millis=_EXPORT_DELAY_MS,
                max_export_batch_size=_EXPORT_SPANS_MAX,
            )
        )
        self._tracer = self._provider.get_tracer("onsale", version("onsale"))

    async def close(self) -> None:
        """Send what is left, if the receiver takes it in a moment."""
        if self._provider is None:
            return
        loop, sent = asyncio.get_running_loop(), asyncio.Event()

        def shut_down(provider: TracerProvider) -> None:
            provider.shutdown()
            # The loop may have had no time for this, and be gone.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(sent.set)

        # A thread that nobody waits for, whatever the receiver does.
        Thread(target=shut_down, args=(self._provider,), daemon=True).start()
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS_MAX):
                await sent.wait()
        self._provider = None

    # -- whom to trace

    def chosen(self) -> bool:
        """Whether to trace this one, about whom nobody has asked."""
        return random.random() < self._sample_share and self._chosen.allows()

    def parent_of(self, headers: Iterable[tuple[bytes, bytes]]) -> Context | None:
        """Below what the span of a request goes; `None` for a request that is not traced.

        A caller's trace goes on here if the caller says that it is sampled.
        """
        for name, value in headers:
            if name == _TRACEPARENT:
                caller = _context_of(value)
                if caller is not None:
                    return caller if self._heeds(caller) else None
                break
        return ROOT if self.chosen() else None

    def _heeds(self, caller: Context) -> bool:
        sampled = get_current_span(caller).get_span_context().trace_flags.sampled
        return sampled and self._asked.allows()

    # -- spans

    @contextmanager
    def span(
        self,
        name: str,
        parent: Context | None = None,
        *,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Attributes | None = None,
        links: Sequence[Span] = (),
        started_ns: int | None = None,
    ) -> Iterator[Span]:
        """A span that is open, and the current one meanwhile. It is below the current one unless a
        parent is given, and begins now unless at a time of the wall clock.
        """
        span = self._tracer.start_span(
            name,
            below(current()) if parent is None else parent,
            kind,
            attributes,
            [Link(other.get_span_context()) for other in links],
            started_ns,
        )
        token = _current.set(span)
        try:
            yield span
        except BaseException as error:
            span.set_status(StatusCode.ERROR)
            span.set_attribute("error.type", type(error).__name__)
            raise
        finally:
            _current.reset(token)
            span.end()


def below(span: Span | None) -> Context:
    """The context of what a span is the parent of."""
    return ROOT if span is None else set_span_in_context(span, ROOT)


def _context_of(traceparent: bytes) -> Context | None:
    """The caller's span by W3C Trace Context; `None` when the header says nothing."""
    carrier = {"traceparent": traceparent.decode("latin-1")}
    context = TraceContextTextMapPropagator().extract(carrier, ROOT)
    return context if get_current_span(context).get_span_context().is_valid else None
