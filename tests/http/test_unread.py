"""Orders that are refused by their bytes: what is taken for one is one to a parser as well."""

import httptools
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from onsale.http.unread import headers_of_order

TARGET = b"/v1/events/0198f3a2b4c57d6e8f901a2b3c4d5e6f/orders"
BODY = b'{"items":[{"tier_id":"ga","quantity":1}]}'
LENGTH = b"Content-Length: %d" % len(BODY)
HOST = b"Host: tickets.example"


def order(
    *lines: bytes, start: bytes = b"POST " + TARGET + b" HTTP/1.1", body: bytes = BODY
) -> bytes:
    return b"\r\n".join((start, *lines, b"", body))


ORDERS = {
    "wrk": order(HOST, b"Content-Type: application/json", LENGTH, b"Idempotency-Key: press-1"),
    "lower case": order(
        b"host: x", b"content-length: %d" % len(BODY), b"authorization: Bearer a.b.c"
    ),
    "browser": order(
        HOST,
        b"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
        b"Accept: */*",
        b"Accept-Encoding: gzip, deflate, br, zstd",
        LENGTH,
        b"Origin: https://tickets.example",
        b"Cookie: theme=dark; seen=\xc3\xa9",
        b"Connection: keep-alive",
        b"Sec-Fetch-Mode: cors",
    ),
    "nothing but its length": order(LENGTH),
    "an empty value": order(HOST, b"X-Empty:", LENGTH),
}

UNUSUAL = {
    "its end says another header": order(HOST, LENGTH, b"Transfer-Encoding: chunked"),
    "two lengths": order(HOST, LENGTH, LENGTH),
    "two lengths that differ": order(b"content-length: 3", HOST, LENGTH),
    "no length": order(HOST),
    "a long length": order(HOST, b"Content-Length: 000000%d" % len(BODY)),
    "a length with a sign": order(HOST, b"Content-Length: +%d" % len(BODY)),
    "a space before the colon": order(HOST, LENGTH, b"Content-Length : 3"),
    "waits to be told to go on": order(HOST, LENGTH, b"Expect: 100-continue"),
    "the last of its connection": order(HOST, LENGTH, b"Connection: close"),
    "the last, to a proxy": order(HOST, LENGTH, b"Proxy-Connection: close"),
    "another protocol": order(HOST, LENGTH, b"Connection: upgrade", b"Upgrade: h2c"),
    "another protocol, once more": order(HOST, LENGTH, b"Upgrade: h2c"),
    "trailers": order(HOST, LENGTH, b"Trailer: x"),
    "an older version": order(HOST, LENGTH, start=b"POST " + TARGET + b" HTTP/1.0"),
    "no order": order(HOST, LENGTH, start=b"PUT " + TARGET + b" HTTP/1.1"),
    "of no event": order(HOST, LENGTH, start=b"POST /v1/events/x/orders HTTP/1.1"),
    "with a question": order(HOST, LENGTH, start=b"POST " + TARGET + b"?a HTTP/1.1"),
    "something behind the path": order(HOST, LENGTH, start=b"POST " + TARGET + b"/x HTTP/1.1"),
    "half of it": ORDERS["wrk"][:-1],
    "half of a head": ORDERS["wrk"][:100],
    "more than one": ORDERS["wrk"] * 2,
    "something in front": b"\r\n" + ORDERS["wrk"],
    "a line without a name": order(HOST, LENGTH, b"nobody"),
    "a folded line": order(HOST, LENGTH, b"X-Folded: a", b" b"),
    "a bare line feed": order(HOST, LENGTH + b"\nContent-Length: 3"),
    "a bare carriage return": order(HOST, LENGTH, b"X-Odd: a\rb"),
    "a zero byte": order(HOST, LENGTH, b"X-Odd: a\0b"),
}


class Heard:
    """What a parser calls back."""

    def __init__(self) -> None:
        self.url, self.body, self.messages = b"", b"", 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.parser = httptools.HttpRequestParser(self)
        self.keeps_alive = False

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.messages += 1
        # Afterwards the parser says so of everybody.
        self.keeps_alive = self.parser.should_keep_alive()


@pytest.mark.parametrize("data", ORDERS.values(), ids=ORDERS)
def test_an_order_is_told_from_its_bytes(data: bytes) -> None:
    assert headers_of_order(data) == {}


@pytest.mark.parametrize("data", UNUSUAL.values(), ids=UNUSUAL)
def test_whatever_is_unusual_is_left_to_the_parser(data: bytes) -> None:
    """Each seen red by the part of the expression that is for it."""
    assert headers_of_order(data) is None


@pytest.mark.parametrize("line", [b"X-Request-Id: press.1", b"x-request-id:press.1"])
def test_the_id_that_a_request_has_is_found(line: bytes) -> None:
    other = b"X-Request-Id: press.0"
    for lines in ((line, HOST, LENGTH), (HOST, LENGTH, line), (LENGTH, other, line)):
        assert headers_of_order(order(*lines)) == {b"x-request-id": b"press.1"}, "of two the last"


LINES = st.one_of(
    st.sampled_from(
        [HOST, LENGTH, b"Connection: keep-alive", b"X-Request-Id: a-1", b"TE: trailers"]
    ),
    st.builds(
        lambda name, colon, value: name + colon + value,
        st.sampled_from(
            [
                b"content-length",
                b"Transfer-Encoding",
                b"Connection",
                b"proxy-connection",
                b"Expect",
                b"Upgrade",
                b"X-A",
            ]
        ),
        st.sampled_from([b":", b": ", b" : ", b":\t"]),
        st.sampled_from(
            [b"%d" % len(BODY), b"0", b"chunked", b"close", b"keep-alive", b"", b"\xff"]
        ),
    ),
    st.binary(max_size=12),
)


@given(
    lines=st.lists(LINES, max_size=5),
    at=st.integers(0, 200),
    noise=st.one_of(
        st.just(b""), st.binary(max_size=3), st.sampled_from([b"\r\n", b"\n", b"\r", b":"])
    ),
)
@example(lines=[LENGTH], at=0, noise=b"")
def test_what_is_taken_for_an_order_is_one_to_a_parser(
    lines: list[bytes], at: int, noise: bytes
) -> None:
    """One message, all of the bytes, with this end and nothing said about the connection."""
    data = order(LENGTH, *lines)
    data = data[:at] + noise + data[at:]
    headers = headers_of_order(data)
    if headers is None:
        return
    heard = Heard()
    heard.parser.feed_data(data)
    assert (heard.messages, heard.url, heard.parser.get_method()) == (1, TARGET, b"POST")
    assert data.endswith(b"\r\n\r\n" + heard.body)
    names = [name for name, _ in heard.headers]
    assert names.count(b"content-length") == 1
    assert not {b"transfer-encoding", b"expect", b"upgrade", b"te", b"trailer"} & set(names)
    assert heard.keeps_alive
    assert not heard.parser.should_upgrade()
    ids = [value.rstrip() for name, value in heard.headers if name == b"x-request-id"]
    assert headers.get(b"x-request-id", b"").rstrip() == (ids or [b""])[-1]
