"""uvicorn's HTTP protocol with a bound for what is no body, and answers in one piece.

httptools takes addresses, headers and trailers of any length, so one connection could fill the
memory of its process. What a buyer's browser and its cookies send is far below the bound.

uvicorn makes a scope, a cycle of messages and a task of every request, which costs more than to
refuse a buyer does: an app that knows its answer when the request is here gives it at once, and
nothing is made. It sets a timer anew for every answer, where one for each connection will do. And
it writes an answer's head and its body with a system call each, and wakes the client twice.
"""

from typing import Any, NamedTuple

import httptools
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from onsale.http.answers import Answer, Header, head_of
from onsale.http.turn import Turn, TurnTransport
from onsale.observability.logging import get_logger

HEAD_BYTES_MAX = 32 * 1024

# The name of the ASGI extension that sends a finished answer: a function of an `Answer`. It says
# whether it did; if not, the usual messages have to be sent.
WHOLE_ANSWER = "onsale.whole_answer"

# Longer than a request is under way, and than most buyers take from one to the next.
_LINGER_SECONDS = 0.5

# Requests of one connection that wait for those before them; each takes some 2 KB.
_IN_LINE_MAX = 1_000

_REFUSAL = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"connection: close\r\ncontent-length: 0\r\n\r\n"
)

log = get_logger(__name__)


def _knows_nothing(method: bytes, target: bytes, headers: list[Header], body: bytes) -> None:
    """For apps that have no `answer_at_once`."""


def _reads_everything(data: bytes) -> None:
    """For apps that have no `refuse_unread`."""


class _Head(NamedTuple):
    target: bytes
    headers: list[Header]
    expects_100_continue: bool


class _Lines:
    """uvicorn's own headers as lines, which change once a second."""

    def __init__(self) -> None:
        self._headers: list[Header] | None = None
        self._lines = b""

    def of(self, headers: list[Header]) -> bytes:
        """The lines of the list; the same list has the same lines."""
        if headers is not self._headers:
            self._headers, self._lines = headers, head_of(headers)
        return self._lines


_lines = _Lines()


