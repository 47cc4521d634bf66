"""One attempt to deliver, to receivers of every kind: on a real socket, and to the address that was
checked.
"""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from onsale.webhooks.sending import Attempt, Outcome, Sender
from onsale.webhooks.targets import Lookup, Targets
from tests.support import wait_until
from tests.webhooks.receiver import Receiver

BODY = b'{"type":"order.held"}'
DELIVERED = Attempt(Outcome.DELIVERED)


@asynccontextmanager
async def sending(
    *,
    private_allowed: bool = True,
    lookup: Lookup = socket.getaddrinfo,
    timeout_seconds: float = 5.0,
    ssl_context: ssl.SSLContext | None = None,
) -> AsyncIterator[Sender]:
    targets = Targets(private_allowed=private_allowed, lookup=lookup)
    sender = Sender(targets, timeout_seconds, ssl_context)
    try:
        yield sender
    finally:
        await sender.close()


async def test_a_message_arrives() -> None:
    with Receiver(answer_body=b"thank you") as receiver:
        async with sending() as sender:
            url = f"{receiver.url}/orders?of=all&name=%C3%BC"
            assert await sender.send(url, {"webhook-id": "message-1"}, BODY) == DELIVERED
    (received,) = receiver.received
    assert (received.path, received.body) == ("/hook/orders?of=all&name=%C3%BC", BODY)
    assert received.id == "message-1"
    assert received.headers["content-type"] == "application/json"
    assert received.headers["content-length"] == str(len(BODY))
    assert received.headers["host"] == f"127.0.0.1:{receiver.port}"
    assert received.headers["user-agent"].startswith("onsale/")


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
async def test_any_2xx_takes_it(status: int) -> None:
    with Receiver([status]) as receiver:
        async with sending() as sender:
            assert await sender.send(receiver.url, {}, BODY) == DELIVERED


@pytest.mark.parametrize("status", [300, 301, 302, 304, 307, 308, 400, 401, 404, 429, 500, 503])
async def test_anything_else_does_not(status: int) -> None:
    with Receiver([status]) as receiver:
        async with sending() as sender:
            refused = await sender.send(receiver.url, {}, BODY)
    assert refused == Attempt(Outcome.REFUSED, f"answered {status}")


async def test_gone_is_for_good() -> None:
    with Receiver([410]) as receiver:
        async with sending() as sender:
            gone = await sender.send(receiver.url, {}, BODY)
    assert gone == Attempt(Outcome.GONE, "answered 410")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_redirect_is_followed(status: int) -> None:
    """It would lead past the check of where messages may go."""
    with Receiver() as inside, Receiver([status], answer_headers={"Location": inside.url}) as hop:
        async with sending() as sender:
            assert (await sender.send(hop.url, {}, BODY)).outcome is Outcome.REFUSED
    assert (len(hop.received), inside.received) == (1, [])


async def test_what_the_answer_says_is_nobodys_business() -> None:
    """Whoever registers an endpoint must not read with it."""
    with Receiver([500], answer_body=b"the secret of the house") as receiver:
        async with sending() as sender:
            attempt = await sender.send(receiver.url, {}, BODY)
    assert "secret" not in repr(attempt)


# -- receivers that do not behave


async def test_one_that_hangs() -> None:
    with Receiver(hangs=True) as receiver:
        async with sending(timeout_seconds=0.2) as sender:
            attempt = await sender.send(receiver.url, {}, BODY)
    assert attempt == Attempt(Outcome.TIMEOUT, "no answer within 0.2 s")


async def test_one_that_is_not_there() -> None:
    with Receiver() as receiver:
        url = receiver.url
    async with sending() as sender:
        assert (await sender.send(url, {}, BODY)).outcome is Outcome.UNREACHABLE


@contextmanager
def saying(*parts: bytes) -> Iterator[str]:
    """The URL of a server that says this to whoever comes, and then keeps the line open."""

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
        await writer.drain()
        await reader.read()
        writer.close()

    listener = socket.create_server(("127.0.0.1", 0))
    serving = asyncio.ensure_future(asyncio.start_server(speak, sock=listener))
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    serving.result().close()


