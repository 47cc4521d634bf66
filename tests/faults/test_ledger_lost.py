"""A ledger that is gone for a while: nothing is promised, nothing lost, and it is found again.

Seen red with a pool that hands out the connections of before the restart.
"""

import pytest

from onsale.domain.errors import LedgerUnavailable
from onsale.domain.event import PaymentKind
from onsale.ledger.ledger import OrderKey
from onsale.sales.service import Service
from onsale.workers import outbox, sweeper
from onsale.workers.reconciler import Reconciler
from tests.faults.conftest import Stores, reconcile
from tests.faults.load import Load
from tests.races.api import Api
from tests.races.books import assert_balanced, place
from tests.support import MakeEvent, wait_until


@pytest.mark.parametrize("end", ["kill", "stop"])
async def test_down_and_up_again_under_load(
    stores: Stores, service: Service, make_event: MakeEvent, api: Api, end: str
) -> None:
    """Killed with -9, or ended in good order; it comes back and the API finds it by itself.

    Over and over, for it matters what a connection was about when it broke: its first statement,
    its handshake, or nothing.
    """
    event = await make_event(100_000)
    async with Load([api.port], event.id) as load:
        for _ in range(6):
            await wait_until(load.has_sold(100))
            stores.postgres.kill() if end == "kill" else stores.postgres.stop()
            await wait_until(load.is_broken(more=5))
            assert (await api.get("/readyz")).status_code == 503
            assert (await api.get("/healthz")).status_code == 200
            stores.postgres.start()
        await wait_until(load.has_sold(100))
        await wait_until(api.is_whole)

    assert not load.refused
    assert load.answers_lost == 0
    assert {answer.body["code"] for answer in load.broken} == {"ledger_unavailable"}
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in load.broken)
    await load.assert_kept(service)
    await reconcile(service, event.id)
    (tier,) = await assert_balanced(service, event.id)
    assert tier.sold_units >= len(load.acknowledged)


async def test_everybody_is_told_and_goes_on_after(
    stores: Stores, service: Service, make_event: MakeEvent
) -> None:
    """Each use case and each worker, with the ledger down and with connections from before."""
    event = await make_event(10, payment=PaymentKind.CARD)
    order = await place(service, event.id, "buyer-1", "press-1", 1)
    key = OrderKey(event.id, order.id)
    stores.postgres.kill()
    for use_case in (
        lambda: place(service, event.id, "buyer-2", "press-1", 1),
        lambda: service.paying.pay(key, "buyer-1", "ok"),
        lambda: service.ending.release(key, "buyer-1"),
        lambda: service.ending.refund(key),
        lambda: service.organising.set_capacity(event.id, "t1", 20),
        lambda: sweeper.run_once(service),
        lambda: outbox.run_once(service),
        lambda: Reconciler(service).run_once(),
    ):
        with pytest.raises(LedgerUnavailable):
            await use_case()
    stores.postgres.start()

    await place(service, event.id, "buyer-2", "press-1", 1)
    paid = await service.paying.pay(key, "buyer-1", "ok")
    assert paid.status.value == "confirmed"
    assert await sweeper.run_once(service) == 0
    assert await outbox.run_once(service) == 1
    await reconcile(service, event.id)
    (tier,) = await assert_balanced(service, event.id)
    assert (tier.sold_units, tier.held_units) == (1, 1)