class BoundedHttpProtocol(HttpToolsProtocol):
    """Answers 431 and hangs up on a request whose head, or what follows its body, has no end."""

    transport: TurnTransport

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._turn = Turn.of(self.loop)
        # Of what is no body.
        self._head_bytes = 0
        self._extensions = {WHOLE_ANSWER: self._send_whole}
        self._answering: RequestResponseCycle | None = None
        self._answer_at_once = getattr(self.app, "answer_at_once", _knows_nothing)
        self._refuse_unread = getattr(self.app, "refuse_unread", _reads_everything)
        # The parser is where a message begins.
        self._between_messages = True
        # A request of which nothing was made yet, and its body so far.
        self._held: _Head | None = None
        self._body = b""
        # Nobody is to be served with what is left of the message.
        self._ignores = False
        self._lingers = False
        # Since when nobody is served, of the event loop's clock; `None` while somebody is.
        self._idle_since_seconds: float | None = None

    # -- a request, as it is read

    def data_received(self, data: bytes) -> None:
        self._turn.serve_soon(self.transport, self._read, data)

    def eof_received(self) -> Any:
        """He says no more: who asked before is answered before he is hung up on, if that is soon.
        Who has left altogether sends the same. Whether to keep the connection meanwhile.
        """
        self._turn.serve()
        if self._serves:
            self.loop.call_later(_LINGER_SECONDS, self.transport.close)
            return True
        self.transport.flush()
        return False

    def _read(self, data: bytes) -> None:
        if self._between_messages and self._refused_unread(data):
            return
        # What was counted before this piece was all head; the piece itself may hold the head's end.
        if self._head_bytes > HEAD_BYTES_MAX:
            self.transport.write(_REFUSAL)
            self.transport.close()
            return
        self._head_bytes += len(data)
        super().data_received(data)
        if self._held is not None:
            # The rest of its body is still to come.
            self._serve()

    def on_message_begin(self) -> None:
        self._between_messages = False
        self._head_bytes = 0
        self._ignores = False
        self.url, self.headers, self.expect_100_continue = b"", [], False

    def on_headers_complete(self) -> None:
        self._held, self._body = _Head(self.url, self.headers, self.expect_100_continue), b""
        # Trailers are nobody's headers: who sits in front of us may have looked at the head alone.
        self.headers = []
        if self.parser.should_upgrade():
            self._serve()

    def on_body(self, body: bytes) -> None:
        self._head_bytes = 0
        if self._held is not None:
            self._body += body
        elif not self._ignores:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._between_messages = True
        self._head_bytes = 0
        if self._held is not None:
            if self._answered_at_once(self._held):
                self._held, self._body = None, b""
                return
            self._serve()
        if not self._ignores:
            super().on_message_complete()

    # -- what becomes of it

    def _refused_unread(self, data: bytes) -> bool:
        if self._serves or self.flow.write_paused or self.transport.is_closing():
            return False
        answer = self._refuse_unread(data)
        if answer is None:
            return False
        self._write(answer, self.server_state.default_headers, not self._lingers)
        self.on_response_complete()
        return True

    def _answered_at_once(self, head: "_Head") -> bool:
        if self.transport.is_closing():
            return True  # nobody would hear
        if self._serves or self.flow.write_paused:
            return False
        method = self.parser.get_method()
        try:
            answer = self._answer_at_once(method, head.target, head.headers, self._body)
        except Exception:
            log.exception("not answered at once", method=method, target=head.target)
            return False
        if answer is None:
            return False
        lasts = self.parser.should_keep_alive() and self.parser.get_http_version() != "1.0"
        self._write(answer, self.server_state.default_headers, lasts and not self._lingers)
        self.on_response_complete()
        return True

    def _serve(self) -> None:
        """Let the request that was held go uvicorn's way."""
        assert self._held is not None
        (target, headers, expects), self._held = self._held, None
        body, self._body = self._body, b""
        if self.transport.is_closing():
            self._ignores = True
            return
        if len(self.pipeline) >= _IN_LINE_MAX:
            # Whoever asks and asks and does not listen would fill the memory.
            self._ignores = True
            self.transport.close()
            return
        trailers = self.headers
        super().on_message_begin()
        self.url, self.expect_100_continue = target, expects
        self.headers.extend(headers)
        try:
            super().on_headers_complete()
        except (httptools.HttpParserError, AttributeError):
            # The target is none, or has no path.
            self._ignores = True
            self.send_400_response("Invalid HTTP request received.")
            return
        self.headers = trailers
        if self.parser.should_upgrade():
            # Nobody speaks another protocol here, and what follows is not read as if it were ours.
            self.cycle.keep_alive = False
        if body:
            super().on_body(body)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        # One request of a connection at a time; others wait in line behind it.
        self._answering = cycle
        self._idle_since_seconds = None
        if self._lingers:
            cycle.keep_alive = False
        cycle.scope["extensions"] = self._extensions  # type: ignore[typeddict-item]
        super()._start_asgi_task(cycle, app)

    def _send_whole(self, answer: Answer) -> bool:
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
        cycle.waiting_for_100_continue = False
        cycle.response_started = cycle.response_complete = True
        self._write(answer, cycle.default_headers, cycle.keep_alive)
        cycle.message_event.set()
        cycle.on_response()
        return True

    def _write(self, answer: Answer, more: list[Header], keep_alive: bool) -> None:
        status, head, body = answer
        end = b"\r\n" if keep_alive else b"connection: close\r\n\r\n"
        self.transport.write(b"".join((STATUS_LINE[status], _lines.of(more), head, end, body)))
        if not keep_alive:
            self.transport.close()

    @property
    def _serves(self) -> bool:
        """Whether somebody is served, behind whom others wait in line."""
        return self.cycle is not None and not self.cycle.response_complete

    # -- a connection, from its beginning to its end

    def connection_made(self, transport: Any) -> None:
        super().connection_made(TurnTransport(transport, self._turn))
        self._begin_to_idle()

    def on_response_complete(self) -> None:
        """What uvicorn does then, but for the timer."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        else:
            self._begin_to_idle()

    def _begin_to_idle(self) -> None:
        self._idle_since_seconds = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._wait_for_the_next(self.timeout_keep_alive)

    def _unset_keepalive_if_required(self) -> None:
        """Called for every piece that is read: with uvicorn, who sends one byte now and then keeps
        his connection.
        """

    def _wait_for_the_next(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(
            seconds, self.timeout_keep_alive_handler
        )

    def timeout_keep_alive_handler(self) -> None:
        """Hang up on a client who has not come to the end of a head in so long; who has been served
        since has the rest of the time.
        """
        self.timeout_keep_alive_task = None
        # Who has asked in this very turn has come in time.
        self._turn.serve()
        if self._idle_since_seconds is None:
            return  # the end of the answer will set the timer
        left_seconds = self._idle_since_seconds + self.timeout_keep_alive - self.loop.time()
        if left_seconds > 0:
            self._wait_for_the_next(left_seconds)
        else:
            super().timeout_keep_alive_handler()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of what refers back to here: a crowd's connections, each with the requests on it,
        would fill the memory until the collector comes, and it comes seldom.
        """
        super().connection_lost(exc)
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = None
        if self._answering is not None:
            # uvicorn tells the newest request, which may be in line behind this one.
            self._answering.disconnected = True
            self._answering.message_event.set()
        self.pipeline.clear()
        self._extensions = {}
        self._answering = None
        self.cycle = self.scope = None  # type: ignore[assignment]

    def shutdown(self) -> None:
        """Told to stop. uvicorn hangs up on idle connections at once, also on a buyer whose request
        is on its way; here they have a moment in which it is refused with a word.
        """
        if self.cycle is None or self.cycle.response_complete:
            self._lingers = True
            self.loop.call_later(_LINGER_SECONDS, self._shut_down)
        else:
            super().shutdown()

    def _shut_down(self) -> None:
        # Who has asked in this very turn has come in time.
        self._turn.serve()
        super().shutdown()
