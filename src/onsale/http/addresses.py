"""Which address a request comes from, when proxies stand between.

A proxy appends the address that it was asked from to `X-Forwarded-For`, and whatever stands before
that was sent by a stranger. So the header is read from its right end for as long as those who wrote
it are trusted; the first who is not is the client.
"""

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from onsale.http.middleware import Scope

Network = IPv4Network | IPv6Network

FORWARDED_FOR = b"x-forwarded-for"
# Whoever has one IPv6 address has as many as a network of this length.
_IPV6_PREFIX = 64
# Of a client on a unix socket, which is on this machine.
_LOCAL = "local"


class ClientAddresses:
    """Tells the address of a request's client, by the networks whose proxies are trusted."""

    def __init__(self, trusted: Sequence[Network]) -> None:
        self._trusted = trusted
        # A crowd behind a few proxies; strangers cannot make this grow.
        self._found = lru_cache(maxsize=8_192)(self._find)

    def of(self, scope: Scope) -> str:
        """The client's address, or its network where addresses are many."""
        peer = scope.get("client")
        if peer is None:
            return _LOCAL
        if not self._trusted:
            return self._found(peer[0], b"")
        values = [value for name, value in scope["headers"] if name == FORWARDED_FOR]
        return self._found(peer[0], b",".join(values))

    def _find(self, peer: str, forwarded_for: bytes) -> str:
        client = _read(peer)
        if client is None:
            return _LOCAL
        for hop in reversed(forwarded_for.decode("latin-1").split(",")):
            before = _read(hop.strip())
            # Where nobody can read on, whoever wrote it is as near as we get.
            if before is None or not self._trusts(client):
                break
            client = before
        return _named(client)

    def _trusts(self, address: IPv4Address | IPv6Address) -> bool:
        return any(address in network for network in self._trusted)


def _read(text: str) -> IPv4Address | IPv6Address | None:
    """An address, perhaps with its port; `None` for anything else."""
    for candidate in (text, text.removeprefix("[").rpartition("]")[0], text.rpartition(":")[0]):
        try:
            address = ip_address(candidate)
        except ValueError:
            continue
        mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
        return mapped or address
    return None


def _named(address: IPv4Address | IPv6Address) -> str:
    if isinstance(address, IPv4Address):
        return str(address)
    return str(ip_network((address, _IPV6_PREFIX), strict=False))
