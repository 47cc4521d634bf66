"""Where webhooks may go: to public addresses, so that nobody who may register an endpoint has this
service knock at doors that only it can reach (server-side request forgery).

What counts is the address. A name is looked up anew for each connection and the connection is made
to the very address that was checked, whatever the name leads to a moment later; numbers in disguise
(`http://2130706433/`) are what they are looked up to.
"""

import asyncio
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any

import httpx

# A name server that keeps silent keeps one thread, and whoever asks for the same name joins him.
_LOOKUPS_MAX = 64
_REGISTRATION_LOOKUP_SECONDS_MAX = 5.0

# What `is_global` of this Python takes for public, and IANA's registries do not.
_NOT_PUBLIC = (
    IPv4Network("192.0.0.0/24"),
    IPv4Network("192.88.99.0/24"),
    IPv6Network("2002::/16"),
    IPv6Network("3fff::/20"),
)
_GLOBAL_UNICAST = IPv6Network("2000::/3")
# Addresses that stand for the IPv4 address in their last four bytes.
_IPV4_BEHIND = (IPv6Network("::ffff:0:0/96"), IPv6Network("64:ff9b::/96"))

Lookup = Callable[..., list[tuple[Any, ...]]]


class TargetRefused(Exception):
    """Messages must not be sent there; the text says why, for whoever registered the endpoint."""


def is_public(address: str) -> bool:
    """Whether an IP address is one of the internet at large, and of one host."""
    found = ip_address(address)
    if isinstance(found, IPv6Address):
        if any(found in network for network in _IPV4_BEHIND):
            found = IPv4Address(found.packed[-4:])
        elif found not in _GLOBAL_UNICAST:
            return False
    return (
        found.is_global
        and not found.is_multicast
        and not any(found in network for network in _NOT_PUBLIC if network.version == found.version)
    )


class Targets:
    """The targets that the settings allow; `private_allowed` allows all, and plain HTTP."""

    def __init__(self, *, private_allowed: bool, lookup: Lookup = socket.getaddrinfo) -> None:
        self._private_allowed = private_allowed
        self._lookup = lookup
        # Threads of its own: those of the event loop are few, and others need them.
        self._threads = ThreadPoolExecutor(_LOOKUPS_MAX, thread_name_prefix="lookup")
        self._asked: dict[tuple[str, int], asyncio.Future[list[str]]] = {}

    async def check(self, url: str) -> None:
        """Whether an endpoint may have this URL, as far as can be said now. Raises `TargetRefused`.

        Where everything is allowed, the receiver need not exist yet.
        """
        target = self.parse(url)
        if self._private_allowed:
            return
        try:
            async with asyncio.timeout(_REGISTRATION_LOOKUP_SECONDS_MAX):
                await self.addresses(target.raw_host.decode(), _port_of(target))
        except TimeoutError:
            raise TargetRefused("the host's name is not answered for") from None

    def parse(self, url: str) -> httpx.URL:
        """The parts of a URL that may be sent to. Raises `TargetRefused`."""
        try:
            target = httpx.URL(url)
        except httpx.InvalidURL:
            raise TargetRefused("this is not a URL") from None
        schemes = ("http", "https") if self._private_allowed else ("https",)
        if target.scheme not in schemes:
            raise TargetRefused(f"the URL must begin with {' or '.join(schemes)}://")
        if not target.raw_host:
            raise TargetRefused("the URL names no host")
        if target.userinfo:
            raise TargetRefused("the URL must not contain credentials")
        if target.fragment:
            raise TargetRefused("the URL must not contain a fragment")
        if not 0 < _port_of(target) < 65_536:
            raise TargetRefused("there is no such port")
        return target

    async def addresses(self, host: str, port: int) -> list[str]:
        """The host's addresses now, each of them allowed. Raises `TargetRefused`."""
        try:
            # Shielded: one who stops waiting must not stop it for the others.
            found = await asyncio.shield(self._ask(host, port))
        except (OSError, UnicodeError):
            raise TargetRefused("the host's name leads to no address") from None
        if not self._private_allowed and not all(map(is_public, found)):
            raise TargetRefused("the host's address is not a public one")
        return found

    def _ask(self, host: str, port: int) -> "asyncio.Future[list[str]]":
        asked = self._asked.get((host, port))
        if asked is None:
            loop = asyncio.get_running_loop()
            asked = loop.run_in_executor(self._threads, self._look_up, host, port)
            asked.add_done_callback(lambda _: self._asked.pop((host, port)))
            self._asked[host, port] = asked
        return asked

    def _look_up(self, host: str, port: int) -> list[str]:
        found = self._lookup(host, port, type=socket.SOCK_STREAM)
        return list(dict.fromkeys(str(address[0]) for *_, address in found))


def _port_of(target: httpx.URL) -> int:
    if target.port is not None:
        return target.port
    return 443 if target.scheme == "https" else 80
