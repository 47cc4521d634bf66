"""uvicorn's HTTP protocol with a bound for what is no body, and answers in one piece.

httptools takes addresses, headers and trailers of any length, so one connection could fill the
memory of its process. What a buyer's browser and its cookies send is far below the bound.

uvicorn writes an answer's head and its body with a system call each, and wakes the client twice:
that is a tenth of what it costs to refuse a buyer. And it makes a task for every request, which
costs more than the refusal: an app that knows its answer when the request is here gives it at once.
"""

from collections.abc import Sequence
from typing import Any

from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

HEAD_BYTES_MAX = 32 * 1024

# The name of the ASGI extension that sends a finished answer: a function of status, headers and
# body. It says whether it did; if not, the usual messages have to be sent.
WHOLE_ANSWER = "onsale.whole_answer"

# Longer than a request is under way, and than most buyers take from one to the next.
_LINGER_SECONDS = 0.5

_REFUSAL = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"connection: close\r\ncontent-length: 0\r\n\r\n"
)


def _refuse_nobody(scope: object) -> None:
    """For apps that have no `refusal`."""


def _knows_nobody(scope: object) -> None:
    """For apps that have no `knows` and no `answer_from_memory`."""


class BoundedHttpProtocol(HttpToolsProtocol):
    """Answers 431 and hangs up on a request whose head, or what follows its body, has no end."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Of what is no body.
        self._head_bytes = 0
        self._extensions = {WHOLE_ANSWER: self._send_whole}
        self._answering: RequestResponseCycle | None = None
        self._refusal = getattr(self.app, "refusal", _refuse_nobody)
        self._knows = getattr(self.app, "knows", _knows_nobody)
        # A request that is held back while what came with its head is read, and what the app knows.
        self._reading = False
        self._held: tuple[RequestResponseCycle, Any, Any] | None = None
        self._lingers = False

    def data_received(self, data: bytes) -> None:
        # What was counted before this piece was all head; the piece itself may hold the head's end.
        if self._head_bytes > HEAD_BYTES_MAX:
            self.transport.write(_REFUSAL)
            self.transport.close()
            return
        self._head_bytes += len(data)
        self._reading = True
        super().data_received(data)
        # Its answer may let the next one begin, which came in the same piece.
        while self._held is not None:
            self._answer_from_memory()
        self._reading = False

    def _answer_from_memory(self) -> None:
        """Answer the request that was held back, or let it go the ordinary way."""
        assert self._held is not None
        (cycle, app, known), self._held = self._held, None
        answer = None
        if not cycle.more_body:
            answer = self.app.answer_from_memory(known, cycle.scope, bytes(cycle.body))
        if answer is None or not self._send_whole(*answer):
            super()._start_asgi_task(cycle, app)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        # One request of a connection at a time; others wait in line behind it.
        self._answering = cycle
        if self._lingers:
            cycle.keep_alive = False
        # Who pipelined has a task each: to be refused here, one out of the other, nests too deep.
        refusal = None if self.pipeline else self._refusal(cycle.scope)
        if refusal is not None and self._send_whole(*refusal):
            return
        cycle.scope["extensions"] = self._extensions  # type: ignore[typeddict-item]
        known = self._knows(cycle.scope) if self._reading and not self.pipeline else None
        if known is None:
            super()._start_asgi_task(cycle, app)
        else:
            self._held = cycle, app, known

    def _send_whole(self, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> bool:
        """What uvicorn's `send` does for a start and a body; the headers say the body's length."""
        cycle = self._answering
        if cycle is None:
            return True  # the client is gone
        if cycle.response_started or self.flow.write_paused or cycle.scope["method"] == "HEAD":
            return False
        if cycle.disconnected or self.transport.is_closing():
            # It leaves, which uvicorn hears a moment later and would miss an answer until then.
            cycle.disconnected = True
            return True
        parts = [STATUS_LINE[status]]
        for name, value in (*cycle.default_headers, *headers):
            parts += (name, b": ", value, b"\r\n")
        if not cycle.keep_alive:
            parts.append(b"connection: close\r\n")
        parts += (b"\r\n", body)
        cycle.waiting_for_100_continue = False
        cycle.response_started = cycle.response_complete = True
        self.transport.write(b"".join(parts))
        cycle.message_event.set()
        if not cycle.keep_alive:
            self.transport.close()
        cycle.on_response()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of what refers back to here: a crowd's connections, each with the requests on it,
        would fill the memory until the collector comes, and it comes seldom.
        """
        super().connection_lost(exc)
        if self._answering is not None:
            # uvicorn tells the newest request, which may be in line behind this one.
            self._answering.disconnected = True
            self._answering.message_event.set()
        self.pipeline.clear()
        self._extensions = {}
        self._answering = self._held = None
        self.cycle = self.scope = None  # type: ignore[assignment]

    def shutdown(self) -> None:
        """Told to stop. uvicorn hangs up on idle connections at once, also on a buyer whose request
        is on its way; here they have a moment in which it is refused with a word.
        """
        if self.cycle is None or self.cycle.response_complete:
            self._lingers = True
            self.loop.call_later(_LINGER_SECONDS, super().shutdown)
        else:
            super().shutdown()

    def on_message_begin(self) -> None:
        self._head_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        # Trailers are nobody's headers: who sits in front of us may have looked at the head alone.
        self.headers = []

    def on_body(self, body: bytes) -> None:
        self._head_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._head_bytes = 0
