"""Answers in one piece, on a real connection: HTTP is the same as with uvicorn's own sending."""

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Sized
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from onsale.http.answers import Answer, Header
from onsale.http.intake import read_body
from onsale.http.middleware import BODY_BYTES_MAX, Receive, Scope, Send, send_answer
from onsale.http.protocol import HEAD_BYTES_MAX, WHOLE_ANSWER, BoundedHttpProtocol
from tests.support import wait_until

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the path and the body that it was asked with."""
    assert WHOLE_ANSWER in scope["extensions"]
    body = scope["path"].encode() + b" " + await read_body(receive, None)
    await asyncio.sleep(0)  # as an answer that had to wait
    await send_answer(scope, send, Answer(200, b"content-type: text/plain\r\n", body), "id-1")


@pytest.fixture
async def connection() -> AsyncIterator[Connection]:
    async with connected() as (reader, writer):
        yield reader, writer


@asynccontextmanager
async def connected(
    app: Any = echo,
    protocol: type[BoundedHttpProtocol] = BoundedHttpProtocol,
    **options: Any,
) -> AsyncIterator[Connection]:
    config = uvicorn.Config(
        app,
        http=BoundedHttpProtocol,
        lifespan="off",
        log_config=None,
        proxy_headers=False,
        **options,
    )
    config.load()
    state = ServerState()
    server = await asyncio.get_running_loop().create_server(
        lambda: protocol(config, state, {}), "127.0.0.1", 0
    )
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    try:
        yield reader, writer
    finally:
        writer.close()
        server.close()
        await asyncio.gather(*state.tasks)


def request(path: str, *headers: str, method: str = "POST", version: str = "1.1") -> bytes:
    body = b"body" if method == "POST" else b""
    lines = [f"{method} {path} HTTP/{version}", "host: x", f"content-length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def answer(reader: asyncio.StreamReader, *, has_body: bool = True) -> tuple[str, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    assert head.startswith("HTTP/1.1 200 OK\r\n")
    fields = dict(line.lower().split(": ", 1) for line in head.splitlines()[1:] if line)
    body = await reader.readexactly(int(fields["content-length"])) if has_body else b""
    return head.lower(), body


async def test_one_after_another(connection: Connection) -> None:
    reader, writer = connection
    for path in ("/a", "/b"):
        writer.write(request(path))
        head, body = await answer(reader)
        assert "x-request-id: id-1" in head
        assert "connection: close" not in head
        assert body == path.encode() + b" body"


async def test_all_at_once_are_answered_in_their_order(connection: Connection) -> None:
    """Seen red with the extension bound to the newest request of the connection."""
    reader, writer = connection
    paths = [f"/{number}" for number in range(20)]
    writer.write(b"".join(map(request, paths)))
    assert [(await answer(reader))[1] for _ in paths] == [f"{path} body".encode() for path in paths]


@pytest.mark.parametrize(
    "asked",
    [request("/a", "connection: close"), request("/a", version="1.0")],
    ids=["close", "1.0"],
)
async def test_the_last_answer_of_a_connection_says_so_and_is_whole(
    connection: Connection, asked: bytes
) -> None:
    """Seen red with the connection closed before the answer was written."""
    reader, writer = connection
    writer.write(asked)
    head, body = await answer(reader)
    assert "connection: close" in head
    assert body == b"/a body"
    assert await reader.read() == b""


async def test_an_answer_to_head_has_no_body(connection: Connection) -> None:
    """Seen red with it sent in one piece: the body was taken for the next answer."""
    reader, writer = connection
    writer.write(request("/a", method="HEAD") + request("/b"))
    await answer(reader, has_body=False)
    assert (await answer(reader))[1] == b"/b body"


async def test_who_waits_to_be_told_to_go_on_is_told(connection: Connection) -> None:
    reader, writer = connection
    head, _, body = request("/a", "expect: 100-continue").partition(b"\r\n\r\n")
    writer.write(head + b"\r\n\r\n")
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(body)
    assert (await answer(reader))[1] == b"/a body"


async def test_a_request_leaves_nothing_for_the_garbage_collector(connection: Connection) -> None:
    """What refers to itself is not freed until the collector finds it. Seen red with an extension
    that held the request: the collector then took a tenth of the time of a refusal.
    """
    reader, writer = connection
    gc.collect()
    gc.disable()
    try:
        for _ in range(100):
            writer.write(request("/a"))
            await answer(reader)
        assert gc.collect() < 100
    finally:
        gc.enable()


@pytest.mark.parametrize("path", ["/answered", "/unfinished"])
async def test_a_connection_leaves_nothing_for_the_garbage_collector(path: str) -> None:
    """Whatever the client waited for when it left. Seen red without `connection_lost`."""
    alive: weakref.WeakSet[BoundedHttpProtocol] = weakref.WeakSet()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        alive.add(scope["extensions"][WHOLE_ANSWER].__self__)
        if scope["path"] == "/unfinished":
            while (await receive())["type"] != "http.disconnect":
                pass
        else:
            await echo(scope, receive, send)

    async def nobody_is_alive() -> bool:
        return not alive

    gc.collect()
    gc.disable()
    try:
        async with connected(app) as (reader, writer):
            writer.write(request(path))
            if path == "/answered":
                await answer(reader)
            else:
                await wait_until(partial(_has_any, alive))
        await wait_until(nobody_is_alive)
    finally:
        gc.enable()


async def _has_any(found: Sized) -> bool:
    return len(found) > 0


class Knowing:
    """Echoes, and knows the answer to `/known…` when the request is here."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.echoed: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked.set()
        self.echoed.append(scope["path"])
        await echo(scope, receive, send)

    def answer_at_once(
        self, method: bytes, target: bytes, headers: list[Header], body: bytes
    ) -> Answer | None:
        if not target.startswith(b"/known"):
            return None
        assert (method, dict(headers)[b"host"]) == (b"POST", b"x")
        return Answer(200, b"", b"known " + body).completed("id-1")


