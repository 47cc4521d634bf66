"""A gate that is not the one the ledger authorised decides nothing; one that is dead says nothing.

Each way of losing writes (emptied, restarted, restored, loaded anew by somebody else) is `GateLost`
before the first order; a server that does not answer is `GateUnavailable`, never an outcome.

Seen red with the epoch's check taken out of each script, with `<` for `<=` in load.lua, with epochs
compared as text, and with either of the client's two checks of the run id taken out.
"""

import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest
from prometheus_client import REGISTRY
from redis.asyncio import Redis

from onsale.domain.errors import GateLost, GateUnavailable
from onsale.domain.event import Event
from onsale.domain.inventory import Outcome
from onsale.embedded import EmbeddedValkey
from onsale.gate.epoch import generation_of, make_epoch, names_server
from onsale.gate.gate import Gate
from onsale.gate.keys import event_keys
from onsale.settings import Settings
from tests.gate.support import an_event, an_order, load, on_sale, orders_of_many, pairs
from tests.support import wait_until

ORDER = an_order("buyer", "key")

Answer = TypeVar("Answer")
Operation = Callable[[Gate, Event, str], Awaitable[object]]

# Whatever answers a buyer or changes a stock; each is refused under another epoch than the gate's.
OPERATIONS: dict[str, Operation] = {
    "admit": lambda gate, event, epoch: gate.admit(event.id, epoch, pairs(ORDER)),
    "adopt": lambda gate, event, epoch: gate.adopt(event.id, epoch, pairs(ORDER)),
    "mark": lambda gate, event, epoch: gate.mark_seen(event.id, epoch, [ORDER.id]),
    "give_back": lambda gate, event, epoch: gate.give_back(event.id, epoch, [ORDER.id]),
    "configure": lambda gate, event, epoch: gate.configure(event, epoch),
    "availability": lambda gate, event, epoch: gate.availability(event.id, epoch),
    "audit": lambda gate, event, epoch: gate.audit(event.id, epoch),
    "seen": lambda gate, event, epoch: gate.seen(event.id, epoch, 0),
    "open": lambda gate, event, epoch: gate.open(event.id, epoch),
}
# What a loading may be told before it is open.
BEFORE_OPENING = {"adopt", "mark", "configure", "open"}

operations = pytest.mark.parametrize("operation", OPERATIONS)


@operations
async def test_under_another_generation_nothing_is_done(gate: Gate, operation: str) -> None:
    sale = await on_sale(gate, an_event(5), generation=2)
    for generation in (1, 3):
        stranger = make_epoch(generation, await gate.run_id(sale.event.id))
        with pytest.raises(GateLost):
            await OPERATIONS[operation](gate, sale.event, stranger)
    await OPERATIONS[operation](gate, sale.event, sale.epoch)


@operations
async def test_under_another_servers_epoch_nothing_is_done(
    gate: Gate, redis: Redis, operation: str
) -> None:
    """Even if the data name it, as an old snapshot on a new server does."""
    sale = await on_sale(gate, an_event(5))
    elsewhere = make_epoch(generation_of(sale.epoch), "0" * 40)
    keys = event_keys(sale.event.id)
    await redis.hset(keys.sale, "epoch", elsewhere)
    before = [await redis.dump(key) for key in keys]
    with pytest.raises(GateLost):
        await OPERATIONS[operation](gate, sale.event, elsewhere)
    assert [await redis.dump(key) for key in keys] == before


@operations
async def test_an_emptied_gate_does_nothing(gate: Gate, redis: Redis, operation: str) -> None:
    sale = await on_sale(gate, an_event(5))
    await redis.delete(*event_keys(sale.event.id))
    with pytest.raises(GateLost):
        await OPERATIONS[operation](gate, sale.event, sale.epoch)
    assert await redis.exists(*event_keys(sale.event.id)) == 0


@operations
async def test_a_half_loaded_gate_admits_nobody(gate: Gate, operation: str) -> None:
    sale = await load(gate, an_event(5))
    if operation in BEFORE_OPENING:
        await OPERATIONS[operation](gate, sale.event, sale.epoch)
    else:
        with pytest.raises(GateLost):
            await OPERATIONS[operation](gate, sale.event, sale.epoch)


async def test_a_loading_ends_the_epoch_before_it(gate: Gate) -> None:
    old = await on_sale(gate, an_event(5))
    new = await load(gate, old.event, generation=2)
    for epoch in (old.epoch, new.epoch):
        with pytest.raises(GateLost):
            await gate.admit(old.event.id, epoch, pairs(ORDER))
    await gate.open(new.event.id, new.epoch)
    answer = await gate.admit(new.event.id, new.epoch, pairs(ORDER))
    assert answer.outcomes == [Outcome.ADMITTED]


