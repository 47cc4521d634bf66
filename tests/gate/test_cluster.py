"""The gate on a cluster of three: each event is decided by the node that owns its slot, and by none
that its epoch does not name. A slot that moves and a node that ends cost a pause and no order.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from sqlalchemy import text

from onsale.domain.errors import GateLost, GateUnavailable
from onsale.domain.event import Event
from onsale.domain.inventory import Outcome
from onsale.embedded import EmbeddedPostgres
from onsale.gate.epoch import make_epoch
from onsale.gate.gate import Gate
from onsale.gate.keeping import GateEvicts
from onsale.gate.keys import event_keys, limit_key
from onsale.observability.runtime import stop
from onsale.sales.service import Service
from onsale.settings import Settings
from onsale.workers.loop import repeat
from onsale.workers.reconciler import Reconciler
from tests.faults.conftest import reconcile
from tests.faults.load import Grown, Load
from tests.gate.cluster import (
    Cluster,
    Node,
    carry_keys,
    move_at_once,
    move_by_keys,
    three_nodes,
)
from tests.gate.support import OpenSale, an_event, an_order, on_sale, pairs
from tests.gate.test_epochs import OPERATIONS, READINGS, stopped
from tests.races.api import Api
from tests.races.books import assert_balanced
from tests.races.stores import own_database, settings_for
from tests.support import MakeEvent, as_buyer, items, live_orders, wait_until, with_scope

# More than are sold while a slot moves.
TICKETS = 6_000
ORDER = an_order("buyer", "key")

Move = Callable[[Cluster, str, Node], Awaitable[None]]
moves = pytest.mark.parametrize("move", [move_by_keys, move_at_once])


@pytest.fixture(scope="session")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    """Three nodes; a test that ends one starts it again."""
    async with three_nodes(tmp_path_factory.mktemp("cluster")) as made:
        yield made


@pytest.fixture(scope="session")
def settings(postgres: EmbeddedPostgres, cluster: Cluster) -> Iterator[Settings]:
    """Settings of processes whose gate is the cluster, on a ledger that nobody else reconciles."""
    with own_database(postgres, "cluster") as database_url:
        made = settings_for(database_url, cluster.nodes[0].cluster_url)
        yield made.model_copy(update={"reconciler_grace_seconds": 0.5})


@asynccontextmanager
async def gate_by(node: Node, *, rest_seconds: float = 1e-6) -> AsyncIterator[Gate]:
    """The gate's client of a process that was told of this node."""
    gate = Gate.connect(
        Settings(
            redis_url=node.cluster_url,
            redis_timeout_seconds=0.5,
            redis_rest_seconds=rest_seconds,
        )
    )
    try:
        yield gate
    finally:
        await gate.close()


@pytest.fixture
async def gate(cluster: Cluster) -> AsyncIterator[Gate]:
    """The gate's client of one process."""
    async with gate_by(cluster.nodes[0]) as made:
        yield made


@pytest.fixture
async def other_gate(cluster: Cluster) -> AsyncIterator[Gate]:
    """Of another process."""
    async with gate_by(cluster.nodes[1]) as made:
        yield made


@pytest.mark.parametrize("number", [0, 1, 2])
async def test_one_node_that_evicts_is_enough_to_be_refused(
    cluster: Cluster, gate: Gate, number: int
) -> None:
    node = cluster.nodes[number]
    await gate.require_noeviction()
    await node.client.config_set("maxmemory-policy", "volatile-lru")
    try:
        with pytest.raises(GateEvicts, match=f"127.0.0.1:{node.port} "):
            await gate.require_noeviction()
    finally:
        await node.client.config_set("maxmemory-policy", "noeviction")


Made = Callable[[], Awaitable[Event]]


async def one_for_each_node(cluster: Cluster, make: Made) -> dict[Node, Event]:
    """An event for each node; ids are random, so that some are made in vain."""
    found: dict[Node, Event] = {}
    while len(found) < len(cluster.nodes):
        event = await make()
        found[await cluster.owner(event.id)] = event
    return found


async def a_sale(cluster: Cluster, gate: Gate, node: Node) -> OpenSale:
    """A sale of five tickets at this node."""

    async def make() -> Event:
        return an_event(5)

    return await on_sale(gate, (await one_for_each_node(cluster, make))[node])


async def admit(gate: Gate, sale: OpenSale) -> Outcome:
    """What the gate says to one order."""
    answer = await gate.admit(sale.event.id, sale.epoch, pairs(ORDER))
    return answer.outcomes[0]


