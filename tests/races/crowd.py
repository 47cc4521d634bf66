"""A crowd at the door: many buyers at once, each on a connection of their own, over plain HTTP/1.1.

An HTTP client library costs more than the service it asks; 2,000 buyers of one are its own spike.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from itertools import cycle
from typing import Any, NamedTuple, Self

from tests.support import items, token


class Press(NamedTuple):
    """One press of the button: who, in which event, for what, under which Idempotency-Key."""

    event_id: str
    buyer_id: str
    key: str
    body: dict[str, Any]

    def head_and_body(self) -> bytes:
        """The request as it goes over the wire."""
        body = json.dumps(self.body).encode()
        head = (
            f"POST /v1/events/{self.event_id}/orders HTTP/1.1\r\n"
            "Host: onsale\r\n"
            f"Authorization: Bearer {token(self.buyer_id)}\r\n"
            f"Idempotency-Key: {self.key}\r\n"
            "Content-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


class Answer(NamedTuple):
    """What came back; header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def outcome(self) -> str:
        """The order's status, or the code of the problem with the answer's status before it."""
        return self.body["status"] if self.status == 201 else f"{self.status} {self.body['code']}"

    @property
    def replayed(self) -> bool:
        return self.headers.get("idempotent-replayed") == "true"


class Buyer:
    """One connection to the API."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, port: int) -> Self:
        """Raises `OSError` when nobody listens."""
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def press(self, press: Press) -> Answer:
        """Ask once. Raises `ConnectionError` or `EOFError` when the answer never came."""
        self.send(press)
        return await self.answer()

    def send(self, press: Press) -> None:
        """Ask, and do not wait for the answer."""
        self._writer.write(press.head_and_body())

    async def answer(self) -> Answer:
        """The next answer on this connection. Raises `ConnectionError` or `EOFError`."""
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status_line, *lines = head.rstrip().split("\r\n")
        pairs = (line.partition(":") for line in lines)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        body = await self._reader.readexactly(int(headers.get("content-length", 0)))
        return Answer(int(status_line.split()[1]), headers, json.loads(body) if body else {})

    def leave(self) -> None:
        """Go away, whether or not there was an answer."""
        self._writer.close()


def presses(event_id: str, buyers: int, quantity: int = 1) -> list[Press]:
    """One press of each of so many buyers, each for `quantity` of the first tier."""
    return [
        Press(event_id, f"buyer-{number}", "press-1", items(quantity)) for number in range(buyers)
    ]


async def press_at_once(ports: Sequence[int], wanted: Sequence[Press]) -> list[Answer]:
    """Connect them all first, to each port in turn, then let them press in one moment.

    Their answers in their order.
    """
    connecting = (Buyer.connect(port) for port, _ in zip(cycle(ports), wanted, strict=False))
    buyers = await asyncio.gather(*connecting)
    try:
        for buyer, press in zip(buyers, wanted, strict=True):
            buyer.send(press)
        return await asyncio.gather(*(buyer.answer() for buyer in buyers))
    finally:
        for buyer in buyers:
            buyer.leave()


def outcomes(answers: Sequence[Answer]) -> Counter[str]:
    """How many answers there were of each kind."""
    return Counter(answer.outcome for answer in answers)
