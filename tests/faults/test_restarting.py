"""API processes that are told to stop and replaced, one by one, in the middle of a sale."""

import signal
from collections.abc import AsyncIterator, Awaitable, Callable

import psutil
import pytest

from onsale.demo.stack import free_ports
from onsale.sales.service import Service
from onsale.settings import Settings
from tests.faults.conftest import reconcile
from tests.faults.load import Load
from tests.races.api import Api
from tests.races.books import assert_balanced
from tests.support import MakeEvent, live_orders, wait_until

TICKETS = 100_000
WORKERS = 2


@pytest.fixture(scope="session")
async def _served(
    settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Api]:
    """Processes that have no more metrics ports than there are of them."""
    env = {"ONSALE_METRICS_PORT": str(free_ports(WORKERS))}
    folder = tmp_path_factory.mktemp("restarting")
    async with Api(settings, folder, workers=WORKERS, env=env) as api:
        yield api


async def _told_to_stop_one_by_one(api: Api) -> None:
    """As an operator or an orchestrator would: the next when the one before is replaced."""
    for process in api.serving():
        process.send_signal(signal.SIGTERM)
        await _replaced(api, [process])


async def _told_to_roll(api: Api) -> None:
    """By one signal to the process that watches them, which does the rest."""
    old = api.serving()
    psutil.Process(old[0].ppid()).send_signal(signal.SIGHUP)
    await _replaced(api, old)


async def _replaced(api: Api, old: list[psutil.Process]) -> None:
    async def are_others() -> bool:
        return not set(api.serving()) & set(old) and await api.is_whole()

    await wait_until(are_others, timeout_s=60)


@pytest.mark.parametrize("restart", [_told_to_stop_one_by_one, _told_to_roll])
async def test_a_rolling_restart_costs_nobody_an_order(
    service: Service, make_event: MakeEvent, api: Api, restart: Callable[[Api], Awaitable[None]]
) -> None:
    """Every request is answered, by an order or by `503 overloaded`, and the ledger has exactly the
    orders that were answered. Seen red with uvicorn's own `shutdown` of a connection, which hangs
    up on requests that are on their way.
    """
    event = await make_event(TICKETS)
    async with Load([api.port], event.id, buyers_at_once=40) as load:
        await wait_until(load.has_sold(200))
        await restart(api)
        await wait_until(load.has_sold(200))
    assert load.answers_lost == 0
    assert {answer.outcome for answer in load.broken} <= {"503 overloaded"}
    assert not load.refused
    await load.assert_kept(service)
    assert await live_orders(service, event.id) == len(load.acknowledged)
    await reconcile(service, event.id)
    await assert_balanced(service, event.id)
