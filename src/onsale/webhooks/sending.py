"""One attempt to deliver one message, to a receiver that may be slow, hostile or gone.

Its answer is a status and nothing else: no redirect is followed and no body is kept.
"""

import asyncio
import contextlib
import ssl
from collections.abc import Iterable, Mapping
from enum import StrEnum
from importlib.metadata import version
from typing import Any, NamedTuple

import httpcore
import httpx

from onsale.webhooks.targets import TargetRefused, Targets

# An address that does not answer must leave time for the next one.
_CONNECT_SHARE = 1 / 3
_KEEPALIVE_SECONDS = 30.0
# An answer that is longer, or longer in coming, costs its receiver the connection.
_ANSWER_BYTES_MAX = 16 * 1024
_ANSWER_SECONDS_MAX = 1.0

_HEADERS = {"content-type": "application/json", "user-agent": f"onsale/{version('onsale')}"}


class Outcome(StrEnum):
    """What an attempt came to."""

    DELIVERED = "delivered"
    # 410: the receiver wants no more messages, this one or any other.
    GONE = "gone"
    REFUSED = "refused"
    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"
    FORBIDDEN = "forbidden"


class Attempt(NamedTuple):
    """An outcome, and why it was not a better one."""

    outcome: Outcome
    error: str | None = None


class Sender:
    """Keeps connections to receivers. `timeout_seconds` is the time for a whole attempt."""

    def __init__(
        self, targets: Targets, timeout_seconds: float, ssl_context: ssl.SSLContext | None = None
    ) -> None:
        self._targets = targets
        self._timeout_seconds = timeout_seconds
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=ssl_context or httpx.create_ssl_context(),
            # Each endpoint limits its own: a common limit would let one wait for another.
            max_connections=None,
            keepalive_expiry=_KEEPALIVE_SECONDS,
            network_backend=_CheckedAddresses(targets, timeout_seconds * _CONNECT_SHARE),
        )

    async def send(self, url: str, headers: Mapping[str, str], body: bytes) -> Attempt:
        """Post a body; whatever happens is an outcome."""
        try:
            target = self._targets.parse(url)
            async with asyncio.timeout(self._timeout_seconds):
                status = await self._post(target, headers, body)
        except TargetRefused as refused:
            return Attempt(Outcome.FORBIDDEN, str(refused))
        except (TimeoutError, httpcore.TimeoutException):
            return Attempt(Outcome.TIMEOUT, f"no answer within {self._timeout_seconds:g} s")
        except (httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
            return Attempt(Outcome.UNREACHABLE, f"not reached: {type(error).__name__}")
        if 200 <= status < 300:
            return Attempt(Outcome.DELIVERED)
        outcome = Outcome.GONE if status == 410 else Outcome.REFUSED
        return Attempt(outcome, f"answered {status}")

    async def _post(self, target: httpx.URL, headers: Mapping[str, str], body: bytes) -> int:
        # From the parts that were checked: no second parser has a say.
        url = httpcore.URL(
            scheme=target.raw_scheme, host=target.raw_host, port=target.port, target=target.raw_path
        )
        everything = [*_HEADERS.items(), *headers.items()]
        async with self._pool.stream("POST", url, headers=everything, content=body) as answer:
            # Whatever becomes of the rest, the status was said.
            with contextlib.suppress(TimeoutError, httpcore.NetworkError, httpcore.ProtocolError):
                async with asyncio.timeout(_ANSWER_SECONDS_MAX):
                    await _read_to_the_end(answer)
            return answer.status

    async def close(self) -> None:
        """Close every connection."""
        await self._pool.aclose()


async def _read_to_the_end(answer: httpcore.Response) -> None:
    """So that the connection can be used again, if that does not take much."""
    size_bytes = 0
    async for chunk in answer.aiter_stream():
        size_bytes += len(chunk)
        if size_bytes > _ANSWER_BYTES_MAX:
            return


class _CheckedAddresses(httpcore.AsyncNetworkBackend):
    """Connects to the addresses that the targets allow, one after the other until one answers."""

    def __init__(self, targets: Targets, connect_timeout_seconds: float) -> None:
        self._targets = targets
        self._connect_timeout_seconds = connect_timeout_seconds
        self._backend = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        failed: Exception = httpcore.ConnectError("no address")
        for address in await self._targets.addresses(host, port):
            try:
                return await self._backend.connect_tcp(
                    address, port, self._connect_timeout_seconds, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failed = error
        raise failed
