"""Where webhooks may go: to the internet at large, whatever name, number or trick leads elsewhere.

Seen red with `is_global` alone (IPv4 in IPv6, 6to4, site-local and multicast addresses passed), and
without the check of what a name leads to.
"""

import asyncio
import socket
import threading
from typing import Any

import pytest

from onsale.webhooks.targets import Lookup, TargetRefused, Targets, is_public
from tests.support import wait_until

PUBLIC = [
    "93.184.216.34",
    "8.8.8.8",
    "1.1.1.1",
    "172.15.255.255",
    "172.32.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "169.253.0.1",
    "223.255.255.255",
    "2606:4700:4700::1111",
    "2a00:1450:4001:80b::200e",
    "::ffff:8.8.8.8",
    "64:ff9b::8.8.8.8",
]
NOT_PUBLIC = {
    "unspecified": "0.0.0.0",
    "this network": "0.1.2.3",
    "private 10": "10.0.0.1",
    "private 172": "172.16.0.1",
    "the last private 172": "172.31.255.255",
    "private 192": "192.168.0.1",
    "shared with the carrier": "100.64.0.1",
    "loopback": "127.0.0.1",
    "another loopback": "127.255.255.254",
    "link-local": "169.254.1.1",
    "the cloud's metadata": "169.254.169.254",
    "protocol assignments": "192.0.0.1",
    "the dummy address": "192.0.0.8",
    "a discoverer": "192.0.0.170",
    "documentation": "192.0.2.1",
    "6to4's relay": "192.88.99.1",
    "a benchmark": "198.18.0.1",
    "multicast": "224.0.0.1",
    "the last multicast": "239.255.255.255",
    "reserved": "240.0.0.1",
    "broadcast": "255.255.255.255",
    "IPv6 unspecified": "::",
    "IPv6 loopback": "::1",
    "IPv6 link-local": "fe80::1",
    "IPv6 link-local of an interface": "fe80::1%1",
    "IPv6 unique local": "fd00::1",
    "the cloud's IPv6 metadata": "fd00:ec2::254",
    "IPv6 site-local": "fec0::1",
    "IPv6 multicast": "ff02::1",
    "IPv6 global multicast": "ff0e::1",
    "IPv6 documentation": "2001:db8::1",
    "the other IPv6 documentation": "3fff::1",
    "IPv6 discard": "100::1",
    "Teredo": "2001:0:7f00:1::",
    "6to4 of loopback": "2002:7f00:1::",
    "6to4 of a public address": "2002:808:808::",
    "mapped loopback": "::ffff:127.0.0.1",
    "mapped loopback in hexadecimal": "::ffff:7f00:1",
    "mapped private": "::ffff:10.0.0.1",
    "mapped metadata": "::ffff:169.254.169.254",
    "compatible loopback": "::127.0.0.1",
    "translated loopback": "64:ff9b::127.0.0.1",
    "translated private": "64:ff9b::192.168.0.1",
    "locally translated": "64:ff9b:1::808:808",
}

