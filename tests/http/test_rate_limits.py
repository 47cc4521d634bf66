"""Limits per buyer and per address, as buyers meet them; a rate so low that nothing comes back
while a test runs, so that what passes is the burst.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from onsale.domain.event import Event
from onsale.embedded import EmbeddedValkey
from onsale.http.app import create_app
from onsale.observability import metrics
from onsale.settings import Settings
from tests.http.calls import orders_path, place, problem_of, started
from tests.support import MakeEvent, as_buyer, items, wait_until

RATE, BURST = 0.01, 3
BY_BUYER: dict[str, Any] = {
    "rate_limit_buyer_per_second": RATE,
    "rate_limit_buyer_burst": BURST,
}
BY_ADDRESS: dict[str, Any] = {
    "rate_limit_address_per_second": RATE,
    "rate_limit_address_burst": BURST,
}


@pytest.fixture(autouse=True)
async def no_buckets(settings: Settings) -> None:
    """What other tests took from."""
    async with Redis.from_url(settings.redis_url) as redis:
        async for key in redis.scan_iter("onsale:{limits}:*"):
            await redis.delete(key)


@asynccontextmanager
async def limited(settings: Settings, **changed: Any) -> AsyncIterator[httpx.AsyncClient]:
    """An API with limits."""
    # Read as from the environment: networks are text there.
    read = Settings.model_validate({**settings.model_dump(), **changed})
    async with started(read) as (_, client):
        yield client


async def press(client: httpx.AsyncClient, event: Event, buyer: str, via: str = "") -> int:
    headers = as_buyer(buyer) | ({"X-Forwarded-For": via} if via else {})
    answer = await client.post(orders_path(event.id), json=items(), headers=headers)
    return answer.status_code


async def test_a_buyer_beyond_the_limit_waits_and_nobody_else_does(
    settings: Settings, make_event: MakeEvent
) -> None:
    """Pressed at once, so that one batch has to tell them apart: seen red with each request of a
    batch held against the buckets as they were before it.
    """
    event = await make_event()
    async with limited(settings, **BY_BUYER) as client:
        answers = Counter(
            await asyncio.gather(*(press(client, event, "greedy") for _ in range(3 * BURST)))
        )
        assert answers == {201: BURST, 429: 2 * BURST}
        assert await press(client, event, "modest") == 201


async def test_two_processes_count_together(settings: Settings, make_event: MakeEvent) -> None:
    event = await make_event()
    async with limited(settings, **BY_BUYER) as one, limited(settings, **BY_BUYER) as other:
        answers = [await press(api, event, "greedy") for api in (one, other) for _ in range(BURST)]
        assert Counter(answers) == {201: BURST, 429: BURST}


async def test_the_refusal_says_when_to_come_again(
    settings: Settings, make_event: MakeEvent
) -> None:
    event = await make_event()
    async with limited(settings, **BY_BUYER) as client:
        for _ in range(BURST):
            assert await press(client, event, "greedy") == 201
        for _ in range(2):  # told by Redis, then remembered
            answer = await place(client, event.id, headers=as_buyer("greedy"))
            problem_of(answer, 429, "rate_limited")
            assert 90 <= int(answer.headers["retry-after"]) <= 1 / RATE + 4
            assert "ratelimit" not in answer.headers


async def test_the_draft_headers_when_they_are_wanted(
    settings: Settings, make_event: MakeEvent
) -> None:
    event = await make_event()
    wanted = BY_BUYER | BY_ADDRESS | {"rate_limit_headers": True}
    async with limited(settings, **wanted) as client:
        told = [await place(client, event.id, headers=as_buyer("b-1")) for _ in range(BURST + 1)]
    assert [answer.status_code for answer in told] == [201] * BURST + [429]
    for answer, left in zip(told, (2, 1, 0, 0), strict=True):
        policy, standing = answer.headers["ratelimit-policy"], answer.headers["ratelimit"]
        assert policy == '"buyer";q=3;w=300, "address";q=3;w=300'
        assert standing.startswith(f'"buyer";r={left};t=')
        assert f'"address";r={left};t=' in standing


async def test_an_address_beyond_the_limit(settings: Settings, make_event: MakeEvent) -> None:
    """Of many buyers; by a trusted proxy's word, and not by a client's own. Seen red with the
    header read from its left end.
    """
    event = await make_event()
    # The test's client is at 127.0.0.1.
    trusting = BY_ADDRESS | {"trusted_proxies": ["127.0.0.1/32"]}
    async with limited(settings, **trusting) as client:
        numbers = range(2 * BURST)
        answers = [
            await press(client, event, f"buyer-{n}", via=f"1.1.1.{n}, 192.0.2.7") for n in numbers
        ]
        assert Counter(answers) == {201: BURST, 429: BURST}
        assert await press(client, event, "buyer-9", via="192.0.2.8") == 201
    async with limited(settings, **BY_ADDRESS) as client:
        answers = [await press(client, event, f"b-{n}", via=f"192.0.3.{n}") for n in numbers]
        assert Counter(answers) == {201: BURST, 429: BURST}


async def test_who_is_refused_by_one_limit_takes_nothing_from_the_other(
    settings: Settings, make_event: MakeEvent
) -> None:
    event = await make_event()
    both = BY_BUYER | BY_ADDRESS | {"rate_limit_address_burst": BURST + 1}
    async with limited(settings, **both) as client:
        greedy = [await press(client, event, "greedy") for _ in range(4 * BURST)]
        assert Counter(greedy) == {201: BURST, 429: 3 * BURST}
        assert await press(client, event, "modest") == 201
        assert await press(client, event, "late") == 429


async def test_an_address_waits_for_its_own_bucket_and_not_for_a_buyers(
    settings: Settings, make_event: MakeEvent
) -> None:
    """A greedy buyer finds the address's bucket empty as well; that one is soon filled again, and
    whoever else is behind the address must not wait for the buyer's. Seen red with the longest wait
    remembered for each empty bucket.
    """
    event = await make_event()
    soon: dict[str, Any] = {"rate_limit_address_per_second": 2.0, "rate_limit_address_burst": 1}
    async with limited(settings, **{**BY_BUYER, "rate_limit_buyer_burst": 1}, **soon) as client:
        assert await press(client, event, "greedy") == 201
        assert await press(client, event, "greedy") == 429

        async def modest_passes() -> bool:
            return await press(client, event, "modest") == 201

        await wait_until(modest_passes, poll_s=0.1)


async def test_without_redis_nobody_waits(
    settings: Settings, make_event: MakeEvent, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """It fails open, and says so in a metric; the orders are admitted by the ledger."""
    event = await make_event()
    with EmbeddedValkey(tmp_path_factory.mktemp("limits") / "valkey") as valkey:
        gone = {"redis_url": valkey.url, **BY_BUYER}
        async with limited(settings, **gone) as client:
            valkey.kill()
            answers = [await press(client, event, "greedy") for _ in range(2 * BURST)]
            assert answers == [201] * 2 * BURST
            skipped = metrics.rate_limits_skipped_total.collect()
            assert sum(sample.value for metric in skipped for sample in metric.samples) > 0


async def test_no_limit_unless_one_is_set(settings: Settings) -> None:
    """The crowd's path asks nobody: there is nothing to be asked."""
    assert create_app(settings).api.state.service.throttle is None