async def test_what_is_known_is_answered_without_the_app() -> None:
    """Seen red with nothing known."""
    app = Knowing()
    async with connected(app) as (reader, writer):
        for path in ("/known", "/a", "/known", "/known"):
            writer.write(request(path))
            told = b"known body" if path == "/known" else path.encode() + b" body"
            assert (await answer(reader))[1] == told
    assert app.echoed == ["/a"]


@pytest.mark.parametrize("path", ["/known", "/a"], ids=["at once", "after a while"])
async def test_who_says_no_more_is_answered_before_he_is_hung_up_on(path: str) -> None:
    """Seen red, each, with the end of what he sends taken for his end."""
    async with connected(Knowing()) as (reader, writer):
        writer.write(request(path))
        writer.write_eof()
        told = b"known body" if path == "/known" else b"/a body"
        assert (await answer(reader))[1] == told
        assert await reader.read() == b""


async def test_who_has_left_is_not_served_for_ever() -> None:
    """Who leaves says no more, too. Seen red with his connection kept until he is answered."""

    class Endless(Knowing):
        left = asyncio.Event()

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await read_body(receive, None)
            self.asked.set()
            async with asyncio.timeout(10):
                assert (await receive())["type"] == "http.disconnect"
            self.left.set()

    app = Endless()
    async with connected(app) as (_, writer):
        writer.write(request("/a"))
        await app.asked.wait()
        writer.close()
        async with asyncio.timeout(12):
            await app.left.wait()


async def test_who_asks_without_end_is_hung_up_on() -> None:
    """Who is in line has memory. Seen red with no end to the line: a thousand megabytes in 25 s."""

    class Stuck(Knowing):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            assert (await receive())["type"] == "http.request"
            while (await receive())["type"] != "http.disconnect":
                pass

    async with connected(Stuck()) as (reader, writer):
        writer.write(request("/a") * 1_500)
        async with asyncio.timeout(30):
            with suppress(ConnectionResetError):
                assert await reader.read() == b""


async def test_what_is_known_before_its_body_is_here_goes_the_ordinary_way() -> None:
    """Seen red, and silent, with it held back until more arrives."""
    app = Knowing()
    whole = request("/known")
    async with connected(app) as (reader, writer):
        writer.write(whole.removesuffix(b"body") + b"bo")
        await app.asked.wait()
        writer.write(b"dy")
        assert (await answer(reader))[1] == b"/known body"