@pytest.mark.parametrize(
    ("words", "outcome"),
    [
        (b"220 mail.example ESMTP\r\n\r\n", Outcome.UNREACHABLE),
        (b"HTTP/1.1 200 OK\r\n" + b"X: " + b"x" * 200_000 + b"\r\n\r\n", Outcome.UNREACHABLE),
        (b"HTTP/1.1 ", Outcome.TIMEOUT),
        (b"HTTP/1.1 100 Continue\r\n\r\n", Outcome.TIMEOUT),
        # What was said counts, whatever follows or does not.
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", Outcome.DELIVERED),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 100_000, Outcome.DELIVERED),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", Outcome.DELIVERED),
    ],
    ids=["no HTTP", "a huge head", "half a line", "only 100", "no body", "too much body", "chunks"],
)
async def test_one_that_talks_strangely(
    words: bytes, outcome: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onsale.webhooks.sending._ANSWER_SECONDS_MAX", 0.05)
    with saying(words) as url:
        async with sending(timeout_seconds=0.5) as sender:
            assert (await sender.send(url, {}, BODY)).outcome is outcome


async def test_many_that_hang_do_not_keep_one_waiting() -> None:
    """More than any default limit of connections. Seen red with the pool's own limit of 10."""
    with Receiver(hangs=True) as hanging, Receiver() as receiver:
        async with sending(timeout_seconds=60) as sender:
            waiting = [asyncio.create_task(sender.send(hanging.url, {}, BODY)) for _ in range(150)]

            async def all_have_come() -> bool:
                return len(hanging.received) == len(waiting)

            await wait_until(all_have_come)
            assert await sender.send(receiver.url, {}, BODY) == DELIVERED
            assert not any(one.done() for one in waiting)
            hanging.go_on()
            assert set(await asyncio.gather(*waiting)) == {DELIVERED}


async def test_a_connection_is_used_again() -> None:
    with Receiver() as receiver:
        async with sending() as sender:
            for _ in range(5):
                assert await sender.send(receiver.url, {}, BODY) == DELIVERED
    assert (len(receiver.received), receiver.connections) == (5, 1)


# -- the address


def turning(*answers: list[str]) -> Lookup:
    """A name server that answers differently each time: for the last time, the last."""
    left = list(answers)

    def look_up(host: str, port: int, **_: Any) -> list[tuple[Any, ...]]:
        addresses = left.pop(0) if len(left) > 1 else left[0]
        return [(0, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    return look_up


async def test_a_name_that_turns_to_loopback_after_the_check() -> None:
    """DNS rebinding: public when the endpoint was registered, this machine when it is sent to.

    Seen red without the check at the connection.
    """
    with Receiver() as inside:
        lookup = turning(["8.8.8.8"], ["127.0.0.1"])
        targets = Targets(private_allowed=False, lookup=lookup)
        url = f"https://rebound.example:{inside.port}/"
        await targets.check(url)
        sender = Sender(targets, 5.0)
        attempt = await sender.send(url, {}, BODY)
        await sender.close()
    assert attempt == Attempt(Outcome.FORBIDDEN, "the host's address is not a public one")
    assert inside.connections == 0


async def test_it_is_the_checked_address_that_is_connected_to() -> None:
    """A name that nobody's resolver knows, so only the address that was looked up leads there; and
    it is looked up once, not once for the check and once more for the connection.
    """
    with Receiver() as receiver:
        async with sending(lookup=turning(["127.0.0.1"], ["192.0.2.1"])) as sender:
            url = f"http://nobody-knows.invalid:{receiver.port}/"
            assert await sender.send(url, {}, BODY) == DELIVERED
    (received,) = receiver.received
    assert received.headers["host"] == f"nobody-knows.invalid:{receiver.port}"


async def test_the_next_address_is_tried() -> None:
    with Receiver() as receiver:
        async with sending(lookup=turning(["127.0.0.2", "127.0.0.1"])) as sender:
            url = f"http://two.invalid:{receiver.port}/"
            assert await sender.send(url, {}, BODY) == DELIVERED


@pytest.mark.parametrize("url", ["http://receiver.example/", "https://127.0.0.1/", "nonsense"])
async def test_a_url_from_before_the_setting_was_changed(url: str) -> None:
    """What stands in the ledger is checked like what a client says."""
    async with sending(private_allowed=False) as sender:
        assert (await sender.send(url, {}, BODY)).outcome is Outcome.FORBIDDEN


# -- TLS


@pytest.fixture
def certified(tmp_path: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A receiver's context with a certificate for `receiver.example`, and a sender's that trusts
    whoever signed it.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "receiver.example")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("receiver.example")]), False)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    pem = tmp_path / "receiver.pem"
    pem.write_bytes(private + certificate)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(pem)
    return server, ssl.create_default_context(cadata=certificate.decode())


@pytest.mark.parametrize(
    ("host", "outcome"),
    [("receiver.example", Outcome.DELIVERED), ("other.example", Outcome.UNREACHABLE)],
)
async def test_the_certificate_is_the_names_and_not_the_addresses(
    certified: tuple[ssl.SSLContext, ssl.SSLContext], host: str, outcome: Outcome
) -> None:
    """Connected to the checked address, and yet verified as who the URL says. Two names of one
    address do not share a connection.
    """
    server, client = certified
    lookup = turning(["127.0.0.1"])
    with Receiver(ssl_context=server) as receiver:
        async with sending(lookup=lookup, ssl_context=client) as sender:
            known = f"https://receiver.example:{receiver.port}/"
            assert await sender.send(known, {}, BODY) == DELIVERED
            url = f"https://{host}:{receiver.port}/"
            assert (await sender.send(url, {}, BODY)).outcome is outcome


async def test_a_certificate_that_nobody_vouches_for(
    certified: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    server, _ = certified
    with Receiver(ssl_context=server) as receiver:
        async with sending(lookup=turning(["127.0.0.1"])) as sender:
            attempt = await sender.send(f"https://receiver.example:{receiver.port}/", {}, BODY)
    assert attempt.outcome is Outcome.UNREACHABLE
    assert receiver.received == []
