"""A server that just failed is left alone, and one call at a time tries whether it is back.

Seen red with a breaker that never opens, that lets everybody through when its rest is over, that
waits for a trial which never ends, that no success closes, and that no failed trial opens again;
and with calls of which it is not told.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from redis.asyncio.connection import parse_url
from redis.exceptions import RedisError

from onsale.domain.errors import GateUnavailable
from onsale.domain.inventory import Outcome
from onsale.embedded import EmbeddedValkey
from onsale.gate.breaker import Breaker, BreakerState
from onsale.gate.connecting import Server
from onsale.gate.gate import Gate
from onsale.settings import Settings
from tests.gate.support import an_event, on_sale, orders_of_many, pairs
from tests.support import wait_until

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN
REST_SECONDS = 10.0

Fault = Callable[[EmbeddedValkey], AbstractContextManager[None]]


class Clock:
    """Goes on when it is told to."""

    def __init__(self) -> None:
        self.seconds = 1_000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker("a-dependency-of-tests", REST_SECONDS, clock)


# -- by a clock that stands still


def allowed(breaker: Breaker, calls: int = 5) -> int:
    """How many of so many calls are let through."""
    return sum(breaker.allows() for _ in range(calls))


def test_it_lets_everybody_through_until_a_call_fails(breaker: Breaker) -> None:
    assert allowed(breaker) == 5
    breaker.failed()
    assert breaker.state is OPEN
    assert allowed(breaker) == 0


def test_it_rests_until_the_end(breaker: Breaker, clock: Clock) -> None:
    breaker.failed()
    clock.seconds += REST_SECONDS - 0.001
    assert allowed(breaker) == 0
    clock.seconds += 0.001
    assert allowed(breaker) == 1
    assert breaker.state is HALF_OPEN


def test_a_trial_that_is_answered_closes_it(breaker: Breaker, clock: Clock) -> None:
    breaker.failed()
    clock.seconds += REST_SECONDS
    assert allowed(breaker) == 1
    breaker.succeeded()
    assert breaker.state is CLOSED
    assert allowed(breaker) == 5


def test_a_trial_that_fails_opens_it_for_another_rest(breaker: Breaker, clock: Clock) -> None:
    breaker.failed()
    for _ in range(3):
        clock.seconds += REST_SECONDS
        assert allowed(breaker) == 1
        breaker.failed()
        assert breaker.state is OPEN
        clock.seconds += REST_SECONDS - 0.001
        assert allowed(breaker) == 0
        clock.seconds += 0.001
        assert allowed(breaker) == 1
        breaker.failed()


def test_a_trial_that_never_ends_is_followed_by_another(breaker: Breaker, clock: Clock) -> None:
    """Its caller was cancelled, and nobody says how it went."""
    breaker.failed()
    for _ in range(3):
        clock.seconds += REST_SECONDS
        assert allowed(breaker) == 1
    breaker.succeeded()
    assert allowed(breaker) == 5


def test_calls_of_before_have_their_say(breaker: Breaker, clock: Clock) -> None:
    """A late answer closes it; each late failure is a reason to rest from then on."""
    breaker.failed()
    clock.seconds += 6.0
    breaker.failed()
    clock.seconds += 6.0
    assert allowed(breaker) == 0
    breaker.succeeded()
    assert allowed(breaker) == 5


def test_its_states_are_told(clock: Clock) -> None:
    breaker = Breaker("a-dependency-that-tells", REST_SECONDS, clock)

    def told() -> tuple[dict[str, float | None], dict[str, float]]:
        states, changes = {}, {}
        for state in BreakerState:
            labels = {"dependency": "a-dependency-that-tells"}
            states[state.value] = REGISTRY.get_sample_value(
                "onsale_circuit_breaker_state", labels | {"state": state}
            )
            changes[state.value] = (
                REGISTRY.get_sample_value(
                    "onsale_circuit_breaker_transitions_total", labels | {"to": state}
                )
                or 0.0
            )
        return states, changes

    assert told()[0] == {"closed": 1, "open": 0, "half_open": 0}
    breaker.failed()
    breaker.failed()
    assert told() == (
        {"closed": 0, "open": 1, "half_open": 0},
        {"closed": 0, "open": 1, "half_open": 0},
    )
    clock.seconds += REST_SECONDS
    breaker.allows()
    assert told()[0] == {"closed": 0, "open": 0, "half_open": 1}
    breaker.succeeded()
    breaker.succeeded()
    assert told() == (
        {"closed": 1, "open": 0, "half_open": 0},
        {"closed": 1, "open": 1, "half_open": 1},
    )


# -- with a server that ends, or that hangs


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey(tmp_path / "own") as made:
        yield made


@contextmanager
def ended(server: EmbeddedValkey) -> Iterator[None]:
    """Killed with -9, and started again."""
    server.kill()
    yield
    server.start()


@contextmanager
def hanging(server: EmbeddedValkey) -> Iterator[None]:
    """Frozen, and woken again whatever happens."""
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


faults = pytest.mark.parametrize("fault", [ended, hanging])


class Callers:
    """They ask a server within `watched`, many at a time; `asked` is how many got that far."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.asked = 0

    async def call(self) -> str:
        try:
            with self._server.watched():
                self.asked += 1
                await self._server.redis.set("key", "value")
        except GateUnavailable:
            return "left alone"
        except (RedisError, OSError, TimeoutError):
            return "failed"
        return "answered"

    async def crowd(self) -> list[str]:
        """What five at once were told, each thing once, sorted."""
        return sorted(await asyncio.gather(*(self.call() for _ in range(5))))


