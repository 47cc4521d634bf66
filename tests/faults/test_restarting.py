"""API processes that are told to stop and replaced, one by one, in the middle of a sale."""

import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from pathlib import Path

import psutil
import pytest

from onsale.demo.stack import free_ports
from onsale.domain.event import Event
from onsale.sales.service import Service
from onsale.settings import Settings
from tests.faults.conftest import reconcile
from tests.faults.load import Load
from tests.faults.test_processes import admitted_at_the_gate, tiers_locked
from tests.races.api import Api
from tests.races.books import assert_balanced
from tests.races.crowd import Answer, Buyer, Press
from tests.support import MakeEvent, items, live_orders, wait_until

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

    await wait_until(are_others, timeout_s=120)


@pytest.mark.timeout(400)
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


@asynccontextmanager
async def _with_an_order_on_its_way(
    service: Service, event: Event, settings: Settings, folder: Path, shutdown_seconds: int
) -> AsyncIterator[tuple[Api, Buyer, Buyer, AsyncExitStack]]:
    """A process whose ledger is slow until the stack is closed, a buyer who waits for it, and one
    who is connected.
    """
    env = {"ONSALE_SHUTDOWN_SECONDS": str(shutdown_seconds)}
    async with Api(settings, folder, env=env) as api, AsyncExitStack() as slow:
        buyer, late = [await Buyer.connect(api.port) for _ in range(2)]
        await slow.enter_async_context(tiers_locked(service, event))
        buyer.send(Press(event.id, "buyer-1", "press-1", items(1)))

        async def is_admitted() -> bool:
            return await admitted_at_the_gate(service, event) == 1

        await wait_until(is_admitted)
        yield api, buyer, late, slow


async def test_told_to_stop_it_answers_who_is_inside_and_nobody_else(
    service: Service, make_event: MakeEvent, settings: Settings, tmp_path: Path
) -> None:
    """Seen red with the doors left open: the late order is placed as well."""
    event = await make_event(TICKETS)
    making = _with_an_order_on_its_way(service, event, settings, tmp_path, shutdown_seconds=60)
    async with making as (api, buyer, late, slow):
        (process,) = api.serving()
        process.send_signal(signal.SIGTERM)
        refused = await _refused(late)
        assert refused.outcome == "503 overloaded"
        assert int(refused.headers["retry-after"]) > 0
        await slow.aclose()
        answer = await buyer.answer()
        assert (answer.status, answer.headers["connection"]) == (201, "close")
        await _ended(process)
    assert await live_orders(service, event.id) == 1


async def test_told_to_stop_it_does_not_wait_for_ever(
    service: Service, make_event: MakeEvent, settings: Settings, tmp_path: Path
) -> None:
    """Whoever is inside is let down, and asks again; the ledger is not back before the end."""
    event = await make_event(TICKETS)
    making = _with_an_order_on_its_way(service, event, settings, tmp_path, shutdown_seconds=1)
    async with making as (api, buyer, _, slow):
        (process,) = api.serving()
        process.send_signal(signal.SIGTERM)
        await _ended(process)
        answer = await buyer.answer()
        assert answer.outcome == "503 ledger_unavailable", "what became of the order is not known"
        await slow.aclose()


async def _refused(buyer: Buyer) -> Answer:
    """The last word on a connection: until the signal is heard there is no such event."""
    for number in count():
        answer = await buyer.press(Press("0" * 32, "late", f"press-{number}", items(1)))
        if "connection" in answer.headers:
            return answer
        assert answer.outcome in ("404 not_found", "503 overloaded")
    raise AssertionError


async def _ended(process: psutil.Process) -> None:
    async def is_gone() -> bool:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE

    await wait_until(is_gone, timeout_s=60)
