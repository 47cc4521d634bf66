"""The crowd's script by what a real server receives, and the reading of what wrk prints."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import jwt
import pytest

from onsale.bench.crowd import Cells, Crowd, Driven, Request, buyer_id, key_of, parse
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
{"requests":18246,"duration_us":1099349,"p50_us":199,"p99_us":2394,"late_p99_us":31,\
"error_answers":3649,"failures":0}
"""


def test_the_output_of_wrk_is_read() -> None:
    assert parse(OUTPUT) == Driven(
        requests=18_246,
        duration_seconds=1.099349,
        p50_ms=0.199,
        p99_ms=2.394,
        late_p99_ms=0.031,
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


@dataclass
class Crowded:
    """A real server that writes down what it is asked, and refuses the orders of one buyer.

    Answers wait until so many requests wait for one at once.
    """

    base_url: str
    together: threading.Barrier
    received: list[Received] = field(default_factory=list)


@contextmanager
def server(together: int = 1) -> Iterator[Crowded]:
    """A server whose first answers wait until `together` requests wait for theirs."""
    crowded = Crowded("", threading.Barrier(together))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            token = self.headers["Authorization"].removeprefix("Bearer ")
            buyer = jwt.decode(token, SECRET, algorithms=["HS256"])["sub"]
            key = self.headers["Idempotency-Key"]
            content_type = self.headers["Content-Type"]
            crowded.received.append(Received(self.path, content_type, buyer, key, body))
            with suppress(threading.BrokenBarrierError):
                crowded.together.wait()
                crowded.together.abort()  # they were together once: nobody waits any more
            self.send_response(409 if buyer == "buyer-0000003" else 201)
            self.send_header("Content-Length", "0")
            if "X-Request-Id" in self.headers:
                self.send_header("x-request-id", self.headers["X-Request-Id"])
            self.end_headers()

        def log_message(self, *args: object) -> None:
            """Quiet."""

        def handle(self) -> None:
            try:
                super().handle()
            except ConnectionError:
                """wrk closes its connections with an answer on its way."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

    listening = Server(("127.0.0.1", 0), Handler)
    crowded.base_url = f"http://127.0.0.1:{listening.server_port}"
    thread = threading.Thread(target=listening.serve_forever)
    thread.start()
    try:
        yield crowded
    finally:
        crowded.together.abort()
        listening.shutdown()
        thread.join()
        listening.server_close()


BODY = '{"items":[{"tier_id":"ga","quantity":1}]}'


def request_at(base_url: str, folder: Path, paths: Sequence[str] = ("/orders",)) -> Request:
    return Request(base_url, Cells.write(folder / "paths", paths), BODY)


@needs_wrk
def test_every_request_has_a_buyer_and_a_key_of_its_own(tmp_path: Path) -> None:
    crowd = Crowd.of(tmp_path, SECRET, buyers=10)
    with server() as crowded:
        request = request_at(crowded.base_url, tmp_path, ["/v1/events/e/orders"])
        driven = crowd.drive(request, first_index=7, keys=10**9, seconds=1, connections=2)
    received = crowded.received
    keys = [one.key for one in received]
    assert len(set(keys)) == len(keys)
    assert driven.requests <= len(received) <= driven.requests + 2
    assert driven.failures == driven.late_p99_ms == 0
    # wrk asks the script once more than it sends, so the run may begin one later than it was told.
    numbers = sorted(int(key.removeprefix("press-")) for key in keys)
    assert numbers[0] in (7, 8)
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    for one in received:
        number = int(one.key.removeprefix("press-"))
        assert (one.buyer, one.key) == (buyer_id(number % 10), key_of(number))
        assert one.path == "/v1/events/e/orders"
        assert one.content_type == "application/json"
        assert ORDER_IN.validate_json(one.body).items[0].tier_id == "ga"
    refused = sum(one.buyer == "buyer-0000003" for one in received)
    assert refused - 2 <= driven.error_answers <= refused


@needs_wrk
def test_keys_come_again_with_the_buyers_and_paths_they_had(tmp_path: Path) -> None:
    crowd = Crowd.of(tmp_path, SECRET, buyers=10)
    with server() as crowded:
        request = request_at(crowded.base_url, tmp_path, ["/even", "/odd!"])
        crowd.drive(request, first_index=0, keys=4, seconds=1, connections=2)
    assert {(one.buyer, one.key, one.path) for one in crowded.received} == {
        (buyer_id(0), "press-0", "/even"),
        (buyer_id(1), "press-1", "/odd!"),
        (buyer_id(2), "press-2", "/even"),
        (buyer_id(3), "press-3", "/odd!"),
    }


@needs_wrk
@pytest.mark.parametrize("waiting", [1, 20], ids=["quick answers", "slow answers"])
def test_in_an_open_loop_arrivals_are_as_many_as_they_are(tmp_path: Path, waiting: int) -> None:
    """However quick the answers are, nobody sends more for it; and when the first answer is there
    only once twenty wait for theirs, nobody sends less. A closed loop of so many connections sends
    several times as much in one case, and one of a few connections stands still in the other.
    """
    crowd = Crowd.of(tmp_path, SECRET, buyers=10)
    with server(together=waiting) as crowded:
        crowd.drive(
            request_at(crowded.base_url, tmp_path),
            first_index=0,
            keys=10**9,
            seconds=1,
            connections=64,
            arrivals_per_second=60,
        )
    assert 20 <= len(crowded.received) <= 100


@needs_wrk
def test_what_an_open_loop_sends_late_is_told(tmp_path: Path) -> None:
    """One connection, and an answer that does not come while hundreds are due."""
    crowd = Crowd.of(tmp_path, SECRET, buyers=10)
    with server(together=2) as crowded:
        threading.Timer(0.5, crowded.together.abort).start()
        driven = crowd.drive(
            request_at(crowded.base_url, tmp_path),
            first_index=0,
            keys=10**9,
            seconds=1,
            connections=1,
            arrivals_per_second=500,
        )
    assert driven.requests > 0
    assert driven.late_p99_ms > 100


@needs_wrk
def test_orders_that_were_placed_are_timed_from_when_they_were_due(tmp_path: Path) -> None:
    """The first answer takes half a second, for which all who are due meanwhile wait: more than one
    in a hundred. Seen red with the time taken from the sending.
    """
    crowd = Crowd.of(tmp_path, SECRET, buyers=10)
    with server(together=2) as crowded:
        threading.Timer(0.5, crowded.together.abort).start()
        asked = request_at(crowded.base_url, tmp_path)
        driven = crowd.drive(
            asked,
            first_index=0,
            keys=3,
            seconds=1,
            connections=1,
            arrivals_per_second=500,
            times_placed=True,
        )
    assert driven.placed_p99_ms > 300


@needs_wrk
def test_nobody_at_the_address_is_an_error_of_one_line(tmp_path: Path) -> None:
    crowd = Crowd.of(tmp_path, SECRET, buyers=1)
    request = request_at("http://127.0.0.1:1", tmp_path)
    with pytest.raises(BenchError, match="unable to connect") as raised:
        crowd.drive(request, first_index=0, keys=1, seconds=1, connections=1)
    assert "\n" not in str(raised.value)


def test_without_wrk_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(BenchError, match="apt-get install wrk") as raised:
        Crowd.of(Path("unused"), SECRET, buyers=1)
    assert "\n" not in str(raised.value)
