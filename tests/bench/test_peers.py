"""The services that onsale is compared with are right: on a real Postgres, by counting rows.

Figures of a service that oversells, or that forgets a limit, would compare nothing.
"""

import asyncio
import secrets
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import asyncpg
import httpx
import pytest

from loadtest.bench.peers import cte, textbook
from onsale.embedded import EmbeddedPostgres
from onsale.http.schemas import OrderOut
from tests.support import SECRET, as_buyer, items, with_scope

# As many as the benchmark has connections, and many more than a peer has.
CROWD = 128


@dataclass(frozen=True)
class Peer:
    """One of the services, started, and a connection that looks at its tables from outside."""

    client: httpx.AsyncClient
    database: asyncpg.Connection

    async def put_on_sale(self, *capacities: int, max_per_buyer: int = 0) -> str:
        """An event with tiers `t1`, `t2`, … for 1,000 each; its id."""
        event_id = secrets.token_hex(16)
        await self.database.execute(
            "INSERT INTO events VALUES ($1, 'EUR', $2)", event_id, max_per_buyer
        )
        for number, capacity in enumerate(capacities, start=1):
            await self.database.execute(
                "INSERT INTO tiers VALUES ($1, $2, 1000, $3)", event_id, f"t{number}", capacity
            )
        return event_id

    async def order(
        self, event_id: str, buyer_id: str, body: dict[str, Any], key: str = "press-1"
    ) -> httpx.Response:
        headers = as_buyer(buyer_id, key)
        return await self.client.post(f"/v1/events/{event_id}/orders", headers=headers, json=body)

    async def sold(self, event_id: str) -> dict[str, int]:
        """Units in orders by tier, by counting rows; the tiers' own counts must say the same."""
        rows = await self.database.fetch(
            "SELECT id, reserved, (SELECT coalesce(sum(quantity), 0) FROM order_items"
            "   JOIN orders ON orders.id = order_id"
            "   WHERE orders.event_id = $1 AND tier_id = tiers.id) AS units"
            " FROM tiers WHERE event_id = $1",
            event_id,
        )
        assert [row["reserved"] for row in rows] == [row["units"] for row in rows]
        return {row["id"]: row["units"] for row in rows}

    async def count_orders(self, event_id: str) -> int:
        count: int = await self.database.fetchval(
            "SELECT count(*) FROM orders WHERE event_id = $1", event_id
        )
        return count


@pytest.fixture(params=[textbook, cte], ids=lambda module: module.SCHEMA)
async def peer(
    request: pytest.FixtureRequest, postgres: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Peer]:
    """Each of the services in this process."""
    module: ModuleType = request.param
    monkeypatch.setenv("ONSALE_DATABASE_URL", postgres.url)
    monkeypatch.setenv("ONSALE_AUTH_SECRET", SECRET)
    app = module.create_app()
    database = await asyncpg.connect(
        postgres.url.replace("+asyncpg", "", 1), server_settings={"search_path": module.SCHEMA}
    )
    transport = httpx.ASGITransport(app)
    try:
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://peer") as client,
        ):
            yield Peer(client, database)
    finally:
        await database.close()


def both(quantity: int, *tier_ids: str) -> dict[str, Any]:
    """The body of an order of several tiers."""
    return {"items": [{"tier_id": tier_id, "quantity": quantity} for tier_id in tier_ids]}


def statuses(answers: list[httpx.Response]) -> Counter[int]:
    return Counter(answer.status_code for answer in answers)


async def test_the_event_of_the_benchmark_is_on_sale(peer: Peer) -> None:
    answer = await peer.order("none", secrets.token_hex(4), items(1, "ga"), key="press")
    assert answer.status_code == 201


async def test_an_order_is_confirmed_and_in_the_tables(peer: Peer) -> None:
    event_id = await peer.put_on_sale(10, 10)
    answer = await peer.order(event_id, "buyer-1", both(2, "t1", "t2"))
    assert answer.status_code == 201
    order = OrderOut.model_validate(answer.json())
    assert (order.event_id, order.buyer_id, order.status) == (event_id, "buyer-1", "confirmed")
    assert (order.amount, order.currency, order.expires_at) == (4_000, "EUR", None)
    assert [item.model_dump() for item in order.items] == both(2, "t1", "t2")["items"]
    assert await peer.sold(event_id) == {"t1": 2, "t2": 2}


async def test_the_same_press_again_is_the_same_order(peer: Peer) -> None:
    event_id = await peer.put_on_sale(2)
    first = await peer.order(event_id, "buyer-1", items(2))
    # There is nothing left, and it is still theirs.
    again = await peer.order(event_id, "buyer-1", items(2))
    assert (again.status_code, again.json()) == (201, first.json())
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert await peer.sold(event_id) == {"t1": 2}


