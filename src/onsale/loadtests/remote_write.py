"""Samples of our own for the Prometheus that k6 writes to: what k6 cannot say of itself.

Prometheus' remote write is a protobuf `WriteRequest`, snappy-compressed, in a POST. Both formats
are written by hand, for a handful of samples a second is worth neither library:
https://prometheus.io/docs/specs/prw/remote_write_spec/ and, for a block of literals alone,
https://github.com/google/snappy/blob/main/format_description.txt
"""

import struct
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Self

import httpx

from onsale.loadtests.errors import LoadTestError

_TIMEOUT_SECONDS = 2.0
# The longest literal whose length fits the two bytes after its tag.
_LITERAL_BYTES_MAX = 65_536
_HEADERS = {
    "Content-Type": "application/x-protobuf",
    "Content-Encoding": "snappy",
    "X-Prometheus-Remote-Write-Version": "0.1.0",
}


class RemoteWriter:
    """Writes samples that all have `labels` to the Prometheus at `url`; a context."""

    def __init__(self, url: str, labels: Mapping[str, str]) -> None:
        self._url = url.rstrip("/")
        self._labels = dict(labels)
        # Not through a proxy that the environment may name.
        self._http = httpx.Client(timeout=_TIMEOUT_SECONDS, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._http.close()

    @property
    def write_url(self) -> str:
        """Where samples are sent."""
        return f"{self._url}/api/v1/write"

    def write(self, samples: Mapping[str, float], at_seconds: float) -> None:
        """Add one sample to each named series, at a Unix time.

        Raises `LoadTestError` when Prometheus does not take them.
        """
        body = _snappy(_write_request(samples, self._labels, round(at_seconds * 1000)))
        try:
            answer = self._http.post(self.write_url, content=body, headers=_HEADERS)
        except httpx.HTTPError as error:
            raise LoadTestError(f"Prometheus at {self._url} does not answer: {error}") from None
        if answer.is_error:
            raise LoadTestError(
                f"Prometheus at {self._url} takes no samples ({answer.status_code}): it has to run"
                " with --web.enable-remote-write-receiver"
            )


def _write_request(samples: Mapping[str, float], labels: Mapping[str, str], at_ms: int) -> bytes:
    """`WriteRequest{timeseries: [TimeSeries{labels, samples: [Sample{value, timestamp}]}]}`."""
    series = (
        b"".join(_labels({"__name__": name} | dict(labels)))
        + _field(2, struct.pack("<Bd", 0x09, value) + b"\x10" + _varint(at_ms))
        for name, value in samples.items()
    )
    return b"".join(_field(1, each) for each in series)


def _labels(labels: Mapping[str, str]) -> Iterator[bytes]:
    """`Label{name, value}` of each, in the order of their names, as the receiver wants them."""
    for name, value in sorted(labels.items()):
        yield _field(1, _field(1, name.encode()) + _field(2, value.encode()))


def _field(number: int, content: bytes) -> bytes:
    """A field of bytes: strings and messages alike."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def _snappy(data: bytes) -> bytes:
    """A valid block that compresses nothing: the length, then all of it as literals."""
    parts = (data[at : at + _LITERAL_BYTES_MAX] for at in range(0, len(data), _LITERAL_BYTES_MAX))
    return _varint(len(data)) + b"".join(
        b"\xf4" + struct.pack("<H", len(part) - 1) + part for part in parts
    )