async def stored(node: Node, event_id: str) -> list[bytes | None]:
    """The event's keys as they are at the node that owns them."""
    return [await node.client.dump(key) for key in event_keys(event_id)]


# -- who decides


@pytest.mark.parametrize("number", range(3))
async def test_an_event_is_decided_by_the_node_that_owns_its_slot(
    gate: Gate, cluster: Cluster, number: int
) -> None:
    """Seen red with every event asked of the first node."""
    node = cluster.nodes[number]
    sale = await a_sale(cluster, gate, node)
    assert await gate.run_id(sale.event.id) == await node.run_id()
    await node.client.config_resetstat()
    for operation in OPERATIONS.values():
        await operation(gate, sale.event, sale.epoch)
    ran = (await node.client.info("commandstats"))["cmdstat_evalsha"]
    assert ran["calls"] - ran["failed_calls"] == len(OPERATIONS)
    for reading in READINGS.values():
        await reading(gate, sale.event.id)


async def test_many_who_ask_at_once_share_one_map(cluster: Cluster) -> None:
    """Seen red with a map for each."""
    node = cluster.nodes[0]
    await node.client.config_resetstat()
    async with gate_by(node) as gate:
        await asyncio.gather(*(gate.run_id(an_event(1).id) for _ in range(20)))
    stats = await node.client.info("commandstats")
    assert stats["cmdstat_cluster|slots"]["calls"] == 1


async def test_nodes_that_do_not_say_their_names_are_where_they_were_found(
    gate: Gate, other_gate: Gate, cluster: Cluster
) -> None:
    """They name only ports, in their map and in their redirections; seen red with either of the
    two taken as it is.
    """
    async with cluster.with_option("cluster-preferred-endpoint-type", "unknown-endpoint"):
        sale = await a_sale(cluster, gate, cluster.nodes[2])
        await move_by_keys(cluster, sale.event.id, cluster.nodes[1])
        with pytest.raises(GateLost):
            await admit(gate, sale)
        assert await admit(gate, await on_sale(other_gate, sale.event, 2)) is Outcome.ADMITTED


# -- a slot that goes elsewhere


@moves
async def test_a_gate_that_moved_decides_nothing_until_it_is_loaded_anew(
    gate: Gate, other_gate: Gate, cluster: Cluster, move: Move
) -> None:
    """Though all its data went along: that cannot be told from a fail-over that lost some.

    For the process that knew where it was, and for one that asks for the first time. Seen red with
    run ids not compared, and with a redirection taken for an outage.
    """
    sale = await a_sale(cluster, gate, cluster.nodes[0])
    await admit(gate, sale)
    before = await stored(cluster.nodes[0], sale.event.id)
    await move(cluster, sale.event.id, cluster.nodes[2])
    for client in (gate, other_gate):
        for operation in OPERATIONS.values():
            with pytest.raises(GateLost):
                await operation(client, sale.event, sale.epoch)
    assert await stored(cluster.nodes[2], sale.event.id) == before
    sale = await on_sale(gate, sale.event, generation=2)
    assert await admit(gate, sale) is Outcome.ADMITTED


@moves
async def test_a_process_that_knows_the_old_place_finds_the_new_one(
    gate: Gate, other_gate: Gate, cluster: Cluster, move: Move
) -> None:
    """It hears of the new epoch before it has heard of the move. Seen red with its map believed,
    and with a redirection not followed then.
    """
    sale = await a_sale(cluster, gate, cluster.nodes[1])
    await move(cluster, sale.event.id, cluster.nodes[0])
    sale = await on_sale(other_gate, sale.event, generation=2)
    assert await admit(gate, sale) is Outcome.ADMITTED


async def test_while_its_keys_are_carried_nobody_is_admitted_anywhere(
    gate: Gate, cluster: Cluster
) -> None:
    """The new place would say yes to whoever asks for a migrating slot: it has the epoch, and no
    run that it names.
    """
    sale = await a_sale(cluster, gate, cluster.nodes[0])
    before = await stored(cluster.nodes[0], sale.event.id)
    await carry_keys(cluster, sale.event.id, cluster.nodes[1])
    with pytest.raises(GateUnavailable) as told:
        await admit(gate, sale)
    assert type(told.value) is GateUnavailable, "it may stay where it was"
    async with gate_by(cluster.nodes[0], rest_seconds=3_600) as patient:
        neighbour = await a_sale(cluster, patient, cluster.nodes[0])
        with pytest.raises(GateUnavailable):
            await admit(patient, sale)
        assert await admit(patient, neighbour) is Outcome.ADMITTED, "its node is well"
    await move_by_keys(cluster, sale.event.id, cluster.nodes[1])
    assert await stored(cluster.nodes[1], sale.event.id) == before