@pytest.mark.parametrize(
    "asked",
    [request("/known", "connection: close"), request("/known", version="1.0")],
    ids=["close", "1.0"],
)
async def test_the_last_answer_says_so_also_at_once(asked: bytes) -> None:
    """What follows on the connection is nobody's. Seen red, and waiting, with it kept open."""
    async with connected(Knowing()) as (reader, writer):
        writer.write(asked + request("/known"))
        head, body = await answer(reader)
        assert "connection: close" in head
        assert body == b"known body"
        assert await reader.read() == b""


async def test_who_does_not_read_is_not_answered_at_once() -> None:
    """Answers without end would fill the memory: the next one waits for room, as uvicorn's do. Seen
    red with the buffers not looked at.
    """

    class Unread(Knowing):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            protocol = scope["extensions"][WHOLE_ANSWER].__self__
            protocol.resume_writing()
            await super().__call__(scope, receive, send)
            if scope["path"] == "/a":
                protocol.pause_writing()  # as the transport does when its buffers are full

    async with connected(Unread()) as (reader, writer):
        for path in ("/a", "/known"):
            writer.write(request(path))
            assert (await answer(reader))[1] == f"{path} body".encode()


async def test_many_in_line_are_answered_in_their_order() -> None:
    """Behind one that is served. Seen red with those in line answered at once, before it."""
    paths = ["/a", *(f"/known-{number}" for number in range(300))]
    async with connected(Knowing()) as (reader, writer):
        writer.write(b"".join(map(request, paths)))
        for path in paths:
            assert (await answer(reader))[1] == f"{path} body".encode()


class Full(Knowing):
    """Has no room for who asks for it, whom it knows by his bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.unread: list[bytes] = []

    def refuse_unread(self, data: bytes) -> Answer | None:
        self.unread.append(data)
        if not data.startswith(b"POST /full"):
            return None
        return Answer(200, b"", b"no room").completed("id-1")


async def test_who_is_refused_unread_is_between_others() -> None:
    """Seen red with the parser told of it as well."""
    app = Full()
    async with connected(app) as (reader, writer):
        for path in ("/full", "/a", "/full", "/known", "/full"):
            writer.write(request(path))
            told = b"no room" if path == "/full" else path.removeprefix("/").encode() + b" body"
            assert (await answer(reader))[1].removeprefix(b"/") == told
    assert app.echoed == ["/a"]


@pytest.mark.parametrize("before", [b"POST /a HTTP/1.1\r\n", request("/a")[:-1]])
async def test_nobody_is_refused_unread_in_the_middle_of_a_message(before: bytes) -> None:
    """Whoever sends it there smuggles. Seen red with the bytes asked about wherever they are."""
    app = Full()
    async with connected(app) as (reader, writer):
        writer.write(before)

        async def heard() -> bool:
            return bool(app.unread)

        await wait_until(heard)
        writer.write(request("/full"))
        with suppress(asyncio.IncompleteReadError):
            async with asyncio.timeout(1):
                assert b"no room" not in await reader.read()
    assert app.unread == [before]


async def test_nobody_is_refused_unread_before_who_is_in_line() -> None:
    """Seen red with who is served not looked at: the second answer came first."""

    class Slow(Full):
        released = asyncio.Event()
        protocol: BoundedHttpProtocol

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            self.protocol = scope["extensions"][WHOLE_ANSWER].__self__
            self.asked.set()
            await self.released.wait()
            await echo(scope, receive, send)

        async def have_both(self) -> bool:
            return bool(self.protocol.pipeline) or len(self.unread) == 2

    app = Slow()
    async with connected(app) as (reader, writer):
        writer.write(request("/a"))
        await app.asked.wait()
        writer.write(request("/full"))
        await wait_until(app.have_both)
        app.released.set()
        assert [(await answer(reader))[1] for _ in range(2)] == [b"/a body", b"/full body"]


async def test_an_idle_connection_is_closed_and_one_in_use_is_not() -> None:
    """One timer for each connection, however many requests. Seen red with it not set anew."""
    answered = 0
    async with connected(Knowing(), timeout_keep_alive=1) as (reader, writer):
        loop = asyncio.get_running_loop()
        until = loop.time() + 2.5
        while loop.time() < until:
            writer.write(request("/known") if answered % 2 else request("/a"))
            await answer(reader)
            answered += 1
            await asyncio.sleep(0.01)
        async with asyncio.timeout(10):
            assert await reader.read() == b""
    assert answered


async def test_who_asks_in_the_moment_in_which_his_time_is_up_is_answered() -> None:
    """The timer comes between reading and serving. Seen red, and hung up on, with it not asked who
    has been read.
    """

    class Punctual(BoundedHttpProtocol):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._idle_since_seconds = -self.timeout_keep_alive
            self.timeout_keep_alive_handler()

    class Stopping(BoundedHttpProtocol):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._shut_down()

    for protocol in (Punctual, Stopping):
        for path, told in (("/known", b"known body"), ("/a", b"/a body")):
            async with connected(Knowing(), protocol=protocol) as (reader, writer):
                writer.write(request(path))
                assert (await answer(reader))[1] == told


@pytest.mark.parametrize("beginning", [b"", b"POST /a HT"], ids=["nothing", "half a head"])
@pytest.mark.parametrize("before", [b"", request("/known")], ids=["at first", "once answered"])
async def test_who_does_not_come_to_the_end_of_a_head_is_hung_up_on(
    before: bytes, beginning: bytes
) -> None:
    """Seen red with uvicorn's own timer, which begins with an answer and ends with any byte."""
    async with connected(Knowing(), timeout_keep_alive=1) as (reader, writer):
        writer.write(before)
        if before:
            await answer(reader)
        writer.write(beginning)
        async with asyncio.timeout(10):
            assert await reader.read() == b""