async def test_presses_at_once_under_one_key_are_one_order(peer: Peer) -> None:
    """Red without `LOCK_BUYER` in the one and without the orders' ON CONFLICT in the other: they
    fail by the unique key.
    """
    event_id = await peer.put_on_sale(1)
    answers = await asyncio.gather(
        *(peer.order(event_id, "buyer-1", items(1)) for _ in range(CROWD))
    )
    assert statuses(answers) == {201: CROWD}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert await peer.sold(event_id) == {"t1": 1}


async def test_a_key_that_asks_for_something_else_is_refused(peer: Peer) -> None:
    event_id = await peer.put_on_sale(10)
    await peer.order(event_id, "buyer-1", items(1))
    answer = await peer.order(event_id, "buyer-1", items(2))
    assert (answer.status_code, answer.json()["detail"]) == (422, "idempotency_key_reused")
    assert await peer.sold(event_id) == {"t1": 1}


async def test_a_crowd_buys_what_there_is_and_nothing_more(peer: Peer) -> None:
    """Red without `FOR UPDATE` in the one, whose orders then fail by the CHECK, and without the
    CHECK in the other, which then oversells. The crowd is larger than the pool, and waits.
    """
    event_id = await peer.put_on_sale(50)
    answers = await asyncio.gather(
        *(peer.order(event_id, f"buyer-{number}", items(1)) for number in range(CROWD))
    )
    assert statuses(answers) == {201: 50, 409: CROWD - 50}
    refused = {answer.json()["detail"] for answer in answers if answer.status_code == 409}
    assert refused == {"sold_out"}
    assert await peer.sold(event_id) == {"t1": 50}
    assert await peer.count_orders(event_id) == 50


async def test_orders_of_several_tiers_take_all_or_nothing(peer: Peer) -> None:
    """Red when the one looks at the first tier's stock alone, and when the other has HAVING without
    its cardinality.
    """
    event_id = await peer.put_on_sale(1_000, 50)
    bodies = (both(1, "t1", "t2"), both(1, "t2", "t1"))
    answers = await asyncio.gather(
        *(peer.order(event_id, f"buyer-{number}", bodies[number % 2]) for number in range(CROWD))
    )
    assert statuses(answers) == {201: 50, 409: CROWD - 50}
    latecomer = await peer.order(event_id, "buyer-late", bodies[0])
    assert (latecomer.status_code, latecomer.json()["detail"]) == (409, "sold_out")
    assert await peer.sold(event_id) == {"t1": 50, "t2": 50}


async def test_the_limit_of_a_buyer_holds_for_presses_at_once(peer: Peer) -> None:
    """Red without `LOCK_BUYER` in the one and without the buyers' CHECK in the other."""
    event_id = await peer.put_on_sale(100, 100, max_per_buyer=3)
    answers = await asyncio.gather(
        *(
            peer.order(event_id, "buyer-1", items(1, f"t{number % 2 + 1}"), key=f"press-{number}")
            for number in range(30)
        )
    )
    assert statuses(answers) == {201: 3, 409: 27}
    refused = {answer.json()["detail"] for answer in answers if answer.status_code == 409}
    assert refused == {"buyer_limit_reached"}
    assert sum((await peer.sold(event_id)).values()) == 3


async def test_what_cannot_be_an_order_is_refused(peer: Peer) -> None:
    event_id = await peer.put_on_sale(10)
    orders = f"/v1/events/{event_id}/orders"
    key = {"Idempotency-Key": "press-1"}
    refusals = {
        "no token": await peer.client.post(orders, headers=key, json=items()),
        "a false one": await peer.client.post(
            orders, headers={**key, "Authorization": "Bearer no.such.token"}, json=items()
        ),
        "no right to buy": await peer.client.post(
            orders, headers={**key, **with_scope("admin")}, json=items()
        ),
        "no key": await peer.client.post(orders, headers=with_scope("buy"), json=items()),
        "no event": await peer.order("nowhere", "buyer-1", items()),
        "no tier": await peer.order(event_id, "buyer-1", items(1, "t9")),
        "no quantity": await peer.order(event_id, "buyer-1", items(0)),
        "paid": await peer.order(event_id, "buyer-1", items() | {"payment": {"method": "ok"}}),
    }
    assert {name: answer.status_code for name, answer in refusals.items()} == {
        "no token": 401,
        "a false one": 401,
        "no right to buy": 403,
        "no key": 422,
        "no event": 404,
        "no tier": 422,
        "no quantity": 422,
        "paid": 422,
    }
    assert await peer.sold(event_id) == {"t1": 0}
