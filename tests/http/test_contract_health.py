"""Health and readiness, and what each call answers while one of the stores is away."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import REGISTRY

from onsale.embedded import EmbeddedPostgres, EmbeddedValkey
from onsale.settings import Settings
from tests.http.calls import created, event_path, order_path, place, placed, problem_of, started
from tests.support import as_buyer, wait_until, with_scope


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[EmbeddedValkey]:
    """A gate to be stopped."""
    with EmbeddedValkey(tmp_path / "valkey") as server:
        yield server


@pytest.fixture(scope="module")
def own_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A ledger to be stopped, and started again by whoever stopped it."""
    with EmbeddedPostgres(tmp_path_factory.mktemp("ledger") / "postgres") as server:
        from onsale.ledger.migrations import migrate

        migrate(server.url)
        yield server


@pytest.fixture
async def fragile(
    settings: Settings, own_valkey: EmbeddedValkey, own_postgres: EmbeddedPostgres
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an API whose stores may be stopped."""
    changed = settings.model_copy(
        update={"redis_url": own_valkey.url, "database_url": own_postgres.url}
    )
    async with started(changed) as (_, client):
        yield client


def errors(store: str) -> float:
    """How many operations of a store this process has seen fail."""
    return sum(
        sample.value
        for family in REGISTRY.collect()
        for sample in family.samples
        if sample.name == f"onsale_{store}_errors_total"
    )


async def test_alive_and_ready(client: httpx.AsyncClient) -> None:
    alive, ready = await client.get("/healthz"), await client.get("/readyz")
    assert (alive.status_code, alive.json()["status"]) == (200, "ok")
    assert ready.status_code == 200
    assert ready.json() == {"status": "ok", "dependencies": {"postgres": True, "redis": True}}


async def _is_ready(client: httpx.AsyncClient, **dependencies: bool) -> bool:
    answer = await client.get("/readyz")
    content: dict[str, Any] = answer.json()
    # Without the gate the sale goes on.
    well = dependencies["postgres"]
    assert (answer.status_code == 200) == (content["status"] == "ok")
    return content == {
        "status": "ok" if well else "unavailable",
        "dependencies": dependencies,
    }


async def test_the_gate_is_away(fragile: httpx.AsyncClient, own_valkey: EmbeddedValkey) -> None:
    """Orders are admitted by the ledger; what only the ledger knows is answered as ever."""
    event = await created(fragile, payment="card")
    order = await placed(fragile, event["id"])
    failed_before = errors("redis")
    own_valkey.stop()

    assert await _is_ready(fragile, postgres=True, redis=False)
    assert (await fragile.get("/healthz")).status_code == 200
    assert (await place(fragile, event["id"])).status_code == 201
    assert (await fragile.get(event_path(event["id"]))).status_code == 200

    async def ledger_is_asked() -> bool:
        seen = await fragile.get(event_path(event["id"], "availability"))
        assert seen.status_code == 200
        # A picture of a moment ago is good for as long as it is young.
        return bool(seen.json()["tiers"][0]["available"] == 98)

    await wait_until(ledger_is_asked)
    assert (await fragile.get(order_path(order), headers=as_buyer())).json() == order
    paid = await fragile.post(
        order_path(order, "payment"), json={"method": "ok"}, headers=as_buyer()
    )
    assert (paid.status_code, paid.json()["status"]) == (200, "confirmed")
    audit = await fragile.get(event_path(event["id"], "audit"), headers=with_scope("ops"))
    assert audit.json()["balanced"] is False
    assert audit.json()["differences"][0]["kind"] == "gate_unavailable"
    refunded = await fragile.post(order_path(order, "refund"), headers=with_scope("admin"))
    assert refunded.status_code == 200
    assert errors("redis") > failed_before

    own_valkey.start()
    await wait_until(lambda: _is_ready(fragile, postgres=True, redis=True))


async def test_the_ledger_is_away(
    fragile: httpx.AsyncClient, own_postgres: EmbeddedPostgres
) -> None:
    """Nothing is promised that cannot be written down, and buyers come back when it can."""
    event = await created(fragile, payment="card")
    order = await placed(fragile, event["id"])
    failed_before = errors("db")
    own_postgres.stop()
    try:
        assert await _is_ready(fragile, postgres=False, redis=True)
        assert (await fragile.get("/healthz")).status_code == 200
        headers = as_buyer("buyer-2")
        for answer in (
            await place(fragile, event["id"], headers=headers),
            await fragile.get("/v1/events"),
            await fragile.get(event_path(event["id"])),
            await fragile.get(order_path(order), headers=as_buyer()),
            await fragile.get("/v1/orders", headers=as_buyer()),
            await fragile.delete(order_path(order), headers=as_buyer()),
            await fragile.post(
                order_path(order, "payment"), json={"method": "ok"}, headers=as_buyer()
            ),
            await fragile.post(event_path(event["id"], "pause"), headers=with_scope("admin")),
            await fragile.get(event_path(event["id"], "audit"), headers=with_scope("ops")),
        ):
            problem_of(answer, 503, "ledger_unavailable")
        seen = await fragile.get(event_path(event["id"], "availability"))
        assert seen.status_code == 200
        assert errors("db") > failed_before
    finally:
        own_postgres.start()
    await wait_until(lambda: _is_ready(fragile, postgres=True, redis=True))
    again = await place(fragile, event["id"], headers=headers)
    assert again.status_code == 201
