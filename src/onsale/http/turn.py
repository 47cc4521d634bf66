"""What a turn of the event loop reads is served together, and what it answers is written together.

Between two system calls a processor has forgotten most of what it needs to serve a request, and who
waits for an answer is woken by each that is written. So a turn reads everything first, serves it
all, and then writes everything: the same work takes half the time (docs/performance.md).
"""

import asyncio
from collections.abc import Callable
from typing import Any, ClassVar, Self
from weakref import WeakKeyDictionary

from onsale.observability.logging import get_logger

# Beyond these nothing waits for the end of the turn: what is kept meanwhile has a bound.
_READ_BYTES_MAX = 1024 * 1024
_UNSENT_BYTES_MAX = 64 * 1024

log = get_logger(__name__)


class Turn:
    """What the connections of one event loop have read and not served yet, or not written yet."""

    _of_loops: ClassVar[WeakKeyDictionary[asyncio.AbstractEventLoop, Self]] = WeakKeyDictionary()

    def __init__(self) -> None:
        self._read: list[tuple[TurnTransport, Callable[[bytes], None], bytes]] = []
        self._read_bytes = 0
        self._writers: list[TurnTransport] = []

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop) -> Self:
        """The loop's turn; there is one, whatever the number of its servers."""
        turn = cls._of_loops.get(loop)
        if turn is None:
            turn = cls._of_loops[loop] = cls()
        return turn

    def serve_soon(
        self, transport: "TurnTransport", serve: Callable[[bytes], None], data: bytes
    ) -> None:
        """Call `serve` with what was read from a transport when this turn has read the rest."""
        if not self._read:
            asyncio.get_running_loop().call_soon(self.serve)
        self._read.append((transport, serve, data))
        self._read_bytes += len(data)
        if self._read_bytes > _READ_BYTES_MAX:
            self.serve()

    def serve(self) -> None:
        """Serve what has been read so far, in its order."""
        read, self._read, self._read_bytes = self._read, [], 0
        for transport, serve, data in read:
            try:
                serve(data)
            except Exception:
                transport.fail()

    def write_soon(self, transport: "TurnTransport") -> None:
        """Let a transport write when everybody has been served."""
        if not self._writers:
            asyncio.get_running_loop().call_soon(self.write)
        self._writers.append(transport)

    def write(self) -> None:
        """Write what everybody was told so far."""
        writers, self._writers = self._writers, []
        for transport in writers:
            try:
                transport.flush()
            except Exception:
                transport.fail()


class TurnTransport(asyncio.Transport):
    """A connection's transport, which writes at the end of the turn."""

    __slots__ = ("_transport", "_turn", "_unsent", "_unsent_bytes")

    def __init__(self, transport: asyncio.Transport, turn: Turn) -> None:
        super().__init__()
        self._transport = transport
        self._turn = turn
        self._unsent: list[bytes] = []
        self._unsent_bytes = 0

    def write(self, data: Any) -> None:
        """Write soon; what is written to who has left is dropped."""
        if not self._unsent:
            self._turn.write_soon(self)
        self._unsent.append(data)
        self._unsent_bytes += len(data)
        if self._unsent_bytes > _UNSENT_BYTES_MAX:
            self.flush()

    def flush(self) -> None:
        """Hand over what is to be written."""
        unsent, self._unsent, self._unsent_bytes = self._unsent, [], 0
        if unsent and not self._transport.is_closing():
            self._transport.write(unsent[0] if len(unsent) == 1 else b"".join(unsent))

    def close(self) -> None:
        """Close when everything has been sent."""
        self.flush()
        self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._unsent, self._unsent_bytes = [], 0
        self._transport.abort()

    def fail(self) -> None:
        """Close at once upon an error, which is the one connection's, as an event loop has it."""
        self.abort()
        log.exception("connection failed")

    def is_closing(self) -> bool:
        """Whether it is closed, or being closed."""
        return self._transport.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """What the transport says about the connection."""
        return self._transport.get_extra_info(name, default)

    def pause_reading(self) -> None:
        """Read no more for now."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read again."""
        self._transport.resume_reading()
