"""Whose address a request has, by what proxies said and by who they are."""

from ipaddress import ip_network

import pytest

from onsale.http.addresses import ClientAddresses

PROXIES = ("10.0.0.0/8", "fd00::/8")


def client(peer: str | None, *forwarded_for: str, trusted: tuple[str, ...] = PROXIES) -> str:
    headers = [(b"x-forwarded-for", value.encode("latin-1")) for value in forwarded_for]
    scope = {"client": peer and (peer, 4_711), "headers": headers}
    return ClientAddresses([ip_network(network) for network in trusted]).of(scope)


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "found"),
    [
        pytest.param("192.0.2.7", [], "192.0.2.7", id="nobody between"),
        pytest.param("10.0.0.1", [], "10.0.0.1", id="a proxy that asks for itself"),
        pytest.param("10.0.0.1", ["192.0.2.7"], "192.0.2.7", id="one proxy"),
        pytest.param("10.0.0.1", ["192.0.2.7, 10.0.0.2"], "192.0.2.7", id="two proxies"),
        pytest.param("10.0.0.1", ["192.0.2.7", "10.0.0.2"], "192.0.2.7", id="a header of each"),
        pytest.param("10.0.0.1", ["1.1.1.1, 192.0.2.7"], "192.0.2.7", id="a client that invents"),
        pytest.param("192.0.2.7", ["1.1.1.1"], "192.0.2.7", id="without a proxy it may invent"),
        pytest.param("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3", id="proxies all the way"),
        pytest.param("10.0.0.1", ["192.0.2.7:443"], "192.0.2.7", id="with a port"),
        pytest.param("10.0.0.1", ["unknown"], "10.0.0.1", id="nothing to read"),
        pytest.param("10.0.0.1", ["1.1.1.1, ünknown"], "10.0.0.1", id="nothing to read on from"),
        pytest.param("10.0.0.1", ["2001:db8::5"], "2001:db8::/64", id="IPv6 by its network"),
        pytest.param("10.0.0.1", ["[2001:db8::5]:443"], "2001:db8::/64", id="IPv6 with a port"),
        pytest.param("fd00::1", ["192.0.2.7"], "192.0.2.7", id="a proxy with IPv6"),
        pytest.param("::ffff:10.0.0.1", ["192.0.2.7"], "192.0.2.7", id="IPv4 within IPv6"),
        pytest.param(None, ["192.0.2.7"], "local", id="a unix socket"),
    ],
)
def test_the_first_who_is_not_trusted_from_the_right(
    peer: str | None, forwarded_for: list[str], found: str
) -> None:
    assert client(peer, *forwarded_for) == found


def test_trusting_nobody() -> None:
    assert client("10.0.0.1", "192.0.2.7", trusted=()) == "10.0.0.1"