# -- a node that ends


async def test_a_node_that_is_down_takes_its_own_events_with_it(
    gate: Gate, cluster: Cluster
) -> None:
    """Even the node that the URL names: the others are known by then. It comes back as a new run
    with the data of before. Seen red with nobody asked but the first, and without the second check
    of the run id.
    """
    down = cluster.nodes[0]
    sales = [await a_sale(cluster, gate, node) for node in cluster.nodes]
    down.kill()
    await gate.ping()
    for _ in range(2):
        with pytest.raises(GateUnavailable):
            await admit(gate, sales[0])
        for sale in sales[1:]:
            await admit(gate, sale)
    down.start()
    await wait_until(cluster.is_whole)
    with pytest.raises(GateLost):
        await admit(gate, sales[0])
    sale = await on_sale(gate, sales[0].event, generation=2)
    assert await admit(gate, sale) is Outcome.ADMITTED


async def test_a_replica_that_lacks_the_last_writes_decides_nothing(tmp_path: Path) -> None:
    """It has the epoch that is in force, and would sell a seat that was sold: seen red with run ids
    not compared, and with an owner that is never looked for anew.
    """
    async with three_nodes(tmp_path) as cluster, Node(tmp_path / "replica") as replica:
        primary = cluster.nodes[1]
        await cluster.add_replica(replica, primary)
        async with gate_by(cluster.nodes[0]) as gate:
            sale = await a_sale(cluster, gate, primary)
            await primary.client.wait(1, 0)
            with stopped(replica):
                await primary.client.client_kill_filter(_type="replica")
                assert await admit(gate, sale) is Outcome.ADMITTED
                primary.kill()
            await replica.ask("CLUSTER FAILOVER", "TAKEOVER")

            async def lost() -> bool:
                try:
                    await admit(gate, sale)
                except GateUnavailable as error:
                    return isinstance(error, GateLost)
                raise AssertionError("a promoted replica has decided")

            await wait_until(lost)
            keys = event_keys(sale.event.id)
            assert await replica.client.hget(keys.sale, "epoch") == sale.epoch.encode()
            assert await replica.client.hlen(keys.orders) == 0
            sale = await on_sale(gate, sale.event, generation=2)
            assert await gate.adopt(sale.event.id, sale.epoch, pairs(ORDER)) == 1
            assert await admit(gate, sale) is Outcome.SEEN


async def test_a_node_that_hangs_is_left_alone_and_no_other(cluster: Cluster) -> None:
    """Though the call began at another, where its event had been: seen red with that one blamed."""
    async with gate_by(cluster.nodes[2], rest_seconds=3_600) as gate:
        sale, neighbour = [await a_sale(cluster, gate, cluster.nodes[0]) for _ in range(2)]
        await move_by_keys(cluster, sale.event.id, cluster.nodes[1])
        epoch = make_epoch(2, await cluster.nodes[1].run_id())
        with stopped(cluster.nodes[1]), pytest.raises(GateUnavailable):
            await admit(gate, OpenSale(sale.event, epoch))
        with pytest.raises(GateUnavailable):
            await admit(gate, OpenSale(sale.event, epoch))
        assert await admit(gate, neighbour) is Outcome.ADMITTED
    await wait_until(cluster.is_whole)


# -- the whole service


async def test_orders_for_events_on_all_three_nodes(
    service: Service, client: httpx.AsyncClient, cluster: Cluster, make_event: MakeEvent
) -> None:
    """Placed, paid for in one call, sold out, given up and audited, by the API."""
    events = await one_for_each_node(cluster, lambda: make_event(3, max_per_buyer_units=1))
    for event in events.values():
        orders = f"/v1/events/{event.id}/orders"
        placed = [await client.post(orders, json=items(), headers=as_buyer(b)) for b in "abacd"]
        told = [answer.json().get("code") or answer.json()["status"] for answer in placed]
        bought = "confirmed"
        assert told == [bought, bought, "buyer_limit_reached", bought, "sold_out"]
        refunded = await client.post(
            f"{orders}/{placed[0].json()['id']}/refund", headers=with_scope("admin")
        )
        assert refunded.status_code == 200
        again = await client.post(orders, json=items(), headers=as_buyer("e"))
        assert again.status_code == 201
        audit = await client.get(f"/v1/events/{event.id}/audit", headers=with_scope("ops"))
        assert audit.json()["balanced"], audit.json()
    assert (await client.get("/readyz")).status_code == 200