@pytest.mark.parametrize("is_open", [True, False])
@pytest.mark.parametrize("generation", [1, 2])
async def test_a_loading_of_no_later_generation_changes_nothing(
    gate: Gate, is_open: bool, generation: int
) -> None:
    """Two that load at once have different generations, and the later one stands."""
    begin = on_sale if is_open else load
    sale = await begin(gate, an_event(5), generation=2)
    await gate.adopt(sale.event.id, sale.epoch, pairs(ORDER))
    with pytest.raises(GateLost):
        await load(gate, sale.event, generation)
    await gate.open(sale.event.id, sale.epoch)
    assert (await gate.availability(sale.event.id, sale.epoch)).available_units == {1: 4}


async def test_generations_are_compared_as_numbers(gate: Gate) -> None:
    sale = await on_sale(gate, an_event(5), generation=9)
    sale = await on_sale(gate, sale.event, generation=10)
    with pytest.raises(GateLost):
        await load(gate, sale.event, generation=9)


async def test_whoever_loaded_earlier_cannot_open(gate: Gate) -> None:
    event = an_event(5)
    early, late = await load(gate, event, generation=1), await load(gate, event, generation=2)
    with pytest.raises(GateLost):
        await gate.open(event.id, early.epoch)
    with pytest.raises(GateLost):
        await gate.adopt(event.id, early.epoch, pairs(ORDER))
    await gate.open(event.id, late.epoch)


async def test_opening_twice_is_opening_once(gate: Gate) -> None:
    sale = await on_sale(gate, an_event(5))
    await gate.admit(sale.event.id, sale.epoch, pairs(ORDER))
    await gate.open(sale.event.id, sale.epoch)
    assert (await gate.availability(sale.event.id, sale.epoch)).available_units == {1: 4}


def test_an_epoch_names_a_generation_and_a_run() -> None:
    epoch = make_epoch(12, "abc")
    assert generation_of(epoch) == 12
    assert generation_of(None) == 0
    assert names_server(epoch, "abc")
    assert not names_server(epoch, "abcd")
    assert not names_server(None, "abc")


# -- a server of their own, for tests that take it down


@pytest.fixture(params=["valkey", "redis"])
def own_server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EmbeddedValkey]:
    """A server that loses nothing in a crash: what is refused then is refused for the run id."""
    binary = None
    if request.param == "redis":
        binary = request.getfixturevalue("redis_binary")
    options = {"appendfsync": "always"}
    with EmbeddedValkey(tmp_path / "own", binary=binary, options=options) as server:
        yield server


def client_of(server: EmbeddedValkey) -> Gate:
    return Gate.connect(
        Settings(redis_url=server.url, redis_timeout_seconds=0.2, redis_rest_seconds=1e-6)
    )


async def reconnected(ask: Callable[[], Awaitable[Answer]]) -> Answer:
    """The first answer of the new run; until then each connection to the old one fails once."""
    for _ in range(Settings().redis_connections_max):
        try:
            return await ask()
        except GateLost:
            raise
        except GateUnavailable:
            continue
    raise AssertionError("no connection was made anew")


@operations
async def test_a_restart_is_noticed_before_anything_is_done(
    own_server: EmbeddedValkey, operation: str
) -> None:
    """The client holds connections to the run before, as every process does in a sale."""
    gate = client_of(own_server)
    sale = await on_sale(gate, an_event(5))
    await gate.admit(sale.event.id, sale.epoch, pairs(*orders_of_many(3)))
    own_server.kill()
    own_server.start()
    for _ in range(2):
        with pytest.raises(GateLost):
            await reconnected(lambda: OPERATIONS[operation](gate, sale.event, sale.epoch))
    await gate.close()


async def test_a_gate_of_an_earlier_run_is_loaded_anew(own_server: EmbeddedValkey) -> None:
    """The old epoch is still in the data, and is no obstacle."""
    gate = client_of(own_server)
    sale = await on_sale(gate, an_event(5))
    own_server.kill()
    own_server.start()
    sale = await reconnected(lambda: on_sale(gate, sale.event, generation=2))
    answer = await gate.admit(sale.event.id, sale.epoch, pairs(ORDER))
    assert answer.outcomes == [Outcome.ADMITTED]
    await gate.close()


