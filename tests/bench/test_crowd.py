"""The crowd's script by what a real server receives, and the reading of what wrk prints."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import jwt
import pytest

from onsale.bench.crowd import Crowd, Driven, parse
from onsale.bench.errors import BenchError
from onsale.http.schemas import ORDER_IN
from tests.bench.wrk import needs_wrk
from tests.support import SECRET

OUTPUT = """\
Running 1s test @ http://127.0.0.1:39729/v1/events/e/orders
  1 threads and 4 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   296.66us  439.19us   7.63ms   95.12%
    Req/Sec    16.68k     1.85k   21.74k    90.91%
  Latency Distribution
     50%  199.00us
     75%  261.00us
     90%  405.00us
     99%    2.39ms
  18246 requests in 1.10s, 2.02MB read
  Non-2xx or 3xx responses: 3649
Requests/sec:  16597.10
Transfer/sec:      1.84MB
{"requests":18246,"duration_us":1099349,"p50_us":199,"p99_us":2394,"error_answers":3649,"failures":0}
"""


def test_the_output_of_wrk_is_read() -> None:
    assert parse(OUTPUT) == Driven(
        requests=18_246,
        duration_seconds=1.099349,
        p50_ms=0.199,
        p99_ms=2.394,
        error_answers=3_649,
        failures=0,
    )


@pytest.mark.parametrize(
    "output",
    [
        pytest.param("", id="nothing"),
        pytest.param(OUTPUT.rpartition("{")[0], id="without the script's line"),
        pytest.param('{"requests":1}', id="with half of it"),
    ],
)
def test_output_without_a_result_is_an_error_of_one_line(output: str) -> None:
    with pytest.raises(BenchError, match="wrk ended without a result") as raised:
        parse(output)
    assert "\n" not in str(raised.value)


class Received(NamedTuple):
    """One request as the server saw it."""

    path: str
    content_type: str
    buyer: str
    key: str
    body: bytes


@contextmanager
def server() -> Iterator[tuple[str, list[Received]]]:
    """A real server that writes down what it is asked, and refuses the orders of one buyer."""
    received: list[Received] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            token = self.headers["Authorization"].removeprefix("Bearer ")
            buyer = jwt.decode(token, SECRET, algorithms=["HS256"])["sub"]
            key = self.headers["Idempotency-Key"]
            received.append(Received(self.path, self.headers["Content-Type"], buyer, key, body))
            self.send_response(409 if buyer == "buyer-0000003" else 201)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            """Quiet."""

        def handle(self) -> None:
            try:
                super().handle()
            except ConnectionError:
                """wrk closes its connections with an answer on its way."""

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listening.daemon_threads = True
    thread = threading.Thread(target=listening.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.server_port}", received
    finally:
        listening.shutdown()
        thread.join()
        listening.server_close()


@needs_wrk
def test_every_request_has_a_buyer_and_a_key_of_its_own(tmp_path: Path) -> None:
    crowd = Crowd.of(tmp_path, SECRET, buyers=10)
    with server() as (base_url, received):
        driven = crowd.drive(
            f"{base_url}/v1/events/e/orders", first_index=7, keys=10**9, seconds=1, connections=2
        )
    keys = [request.key for request in received]
    assert len(set(keys)) == len(keys)
    assert driven.requests <= len(received) <= driven.requests + 2
    assert driven.failures == 0
    # wrk asks the script once more than it sends, so the run may begin one later than it was told.
    numbers = sorted(int(key.removeprefix("press-")) for key in keys)
    assert numbers[0] in (7, 8)
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    for request in received:
        number = int(request.key.removeprefix("press-"))
        assert request.buyer == f"buyer-{number % 10:07d}"
        assert request.path == "/v1/events/e/orders"
        assert request.content_type == "application/json"
        assert ORDER_IN.validate_json(request.body).items[0].tier_id == "ga"
    refused = sum(request.buyer == "buyer-0000003" for request in received)
    assert refused - 2 <= driven.error_answers <= refused


@needs_wrk
def test_keys_come_again_with_the_buyers_they_had(tmp_path: Path) -> None:
    crowd = Crowd.of(tmp_path, SECRET, buyers=10)
    with server() as (base_url, received):
        crowd.drive(f"{base_url}/orders", first_index=0, keys=4, seconds=1, connections=2)
    pressed = {(request.buyer, request.key) for request in received}
    assert pressed == {(f"buyer-000000{number}", f"press-{number}") for number in range(4)}


@needs_wrk
def test_nobody_at_the_address_is_an_error_of_one_line(tmp_path: Path) -> None:
    crowd = Crowd.of(tmp_path, SECRET, buyers=1)
    with pytest.raises(BenchError, match="unable to connect") as raised:
        crowd.drive("http://127.0.0.1:1/", first_index=0, keys=1, seconds=1, connections=1)
    assert "\n" not in str(raised.value)


def test_without_wrk_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(BenchError, match="apt-get install wrk") as raised:
        Crowd.of(Path("unused"), SECRET, buyers=1)
    assert "\n" not in str(raised.value)
