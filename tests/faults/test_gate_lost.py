"""A gate that is gone, back, emptied, or back with what it knew a while ago.

Nobody notices: what the gate does not decide is admitted by the ledger, and adopted afterwards.
"""

import asyncio
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from redis.asyncio import Redis

from onsale.domain.errors import BuyerLimitReached, SoldOut
from onsale.domain.event import Event
from onsale.gate.keys import event_keys
from onsale.observability.runtime import stop
from onsale.sales.service import Service
from onsale.settings import Settings
from onsale.workers.loop import repeat
from onsale.workers.reconciler import Reconciler
from tests.faults.conftest import Stores, admitted_by_ledger, reconcile
from tests.faults.load import Load
from tests.races.api import Api
from tests.races.books import assert_balanced, code_of, place
from tests.races.conftest import running
from tests.support import MakeEvent, live_orders, wait_until

TICKETS = 100
BUYERS = 300


async def test_emptied_in_the_middle_of_a_sale(
    service: Service, other: Service, redis: Redis, make_event: MakeEvent
) -> None:
    """FLUSHALL, three times, each when more orders are in; nobody is sold a seat twice over, and
    nobody is told to come again.
    """
    event = await make_event(TICKETS)
    reconciling = asyncio.create_task(repeat("reconciler", Reconciler(other).run_once, 0.02))
    selling = asyncio.create_task(_sell_in_waves([service, other], event))
    for wave in range(1, 4):

        async def more_are_in(sold: int = 20 * wave) -> bool:
            return await live_orders(service, event.id) >= sold

        await wait_until(more_are_in)
        await redis.flushall()
    outcomes = await selling
    await stop(reconciling)

    assert outcomes == {"confirmed": TICKETS, "sold_out": BUYERS - TICKETS}
    assert await live_orders(service, event.id) == TICKETS
    await reconcile(service, event.id)
    await assert_balanced(service, event.id)


async def _sell_in_waves(services: list[Service], event: Event) -> Counter[str]:
    """Ten buyers at a time, so that there is a middle to the sale."""
    found: Counter[str] = Counter()
    for first in range(0, BUYERS, 10):
        placing = (
            place(services[n % 2], event.id, f"buyer-{n}", "press-1", 1)
            for n in range(first, first + 10)
        )
        found.update(map(code_of, await asyncio.gather(*placing, return_exceptions=True)))
    return found


async def test_scripts_forgotten_in_the_middle_of_a_sale(
    service: Service, other: Service, redis: Redis, make_event: MakeEvent
) -> None:
    """SCRIPT FLUSH over and over, more often than there are batches: they are sent again, and where
    they are gone once more by then the ledger decides.
    """
    event = await make_event(TICKETS)
    selling = asyncio.create_task(_sell_in_waves([service, other], event))
    flushes = 0
    while not selling.done():
        await redis.script_flush()
        await live_orders(service, event.id)  # a breath in between, for the sale to go on
        flushes += 1
    assert flushes > 10
    assert await selling == {"confirmed": TICKETS, "sold_out": BUYERS - TICKETS}
    await reconcile(other, event.id)
    await assert_balanced(other, event.id)


async def test_emptied_when_sold_out(
    service: Service, other: Service, redis: Redis, make_event: MakeEvent
) -> None:
    """It is sold out while there is nothing at the gate, and when it is loaded again."""
    event = await make_event(3)
    first = [await place(service, event.id, f"buyer-{n}", "press-1", 1) for n in range(3)]
    await redis.flushall()
    async with running(service.settings) as fresh:
        for one in (service, other, fresh):
            with pytest.raises(SoldOut):
                await place(one, event.id, "buyer-9", "press-1", 1)
    await reconcile(other, event.id)
    for one in (service, other):
        with pytest.raises(SoldOut):
            await place(one, event.id, "buyer-9", "press-1", 1)
        again = [await place(one, event.id, f"buyer-{n}", "press-1", 1) for n in range(3)]
        assert again == first
    await assert_balanced(other, event.id)


