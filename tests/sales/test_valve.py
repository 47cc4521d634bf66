"""How many orders are taken on at once: by the event loop's turns, and by what the stages carry."""

import asyncio
from math import inf

import pytest

from onsale.sales.valve import Valve

LIMIT_MAX, BUSY_MAX = 10_000, 128
LONG_SECONDS, SHORT_SECONDS = 0.05, 0.0


class Stages:
    """What they carry, as a test says."""

    def __init__(self) -> None:
        self.carried_orders = inf

    def __call__(self) -> float:
        return self.carried_orders


@pytest.fixture
def stages() -> Stages:
    return Stages()


@pytest.fixture
def valve(stages: Stages) -> Valve:
    return Valve(LIMIT_MAX, BUSY_MAX, stages)


def look(valve: Valve, lag_seconds: float, times: int) -> list[int]:
    """The limits after each of so many looks."""
    limits = []
    for _ in range(times):
        valve.see_lag(lag_seconds)
        limits.append(valve.limit)
    return limits


def test_a_burst_upon_an_idle_process_is_let_in(valve: Valve) -> None:
    look(valve, SHORT_SECONDS, 10)
    valve.in_flight = LIMIT_MAX - 1
    assert not valve.full
    valve.in_flight = LIMIT_MAX
    assert valve.full


async def test_who_was_let_in_has_a_place_before_his_task_begins(valve: Valve) -> None:
    """One turn of the loop reads hundreds. Seen red with places counted by tasks alone: all of them
    were let in, and found out at the cost of an order that there was no room.
    """
    let_in = []

    async def order() -> None:
        with valve:
            let_in.append(valve.in_flight)
            await asyncio.sleep(0)

    valve.limit = 3
    tasks = []
    for _ in range(10):
        if not valve.full:
            valve.expect()
            tasks.append(asyncio.create_task(order()))
    assert len(tasks) == 3
    await asyncio.gather(*tasks)
    assert let_in == [1, 2, 3], "nobody's place was counted twice"
    assert not valve.full


def test_a_burst_makes_turns_long_and_is_let_in_all_the_same(valve: Valve) -> None:
    """Two thousand who press in one moment take a while to be read. Seen red without patience: the
    second half of them was refused.
    """
    valve.in_flight = 1_000
    assert set(look(valve, LONG_SECONDS, 10)) == {LIMIT_MAX}
    valve.in_flight = 0
    look(valve, SHORT_SECONDS, 20)
    valve.in_flight = 1_000
    assert set(look(valve, LONG_SECONDS, 10)) == {LIMIT_MAX}, "the next one as well"


def outlast_a_burst(valve: Valve) -> None:
    """Long turns until patience ends."""
    while valve.limit == LIMIT_MAX:
        look(valve, LONG_SECONDS, 1)


def test_long_turns_with_many_orders_leave_room_for_fewer_and_fewer(valve: Valve) -> None:
    """Seen red with the turns not looked at."""
    valve.in_flight = 1_000
    outlast_a_burst(valve)
    assert valve.limit == 800, "of those who are there, not of those who might be"
    for _ in range(30):
        valve.in_flight = min(valve.in_flight, valve.limit)
        look(valve, LONG_SECONDS, 1)
    assert valve.limit == BUSY_MAX, "as many as fill the batches always have room"


def test_a_long_crowd_is_forgotten_when_it_has_gone(valve: Valve) -> None:
    """Seen red with patience below none: of a burst minutes later all but some hundreds were
    refused.
    """
    valve.in_flight = BUSY_MAX
    look(valve, LONG_SECONDS, 5_000)
    valve.in_flight = 0
    look(valve, SHORT_SECONDS, 400)
    valve.in_flight = 5_000
    assert set(look(valve, LONG_SECONDS, 10)) == {LIMIT_MAX}


def test_short_turns_between_the_long_ones_of_a_crowd_are_no_ease(valve: Valve) -> None:
    """Seen red with patience as new after each short turn: of a crowd half as large again as is
    sustainable everybody was let in, and waited a third of a second in place of a tenth.
    """
    valve.in_flight = 400
    for _ in range(100):
        look(valve, LONG_SECONDS, 1)
        look(valve, SHORT_SECONDS, 8)
    assert valve.limit < 400


def test_long_turns_with_few_orders_are_not_their_doing(valve: Valve) -> None:
    """A crowd that connects before the sale opens: seen red with the limit lowered all the same,
    and everybody but the first hundred refused in the moment it opened.
    """
    valve.in_flight = BUSY_MAX - 1
    assert set(look(valve, LONG_SECONDS, 50)) == {LIMIT_MAX}


def test_one_late_look_is_not_yet_a_busy_process(valve: Valve) -> None:
    valve.in_flight = 1_000
    look(valve, SHORT_SECONDS, 10)
    assert look(valve, 0.003, 1) == [LIMIT_MAX]


def test_when_the_turns_are_short_again_so_is_the_way_back(valve: Valve) -> None:
    valve.in_flight = BUSY_MAX
    look(valve, LONG_SECONDS, 100)
    assert valve.limit == BUSY_MAX
    valve.in_flight = 0
    limits = look(valve, SHORT_SECONDS, 400)
    assert limits == sorted(limits), "step by step: a crowd that still waits would fill it again"
    assert limits[-1] == LIMIT_MAX


def test_no_more_are_let_in_than_the_stages_carry_in_time(valve: Valve, stages: Stages) -> None:
    stages.carried_orders = 40.0
    look(valve, SHORT_SECONDS, 1)
    assert valve.limit == 40
    stages.carried_orders = 0.0
    look(valve, SHORT_SECONDS, 1)
    assert valve.limit == 1, "or nobody would find out that the stores are back"
    stages.carried_orders = inf
    look(valve, SHORT_SECONDS, 1)
    assert valve.limit >= BUSY_MAX, "a store that is back is not a busy process"


def test_who_is_in_is_counted_whatever_becomes_of_them(valve: Valve) -> None:
    def order() -> None:
        with valve:
            assert valve.in_flight == 1
            raise LookupError

    with pytest.raises(LookupError):
        order()
    assert valve.in_flight == 0


async def test_the_loop_itself_is_measured(valve: Valve) -> None:
    """A loop that is kept busy in turns of 20 ms is found to be."""
    valve.in_flight = 1_000
    watching = asyncio.create_task(valve.watch())
    loop = asyncio.get_running_loop()
    ends = loop.time() + 10
    while valve.limit == LIMIT_MAX:
        assert loop.time() < ends, "not noticed"
        spins_until = loop.time() + 0.02
        while loop.time() < spins_until:
            pass
        await asyncio.sleep(0)
    watching.cancel()