async def test_a_process_that_was_idle_through_a_restart_goes_on(
    own_server: EmbeddedValkey,
) -> None:
    """It hears of the new epoch before it has a connection to the new run: seen red with the epoch
    compared to the run of before, which no call ever replaced.
    """
    idle, other = client_of(own_server), client_of(own_server)
    sale = await on_sale(idle, an_event(5))
    own_server.kill()
    own_server.start()
    sale = await reconnected(lambda: on_sale(other, sale.event, generation=2))
    answer = await reconnected(lambda: idle.admit(sale.event.id, sale.epoch, pairs(ORDER)))
    assert answer.outcomes == [Outcome.ADMITTED]
    for gate in (idle, other):
        await gate.close()


async def test_a_process_that_left_a_dead_server_alone_goes_on(own_server: EmbeddedValkey) -> None:
    """It tries the server again by asking for its run, and that is one call, not one in another:
    seen red with the breaker asked twice, which took the trial for somebody else's.
    """
    waiting = Gate.connect(Settings(redis_url=own_server.url, redis_rest_seconds=0.05))
    other = client_of(own_server)
    sale = await on_sale(waiting, an_event(5))
    own_server.kill()
    with pytest.raises(GateUnavailable):
        await waiting.admit(sale.event.id, sale.epoch, pairs(ORDER))
    own_server.start()
    sale = await on_sale(other, sale.event, generation=2)

    async def admitted() -> bool:
        try:
            answer = await waiting.admit(sale.event.id, sale.epoch, pairs(ORDER))
        except GateUnavailable:
            return False
        return answer.outcomes == [Outcome.ADMITTED]

    await wait_until(admitted)
    for gate in (waiting, other):
        await gate.close()


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def errors_of(operation: str) -> float:
    """Errors of an operation, of every kind, as the metrics count them."""
    return sum(
        sample.value
        for metric in REGISTRY.collect()
        for sample in metric.samples
        if sample.name == "onsale_redis_errors_total" and sample.labels["operation"] == operation
    )


@operations
async def test_a_dead_server_is_unavailable_and_counted(
    own_server: EmbeddedValkey, operation: str
) -> None:
    gate = client_of(own_server)
    sale = await on_sale(gate, an_event(5))
    assert counted("onsale_dependency_up", dependency="redis") == 1
    own_server.kill()
    before = errors_of(operation)
    with pytest.raises(GateUnavailable) as told:
        await OPERATIONS[operation](gate, sale.event, sale.epoch)
    assert type(told.value) is GateUnavailable, "nothing says that it has lost anything"
    assert errors_of(operation) == before + 1
    assert counted("onsale_dependency_up", dependency="redis") == 0
    await gate.close()


async def read_orders(gate: Gate, event_id: str) -> list[object]:
    return [chunk async for chunk in gate.orders(event_id)]


READINGS: dict[str, Callable[[Gate, str], Awaitable[object]]] = {
    "orders": read_orders,
    "missing": lambda gate, event_id: gate.missing(event_id, [ORDER.id]),
    "now_seconds": lambda gate, event_id: gate.now_seconds(event_id),
    "run_id": lambda gate, event_id: gate.run_id(event_id),
    "retire": lambda gate, event_id: gate.retire(event_id, keep_seconds=60),
}


@pytest.mark.parametrize("reading", READINGS)
async def test_reading_from_a_dead_server_is_unavailable(
    own_server: EmbeddedValkey, reading: str
) -> None:
    gate = client_of(own_server)
    sale = await on_sale(gate, an_event(5))
    own_server.kill()
    with pytest.raises(GateUnavailable):
        await READINGS[reading](gate, sale.event.id)
    await gate.close()


async def test_a_server_that_hangs_is_unavailable(own_server: EmbeddedValkey) -> None:
    gate = client_of(own_server)
    sale = await on_sale(gate, an_event(5))
    with stopped(own_server), pytest.raises(GateUnavailable):
        await gate.admit(sale.event.id, sale.epoch, pairs(ORDER))
    # It may have decided meanwhile; whoever asks again gets the same order or this one.
    answer = await gate.admit(sale.event.id, sale.epoch, pairs(ORDER))
    assert answer.outcomes[0] in {Outcome.ADMITTED, Outcome.SEEN}
    assert answer.available_units.get(1, 4) == 4
    await gate.close()


@contextmanager
def stopped(server: EmbeddedValkey) -> Iterator[None]:
    """The server, frozen; woken again whatever happens."""
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)
