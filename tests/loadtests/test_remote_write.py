"""Who does not take samples is told so before the load begins."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from onsale.embedded import free_port
from onsale.loadtests import LoadTestError
from onsale.loadtests.remote_write import RemoteWriter, _snappy, _varint


class WithoutReceiver(BaseHTTPRequestHandler):
    """Answers as Prometheus does without --web.enable-remote-write-receiver."""

    def do_POST(self) -> None:
        """404."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_error(404)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


def test_a_prometheus_without_the_receiver_is_told_what_it_lacks() -> None:
    with HTTPServer(("127.0.0.1", 0), WithoutReceiver) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with (
            RemoteWriter(f"http://127.0.0.1:{server.server_port}/", {"testid": "t"}) as writer,
            pytest.raises(LoadTestError, match=r"web\.enable-remote-write-receiver"),
        ):
            writer.write({"a": 1.0}, 1.0)
        server.shutdown()


def test_nobody_there_is_said_in_one_line() -> None:
    with (
        RemoteWriter(f"http://127.0.0.1:{free_port()}", {"testid": "t"}) as writer,
        pytest.raises(LoadTestError, match="does not answer"),
    ):
        writer.write({"a": 1.0}, 1.0)


@pytest.mark.parametrize("size", [0, 1, 127, 128, 65_536, 65_537, 200_000])
def test_a_block_of_literals_says_its_length_and_holds_all(size: int) -> None:
    data = bytes(index % 251 for index in range(size))
    block = _snappy(data)
    assert block.startswith(_varint(size))
    rest, found = block[len(_varint(size)) :], b""
    while rest:
        assert rest[0] == 0xF4  # a literal, its length less one in the next two bytes
        length = int.from_bytes(rest[1:3], "little") + 1
        found, rest = found + rest[3 : 3 + length], rest[3 + length :]
    assert found == data