async def test_the_date_of_an_answer_is_of_its_second() -> None:
    """uvicorn makes its headers anew each second. Seen red with the first lines kept for good."""
    states: list[ServerState] = []

    class Dated(BoundedHttpProtocol):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            states.append(self.server_state)

    async with connected(Knowing(), protocol=Dated) as (reader, writer):
        for second in (b"one", b"two"):
            if states:
                states[0].default_headers = [(b"date", second)]
            writer.write(request("/known"))
            head, _ = await answer(reader)
        assert "date: two" in head


async def test_who_is_served_is_not_idle() -> None:
    """Behind one that was answered at once, in the same piece. Seen red, and hung up on, with the
    timer left as that one had set it.
    """
    has_waited = asyncio.Event()

    class Slow(Knowing):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await has_waited.wait()
            await super().__call__(scope, receive, send)

    async with connected(Slow(), timeout_keep_alive=1) as (reader, writer):
        writer.write(request("/known") + request("/a"))
        await answer(reader)
        asyncio.get_running_loop().call_later(2.5, has_waited.set)
        assert (await answer(reader))[1] == b"/a body"


@pytest.mark.parametrize("target", ["http://h", "http://h:99999/"])
@pytest.mark.parametrize("body", [b"body", b""], ids=["whole", "body to come"])
async def test_a_target_that_is_none_is_refused(
    target: str, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Seen red without an answer, and with a traceback in the log for anybody to fill it with."""
    async with connected(Knowing()) as (reader, writer):
        writer.write(request(target).removesuffix(b"body") + body)
        assert (await reader.readline()).startswith(b"HTTP/1.1 400 ")
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.parametrize(
    "behind",
    [
        request("/a"),
        request("/a").removesuffix(b"dy"),
        request("/a", "upgrade: h2c", "connection: upgrade"),
    ],
    ids=["whole", "in part", "upgrade"],
)
async def test_nobody_is_served_behind_the_last_answer(behind: bytes) -> None:
    """Nobody would hear. Seen red where the request was not looked at as a whole."""
    app = Knowing()
    async with connected(app) as (reader, writer):
        writer.write(request("/known", "connection: keep-alive", version="1.0") + behind)
        head, _ = await answer(reader)
        assert "connection: close" in head
        assert await reader.read() == b""
    assert app.echoed == []


async def test_a_fault_of_ours_is_not_the_clients() -> None:
    """Who cannot be answered at once for it is served. Seen red with 400, and served as well."""

    class Faulty(Knowing):
        def answer_at_once(self, *_: Any) -> Answer | None:
            raise KeyError("ours")

    async with connected(Faulty()) as (reader, writer):
        writer.write(request("/known") * 2)
        for _ in range(2):
            assert (await answer(reader))[1] == b"/known body"


async def test_trailers_ask_for_nothing(connection: Connection) -> None:
    """Seen red with `100 Continue` after the whole body."""
    reader, writer = connection
    writer.write(chunked("/a") + b"expect: 100-continue\r\n\r\n")
    assert (await answer(reader))[1] == b"/a body"


async def test_what_is_known_and_what_is_not_keep_their_order() -> None:
    app = Knowing()
    paths = ["/known", "/a", "/known", "/c", "/known", "/b"] * 50
    async with connected(app) as (reader, writer):
        writer.write(b"".join(map(request, paths)))
        for path in paths:
            told = (await answer(reader))[1]
            assert told in ({b"known body"} if path == "/known" else set()) | {
                path.encode() + b" body"
            }


async def test_who_left_others_in_line_is_known_to_be_gone() -> None:
    """Who streams holds a place until then. Seen red, and sending to nobody for ever, with only the
    last in line told: the one that is served then never heard of it.
    """
    told = asyncio.Event()
    over = asyncio.Event()

    async def stream(scope: Scope, receive: Receive, send: Send) -> None:
        await read_body(receive, None)
        gone = asyncio.ensure_future(receive())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while not (gone.done() or over.is_set()):
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
            await asyncio.sleep(0)
        if gone.done():
            told.set()
        gone.cancel()

    async with connected(stream) as (reader, writer):
        writer.write(request("/stream") + request("/next"))
        await reader.readexactly(1)
        writer.transport.abort()
        try:
            await wait_until(partial(_is_set, told), timeout_s=5)
        finally:
            over.set()


async def _is_set(event: asyncio.Event) -> bool:
    return event.is_set()


def chunked(path: str) -> bytes:
    """A request in chunks, but for the line that ends it: trailers may follow."""
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    return head.encode() + b"4\r\nbody\r\n0\r\n"


async def test_what_follows_a_body_has_an_end(connection: Connection) -> None:
    """Seen red, and taken in to the last byte, with heads counted alone."""
    reader, writer = connection
    writer.write(chunked("/a") + b"x-more: ")
    told = asyncio.create_task(reader.readline())
    # Who is hung up on in the midst of it may not get to read why.
    with suppress(ConnectionError):
        for _ in range(100):
            writer.write(b"a" * HEAD_BYTES_MAX)
            await writer.drain()
            await asyncio.sleep(0)
    with suppress(ConnectionError):
        async with asyncio.timeout(5):
            assert (await told).startswith(b"HTTP/1.1 431 ")


async def test_a_long_body_in_small_chunks_is_no_head(connection: Connection) -> None:
    reader, writer = connection
    head, _, rest = chunked("/a").partition(b"4\r\n")
    chunk = b"400\r\n" + b"a" * 1024 + b"\r\n"
    size = BODY_BYTES_MAX // 1024
    writer.write(head)
    for _ in range(size - 1):
        writer.write(chunk)
        await writer.drain()
    writer.write(b"4\r\n" + rest + b"\r\n")
    assert (await answer(reader))[1] == b"/a " + b"a" * 1024 * (size - 1) + b"body"


async def test_trailers_are_no_headers() -> None:
    """A proxy that takes headers away, or writes its own, may let trailers pass. Seen red."""
    seen: list[bytes] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        body = await read_body(receive, None)
        seen.extend(name for name, _ in scope["headers"])
        await send_answer(scope, send, Answer(200, b"", body), "id-1")

    async with connected(app) as (reader, writer):
        writer.write(chunked("/a") + b"x-forwarded-for: 1.2.3.4\r\n\r\n")
        assert (await answer(reader))[1] == b"body"
    assert seen == [b"host", b"transfer-encoding"]


async def test_who_leaves_while_it_is_answered_is_no_fault(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Seen red: uvicorn missed an answer, and logged an error for each who left at that moment."""
    over = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await read_body(receive, None)
        # As when the connection's end is here and has not been told yet.
        scope["extensions"][WHOLE_ANSWER].__self__.transport.close()
        await send_answer(scope, send, Answer(200, b"", b"told"), "id-1")
        over.set()

    async with connected(app) as (reader, writer):
        writer.write(request("/a"))
        await over.wait()
        assert await reader.read() == b""
    assert not caplog.records