@pytest.fixture(scope="session")
async def api(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Api]:
    """A process that serves the API."""
    async with Api(settings, tmp_path_factory.mktemp("api")) as made:
        yield made


@asynccontextmanager
async def reconciling(service: Service) -> AsyncIterator[Callable[[int], Grown]]:
    """The reconciler at work, more often than it would be. Gives states to wait for: that it has
    loaded so many gates anew.
    """
    rebuilt: list[None] = []
    reconciler = Reconciler(service)

    async def run_once() -> None:
        repairs = await reconciler.run_once()
        rebuilt.extend([None] * repairs.rebuilt)

    working = asyncio.create_task(repeat("reconciler", run_once, 0.1))
    try:
        yield lambda gates: Grown(rebuilt, len(rebuilt) + gates)
    finally:
        await stop(working)


async def assert_exactly_once(service: Service, event: Event, load: Load) -> None:
    """Every order that a buyer was told of is in both stores, and all others are in both too."""
    await load.assert_kept(service)
    await reconcile(service, event.id)
    await assert_balanced(service, event.id)
    async with service.database.transaction("test") as connection:
        rows = await connection.execute(
            text("SELECT id FROM orders WHERE event_id = :event AND status = 'confirmed'"),
            {"event": event.id},
        )
        in_ledger = sorted(id_.bytes for (id_,) in rows)
    at_gate = sorted([id_ async for chunk in service.gate.orders(event.id) for id_ in chunk])
    assert at_gate == in_ledger
    assert {bytes.fromhex(id_) for id_ in load.acknowledged.values()} <= set(in_ledger)


@pytest.mark.parametrize(
    ("move", "limit_units"), [(move_by_keys, 0), (move_by_keys, 1), (move_at_once, 0)]
)
async def test_a_slot_moves_in_the_middle_of_its_sale(
    service: Service,
    cluster: Cluster,
    api: Api,
    make_event: MakeEvent,
    move: Move,
    limit_units: int,
) -> None:
    """There and back again, while buyers press; then the sale goes on until the last seat. What
    the gate cannot decide meanwhile the ledger decides, so that nobody notices.

    With a limit per buyer and without one: then a key is missing from the start, and a server that
    carries a slot answers otherwise.
    """
    event = await make_event(TICKETS, max_per_buyer_units=limit_units)
    home, abroad = await cluster.owner(event.id), await cluster.elsewhere(event.id)
    async with reconciling(service) as has_loaded, Load([api.port], event.id) as load:
        for target in (abroad, home):
            await wait_until(load.has_sold(100))
            loaded = has_loaded(1)
            await move(cluster, event.id, target)
            await wait_until(loaded)

        async def sold_out() -> bool:
            return load.refused["409 sold_out"] > 0

        await wait_until(sold_out)
    assert load.refused.keys() == {"409 sold_out"}
    assert not load.broken
    await assert_exactly_once(service, event, load)
    assert await live_orders(service, event.id) == TICKETS


async def test_a_node_ends_in_the_middle_of_two_sales(
    service: Service, cluster: Cluster, api: Api, make_event: MakeEvent
) -> None:
    """Nobody follows it; it comes back as a new run. Its own sale goes on by the ledger alone, and
    the other by its gate.
    """
    events = await one_for_each_node(cluster, lambda: make_event(100_000))
    struck, spared = events[cluster.nodes[0]], events[cluster.nodes[1]]
    async with (
        reconciling(service) as has_loaded,
        Load([api.port], struck.id, buyers_at_once=8) as there,
        Load([api.port], spared.id, buyers_at_once=8) as here,
    ):
        await wait_until(there.has_sold(100))
        cluster.nodes[0].kill()
        for load in (there, here):
            await wait_until(load.has_sold(100))
        assert (await api.get("/readyz")).status_code == 200
        loaded = has_loaded(1)
        cluster.nodes[0].start()
        await wait_until(loaded)
        await wait_until(there.has_sold(100))
    for load in (there, here):
        assert not load.broken
        assert not load.refused
    for event, load in ((struck, there), (spared, here)):
        await assert_exactly_once(service, event, load)


async def test_rate_limits_are_kept_by_one_node(cluster: Cluster) -> None:
    """Whichever node a process was told of: the one that owns their slot counts for all."""
    key = limit_key("buyer", "in-a-cluster")
    waits = []
    for node in cluster.nodes:
        async with gate_by(node) as gate:
            wait, _ = await gate.throttle([key], [1, 1_000_000_000, 2])
            waits.append(wait > 0)
    assert waits == [False, False, True]