# Loopback, in every way that a resolver understands.
DISGUISES = [
    "127.0.0.1",
    "127.1",
    "2130706433",
    "0x7f000001",
    "0x7f.1",
    "0177.0.0.1",
    "017700000001",
    "0",
    "localhost",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[0:0:0:0:0:0:0:1]",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("address", NOT_PUBLIC.values(), ids=NOT_PUBLIC)
def test_an_address_that_is_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("host", DISGUISES)
async def test_loopback_in_disguise_is_refused(host: str) -> None:
    """By the system's own resolver; a number that is no address to us does not even get there."""
    with pytest.raises(TargetRefused, match=r"not a public one|not a URL"):
        await Targets(private_allowed=False).check(f"https://{host}/hook")


def leads_to(*addresses: str) -> Lookup:
    """A name server that has these addresses for everybody."""

    def look_up(host: str, port: int, **_: Any) -> list[tuple[Any, ...]]:
        return [(0, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    return look_up


async def test_a_name_that_leads_to_a_public_address() -> None:
    targets = Targets(private_allowed=False, lookup=leads_to("8.8.8.8", "2606:4700::1", "8.8.8.8"))
    await targets.check("https://receiver.example/hook?of=orders")
    assert await targets.addresses("receiver.example", 443) == ["8.8.8.8", "2606:4700::1"]


@pytest.mark.parametrize("addresses", [("10.0.0.1",), ("8.8.8.8", "127.0.0.1"), ("::1", "8.8.8.8")])
async def test_a_name_that_also_leads_elsewhere(addresses: tuple[str, ...]) -> None:
    """One address that is not public is one too many."""
    targets = Targets(private_allowed=False, lookup=leads_to(*addresses))
    with pytest.raises(TargetRefused, match="not a public one"):
        await targets.check("https://receiver.example/hook")


async def test_a_name_that_leads_nowhere() -> None:
    def no_such_name(*_: Any, **__: Any) -> list[tuple[Any, ...]]:
        raise socket.gaierror

    with pytest.raises(TargetRefused, match="no address"):
        await Targets(private_allowed=False, lookup=no_such_name).check("https://nowhere.example/")


REFUSED_URLS = {
    "plain HTTP": ("http://receiver.example/hook", "must begin with https://"),
    "another scheme": ("ftp://receiver.example/hook", "must begin with"),
    "a file": ("file:///etc/passwd", "must begin with"),
    "gopher": ("gopher://receiver.example:70/_", "must begin with"),
    "no scheme": ("receiver.example/hook", "must begin with"),
    "no host": ("https:///hook", "no host"),
    "nothing": ("", "must begin with"),
    "credentials": ("https://user:secret@receiver.example/", "credentials"),
    "a user": ("https://user@receiver.example/", "credentials"),
    "a host like credentials": ("https://receiver.example@127.0.0.1/", "credentials"),
    "a fragment": ("https://receiver.example/#top", "fragment"),
    "port 0": ("https://receiver.example:0/", "port"),
    "port 65536": ("https://receiver.example:65536/", "port"),
    "a port that is none": ("https://receiver.example:http/", "not a URL"),
    "a broken IPv6 address": ("https://[::1/", "not a URL"),
    "a line break": ("https://receiver.example/\r\nHost: inside", "not a URL"),
    "a label that is too long": (f"https://{'a' * 64}.example/", "no address"),
}


@pytest.mark.parametrize(("url", "why"), REFUSED_URLS.values(), ids=REFUSED_URLS)
async def test_a_url_that_is_refused(url: str, why: str) -> None:
    with pytest.raises(TargetRefused, match=why):
        await Targets(private_allowed=False).check(url)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8080/hook", "http://localhost/", "https://10.0.0.1/", "http://later/"]
)
async def test_where_private_targets_are_allowed(url: str) -> None:
    """Plain HTTP as well, and receivers that are not there yet."""
    await Targets(private_allowed=True).check(url)


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/", "http://me:secret@127.0.0.1/", "http://"])
async def test_what_is_refused_nevertheless(url: str) -> None:
    with pytest.raises(TargetRefused):
        await Targets(private_allowed=True).check(url)


async def test_a_silent_name_server_keeps_one_thread_and_nobody_else() -> None:
    """Many ask for the name that is not answered for; another name is answered meanwhile.

    Seen red with a lookup for each who asks, and with one thread for all.
    """
    asked: list[str] = []
    may_answer = threading.Event()

    def look_up(host: str, port: int, **_: Any) -> list[tuple[Any, ...]]:
        asked.append(host)
        if host == "silent.example":
            may_answer.wait()
        return leads_to("8.8.8.8")(host, port)

    targets = Targets(private_allowed=False, lookup=look_up)
    waiting = [asyncio.create_task(targets.addresses("silent.example", 443)) for _ in range(200)]

    async def is_asked() -> bool:
        return bool(asked)

    await wait_until(is_asked)
    try:
        assert await targets.addresses("other.example", 443) == ["8.8.8.8"]
        waiting[0].cancel()
        assert asked == ["silent.example", "other.example"]
    finally:
        may_answer.set()
    assert await asyncio.gather(*waiting[1:]) == [["8.8.8.8"]] * 199
    await targets.addresses("silent.example", 443)
    assert asked[2:] == ["silent.example"], "a name is looked up anew each time it is needed"
