"""A receiver of webhooks: a real HTTP server on loopback that keeps what it is sent."""

import json
import ssl
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from standardwebhooks import Webhook


@dataclass(frozen=True)
class Received:
    """One request, as it came; header names in lower case."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def message(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found

    def verified(self, secret: str) -> dict[str, Any]:
        """The message, after the specification's own library has checked its signature."""
        found: dict[str, Any] = Webhook(secret).verify(self.body, self.headers)
        return found


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # The default refuses the sixth who comes at once.
    request_queue_size = 256

    def handle_error(self, request: object, client_address: object) -> None:
        """Senders leave before they are answered; that is what some tests are about."""


@dataclass
class Receiver:
    """A context that serves. It answers with `statuses` in turn and with the last of them from then
    on; one that `hangs` takes requests and answers none before it is left, or told to `go_on`.
    """

    statuses: list[int] = field(default_factory=lambda: [200])
    hangs: bool = False
    answer_headers: dict[str, str] = field(default_factory=dict)
    answer_body: bytes = b""
    ssl_context: ssl.SSLContext | None = None
    received: list[Received] = field(default_factory=list)
    connections: int = 0
    _may_answer: threading.Event = field(default_factory=threading.Event)
    _taking: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> Self:
        self._server = _Server(("127.0.0.1", 0), self._handler())
        if self.ssl_context is not None:
            self._server.socket = self.ssl_context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        if not self.hangs:
            self.go_on()
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.go_on()
        self._server.shutdown()
        self._server.server_close()

    @property
    def port(self) -> int:
        return int(self._server.server_port)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    def go_on(self) -> None:
        """Answer, those who wait as well."""
        self._may_answer.set()

    def kinds(self) -> list[str]:
        """What was told, in no particular order."""
        return sorted(received.message["type"] for received in self.received)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                receiver.connections += 1

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                with receiver._taking:
                    number = len(receiver.received)
                    receiver.received.append(Received(self.path, headers, body))
                receiver._may_answer.wait()
                status = receiver.statuses[min(number, len(receiver.statuses) - 1)]
                answer = {"Content-Length": str(len(receiver.answer_body))}
                self.send_response(status)
                for name, value in (answer | receiver.answer_headers).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(receiver.answer_body)

            def log_message(self, *_: object) -> None:
                pass

        return Handler
