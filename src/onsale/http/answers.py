"""Finished HTTP answers, as they go over the wire: what a whole crowd is told is rendered once."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

Header = tuple[bytes, bytes]
# By lower-case name; of several with one name the last.
Headers = Mapping[bytes, bytes]


class Answer(NamedTuple):
    """A status, header lines each with its end, and a body."""

    status: int
    head: bytes
    body: bytes

    @property
    def headers(self) -> list[Header]:
        """The header lines as names and values."""
        lines = self.head.split(b"\r\n")[:-1]
        return [(name, value) for name, _, value in (line.partition(b": ") for line in lines)]

    def completed(self, request_id: str) -> "Answer":
        """With the headers that all answers have."""
        status, head, body = self
        more = b"content-length: %d\r\nx-request-id: %b\r\n" % (len(body), request_id.encode())
        return Answer(status, head + more, body)


def head_of(headers: Iterable[Header]) -> bytes:
    """Headers as lines."""
    return b"".join(b"%b: %b\r\n" % header for header in headers)
