"""A turn of the event loop: everything is read, then served, then written, and nothing is lost."""

import asyncio
from typing import Any

import pytest

from onsale.http.turn import Turn, TurnTransport


class Socket(asyncio.Transport):
    """What a connection's transport was told to do, in one log for several."""

    def __init__(self, log: list[Any], name: str = "") -> None:
        super().__init__()
        self._log, self._name, self._closing = log, name, False

    def write(self, data: Any) -> None:
        self._log.append((self._name, bytes(data)))

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        self._closing = True
        self._log.append((self._name, "closed"))

    def abort(self) -> None:
        self._closing = True
        self._log.append((self._name, "aborted"))


@pytest.fixture
def log() -> list[Any]:
    return []


@pytest.fixture
async def turn() -> Turn:
    return Turn.of(asyncio.get_running_loop())


async def loop_turns() -> None:
    """Serving and writing are a turn each."""
    for _ in range(3):
        await asyncio.sleep(0)


async def test_everything_is_read_then_served_then_written(turn: Turn, log: list[Any]) -> None:
    """Seen red with answers written as they are made."""
    for name in ("a", "b"):
        transport = TurnTransport(Socket(log, name), turn)

        def serve(data: bytes, transport: TurnTransport = transport) -> None:
            log.append(f"served {data.decode()}")
            transport.write(b"head ")
            transport.write(b"body")

        turn.serve_soon(transport, serve, name.encode())
        log.append(f"read {name}")
    await loop_turns()
    assert log == [
        "read a",
        "read b",
        "served a",
        "served b",
        ("a", b"head body"),
        ("b", b"head body"),
    ]


async def test_a_loop_has_one_turn(turn: Turn) -> None:
    assert Turn.of(asyncio.get_running_loop()) is turn


async def test_one_that_fails_fails_alone(turn: Turn, log: list[Any]) -> None:
    """Seen red with the others of its turn left unserved."""

    def fail(data: bytes) -> None:
        raise RuntimeError

    turn.serve_soon(TurnTransport(Socket(log, "failed"), turn), fail, b"")
    turn.serve_soon(TurnTransport(Socket(log), turn), log.append, b"other")
    await loop_turns()
    assert log == [("failed", "aborted"), b"other"]


async def test_one_that_cannot_write_fails_alone(turn: Turn, log: list[Any]) -> None:
    """Seen red: the others of its turn were silent, then and ever after."""
    transports = [TurnTransport(Socket(log, name), turn) for name in ("failed", "other")]
    transports[0].write("no bytes")
    for _ in range(2):
        transports[1].write(b"told")
        await loop_turns()
    assert log == [("failed", "aborted"), ("other", b"told"), ("other", b"told")]


async def test_what_is_kept_of_a_turn_has_a_bound(turn: Turn, log: list[Any]) -> None:
    """Seen red, each, with nothing handed on before the turn's end."""
    served: list[bytes] = []
    transport = TurnTransport(Socket(log), turn)
    for _ in range(5):
        turn.serve_soon(transport, served.append, bytes(256 * 1024))
    assert len(served) == 5
    for _ in range(5):
        transport.write(bytes(16 * 1024))
    assert len(log) == 1


async def test_who_is_hung_up_on_has_been_told_before(turn: Turn, log: list[Any]) -> None:
    """Seen red with it closed first."""
    transport = TurnTransport(Socket(log), turn)
    transport.write(b"told")
    transport.close()
    await loop_turns()
    assert log == [("", b"told"), ("", "closed")]


async def test_nothing_is_written_to_who_has_left(turn: Turn, log: list[Any]) -> None:
    """Seen red: a transport that is closed raises, and the rest of the turn was not written."""
    socket = Socket(log, "left")
    TurnTransport(socket, turn).write(b"told")
    other = TurnTransport(Socket(log), turn)
    other.write(b"told")
    socket.close()
    await loop_turns()
    assert log == [("left", "closed"), ("", b"told")]


async def test_a_connection_that_is_broken_off_says_no_more(turn: Turn, log: list[Any]) -> None:
    """Seen red with what was unsent written."""

    class Open(Socket):
        def is_closing(self) -> bool:
            return False

    transport = TurnTransport(Open(log), turn)
    transport.write(b"told")
    transport.abort()
    await loop_turns()
    assert log == [("", "aborted")]
