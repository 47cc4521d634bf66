"""A receiver of webhooks that is as receivers are: it remembers what it took, and sometimes it
does not say so.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import NamedTuple

# It takes a message and breaks the connection; it takes none and says so.
_FORGETS_TO_ANSWER_EVERY = 37
_IS_BUSY_EVERY = 19


class Message(NamedTuple):
    """What it was told: under which id, that which order entered which status."""

    id: str
    order_id: str
    status: str


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request: object, client_address: object) -> None:
        """Senders are killed, frozen and cut off, and that is no error of the receiver's."""


@dataclass(frozen=True, slots=True)
class Receiver:
    """Where it is, and every message it took, more than once if it was sent more than once."""

    url: str
    messages: list[Message] = field(default_factory=list)


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A receiver on the loopback, in threads of its own."""
    server = _Server(("127.0.0.1", 0), BaseHTTPRequestHandler)
    receiver = Receiver(f"http://127.0.0.1:{server.server_port}/")
    server.RequestHandlerClass = _handler(receiver.messages)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()


def _handler(messages: list[Message]) -> type[BaseHTTPRequestHandler]:
    numbers = count(1)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            number = next(numbers)
            if number % _IS_BUSY_EVERY == 0:
                self._answer(HTTPStatus.SERVICE_UNAVAILABLE)
                return
            status = body["type"].removeprefix("order.")
            messages.append(Message(self.headers["webhook-id"], body["data"]["id"], status))
            if number % _FORGETS_TO_ANSWER_EVERY == 0:
                self.close_connection = True
                return
            self._answer(HTTPStatus.NO_CONTENT)

        def _answer(self, status: HTTPStatus) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    return Handler