# -- restored from an old snapshot


def _copy(source: Path, target: Path) -> None:
    """A copy with its owners, made while the server runs: what a backup of the disk would have."""
    subprocess.run(["rm", "-rf", str(target)], check=True)
    subprocess.run(["cp", "-a", str(source), str(target)], check=True)


async def test_restored_from_an_old_snapshot(
    stores: Stores,
    service: Service,
    other: Service,
    settings: Settings,
    redis: Redis,
    make_event: MakeEvent,
    tmp_path: Path,
) -> None:
    """It has the epoch that the ledger authorised, and half of the orders; its run id is new.

    Asked by processes whose connections are older than the restart and by one that is new. It would
    say yes to a buyer who has all that he may have; the ledger would not have it, and so what it
    must not decide is seen in who did: seen red with `names_server` answering that every server is
    the right one.
    """
    event = await make_event(20, max_per_buyer_units=4)
    for number in range(2):
        await place(service, event.id, "buyer-1", f"press-{number}", 1)
    data = stores.valkey.data_dir / "data"
    _copy(data, tmp_path / "snapshot")
    for number in range(2, 4):
        await place(other, event.id, "buyer-1", f"press-{number}", 1)
    await place(other, event.id, "buyer-2", "press-0", 4)

    stores.valkey.kill()
    _copy(tmp_path / "snapshot", data)
    stores.valkey.start()
    keys = event_keys(event.id)
    current = await service.events.get(event.id)
    assert current is not None
    assert current.gate_epoch is not None
    assert await redis.hget(keys.sale, "epoch") == current.gate_epoch.encode()
    assert await redis.hlen(keys.orders) == 2

    async with running(settings) as fresh:
        for number, one in enumerate((service, other, fresh)):
            with pytest.raises(BuyerLimitReached):
                await place(one, event.id, "buyer-1", "press-9", 2)
            await place(one, event.id, "buyer-3", f"press-{number}", 1)
        assert await admitted_by_ledger(service, event) == 3
        await reconcile(other, event.id)
        assert await admitted_by_ledger(service, event) == 0, "the gate knows of them now"
        for one in (service, other, fresh):
            with pytest.raises(BuyerLimitReached):
                await place(one, event.id, "buyer-1", "press-9", 2)
            assert await place(one, event.id, "buyer-2", "press-0", 4)
    (tier,) = await assert_balanced(other, event.id)
    assert (tier.sold_units, tier.available_units) == (11, 9)


# -- killed and unreachable, under load


@pytest.mark.parametrize("end", ["kill", "stop"])
async def test_down_and_up_again_under_load(
    stores: Stores,
    service: Service,
    other: Service,
    make_event: MakeEvent,
    api: Api,
    end: str,
) -> None:
    """Killed with -9, or ended in good order; the sale goes on without it, and with it again when
    it is back. Seen red with a batch that fails when the gate does.
    """
    event = await make_event(100_000)
    reconciling = asyncio.create_task(repeat("reconciler", Reconciler(other).run_once, 0.1))
    async with Load([api.port], event.id) as load:
        await wait_until(load.has_sold(200))
        stores.valkey.kill() if end == "kill" else stores.valkey.stop()
        await wait_until(load.has_sold(200))
        assert await admitted_by_ledger(service, event) > 0
        assert (await api.get("/readyz")).status_code == 200
        assert (await api.get("/healthz")).status_code == 200
        stores.valkey.start()
        await wait_until(api.is_whole)

        async def gate_decides_again() -> bool:
            return await admitted_by_ledger(service, event) == 0

        await wait_until(gate_decides_again)
        await wait_until(load.has_sold(200))
    await stop(reconciling)

    assert not load.broken
    assert not load.refused
    assert load.answers_lost == 0
    await load.assert_kept(service)
    await reconcile(service, event.id)
    await assert_balanced(service, event.id)