@pytest.fixture
async def callers(own_server: EmbeddedValkey, clock: Clock) -> AsyncIterator[Callers]:
    server = Server(
        {**parse_url(own_server.url)},
        Settings(redis_timeout_seconds=0.2, redis_connections_max=32),
    )
    server._breaker = Breaker("redis", REST_SECONDS, clock)
    yield Callers(server)
    await server.close()


@faults
async def test_only_the_first_call_waits(
    callers: Callers,
    own_server: EmbeddedValkey,
    clock: Clock,
    fault: Fault,
) -> None:
    """The others do not get as far as the server, until one of them may try, and only that one; it
    is closed by the first call that is answered.
    """
    assert await callers.crowd() == ["answered"] * 5
    with fault(own_server):
        assert await callers.call() == "failed"
        callers.asked = 0
        assert await callers.crowd() == ["left alone"] * 5
        assert callers.asked == 0
        for _ in range(2):
            clock.seconds += REST_SECONDS
            callers.asked = 0
            assert await callers.crowd() == ["failed"] + ["left alone"] * 4
            assert callers.asked == 1
    assert await callers.crowd() == ["left alone"] * 5, "nobody has tried yet"
    clock.seconds += REST_SECONDS
    assert await callers.crowd() == ["answered"] + ["left alone"] * 4
    assert await callers.crowd() == ["answered"] * 5


async def test_a_server_that_refuses_to_write_is_left_alone(callers: Callers, clock: Clock) -> None:
    """As one that is full does: it answers, and can decide nothing."""
    redis = callers._server.redis
    await redis.config_set("min-replicas-to-write", 1)
    assert await callers.call() == "failed"
    assert await callers.crowd() == ["left alone"] * 5
    await redis.config_set("min-replicas-to-write", 0)
    clock.seconds += REST_SECONDS
    assert await callers.call() == "answered"


async def test_a_caller_that_goes_away_says_nothing_of_the_server(callers: Callers) -> None:
    with pytest.raises(asyncio.CancelledError), callers._server.watched():
        raise asyncio.CancelledError
    assert await callers.crowd() == ["answered"] * 5


# -- in the gate's client


@faults
async def test_the_gate_is_asked_again_by_itself(own_server: EmbeddedValkey, fault: Fault) -> None:
    """By whatever call comes next; the batch that met the fault was told by its own deadline."""
    gate = Gate.connect(
        Settings(
            redis_url=own_server.url,
            redis_timeout_seconds=60,
            gate_deadline_seconds=0.2,
            redis_rest_seconds=0.05,
        )
    )
    sale = await on_sale(gate, an_event(5))
    orders = pairs(*orders_of_many(3))

    async def admit() -> list[Outcome] | None:
        """What the gate says, or nothing."""
        try:
            return (await gate.admit(sale.event.id, sale.epoch, orders)).outcomes
        except GateUnavailable:
            return None

    assert await admit() == [Outcome.ADMITTED] * 3
    with fault(own_server):
        assert await admit() is None
    if fault is ended:
        loader = Gate.connect(Settings(redis_url=own_server.url))
        sale = await on_sale(loader, sale.event, generation=2)
        await loader.close()

    async def decides() -> bool:
        return await admit() is not None

    await wait_until(decides)
    await gate.close()
