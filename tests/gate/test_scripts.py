"""Each script does what its header says, through one door, on the keys of one event."""

import re
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from itertools import count
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.crc import key_slot

from onsale.domain.errors import GateLost, GateUnavailable
from onsale.domain.event import SaleSwitch
from onsale.domain.inventory import Outcome
from onsale.domain.order import ITEMS_PER_ORDER_MAX, QUANTITY_PER_ITEM_MAX
from onsale.domain.tier import CAPACITY_UNITS_MAX, TIERS_PER_EVENT_MAX
from onsale.embedded import EmbeddedValkey
from onsale.gate import gate as gate_module
from onsale.gate.codec import StoredOrder
from onsale.gate.gate import CHUNK_ORDERS, Gate, GateBooks, GateTierBooks, seen_name
from onsale.gate.keys import event_keys
from onsale.gate.scripts import ScriptName, source
from onsale.settings import Settings
from tests.gate.support import (
    an_event,
    an_order,
    load,
    on_sale,
    orders_of_many,
    pairs,
    with_capacities,
)

SOURCES = Path(str(files("onsale")))


def header(name: ScriptName) -> str:
    """The comment that a script begins with."""
    lines = source(name).splitlines()
    end = next(at for at, line in enumerate(lines) if not line.startswith("--"))
    return "\n".join(line.removeprefix("--").removeprefix(" ") for line in lines[:end])


# -- how they are written


@pytest.mark.parametrize("name", ScriptName)
@pytest.mark.parametrize("part", ["KEYS", "ARGV", "returns", "keeps"])
def test_every_script_says_what_it_takes_and_keeps(name: ScriptName, part: str) -> None:
    assert re.search(rf"^{part} +\S", header(name), re.MULTILINE), header(name)


def test_every_file_is_a_script_with_a_name() -> None:
    found = {path.stem for path in (SOURCES / "gate/lua").glob("*.lua")}
    assert found == set(ScriptName)


@pytest.mark.parametrize("name", ScriptName)
def test_a_script_declares_the_keys_that_it_uses(name: ScriptName) -> None:
    declared = re.search(r"^KEYS +(.+)$", header(name), re.MULTILINE)
    assert declared
    numbered = dict(re.findall(r"(\d) (\w+)", declared[1]))
    used = set(re.findall(r"KEYS\[(\d)\]", source(name)))
    assert used <= numbered.keys()
    assert list(numbered) == [str(number) for number in range(1, len(numbered) + 1)]
    assert set(numbered.values()) <= set(event_keys("e")._fields)


@pytest.mark.parametrize("name", ScriptName)
def test_a_script_touches_only_the_keys_that_it_declares(name: ScriptName) -> None:
    """Else a cluster could not run it; the commands that take no key are named here."""
    for command, first_argument in calls_without_a_key(source(name)):
        assert command == "TIME", f"{command} on {first_argument}"


def test_a_key_made_up_in_a_script_would_be_found() -> None:
    made_up = "redis.call('HGET', 'onsale:other', 1)\nredis.call('HGET', KEYS[1], 2)"
    assert calls_without_a_key(made_up) == [("HGET", "'onsale:other'")]


def calls_without_a_key(lua: str) -> list[tuple[str, str]]:
    """Commands whose first argument is not a declared key."""
    calls = re.findall(r"redis\.p?call\(\s*'(\w+)'(?:,\s*([^,)]+))?", lua)
    return [(command, key) for command, key in calls if not re.match(r"(unpack\()?KEYS\b", key)]


def test_there_is_one_door_to_the_scripts() -> None:
    """Whoever loads or runs Lua elsewhere has keys and arguments that nothing here checks."""
    doors = re.compile(r"register_script|script_load|evalsha|\.eval\(|fcall", re.IGNORECASE)
    found = {
        path.relative_to(SOURCES).as_posix()
        for path in SOURCES.rglob("*.py")
        if doors.search(path.read_text())
    }
    assert found == {"gate/scripts.py"}


def test_all_keys_of_an_event_are_in_one_slot() -> None:
    event = an_event(1)
    slots = {key_slot(key.encode()) for key in event_keys(event.id)}
    assert slots == {key_slot(event.id.encode())}


# -- how they run


async def test_scripts_stay_within_their_event(
    gate: Gate, redis: Redis, server: EmbeddedValkey
) -> None:
    """Run by somebody whom the server allows this event's keys and no others."""
    event, other = an_event(5), an_event(5)
    await redis.acl_setuser(
        "of-one-event",
        enabled=True,
        reset=True,
        passwords=["+password"],
        keys=[f"onsale:{{{event.id}}}:*"],
        commands=["+@all"],
    )
    separator = "&" if "?" in server.url else "?"
    bound = Gate.connect(
        Settings(redis_url=f"{server.url}{separator}username=of-one-event&password=password")
    )
    try:
        sale = await on_sale(bound, event)
        order = an_order("buyer", "key")
        await bound.admit(event.id, sale.epoch, pairs(order))
        await bound.adopt(event.id, sale.epoch, pairs(order))
        await bound.give_back(event.id, sale.epoch, [order.id])
        await bound.mark_seen(event.id, sale.epoch, [order.id])
        await bound.configure(event, sale.epoch)
        await bound.availability(event.id, sale.epoch)
        await bound.audit(event.id, sale.epoch)
        with pytest.raises(GateUnavailable):
            await on_sale(bound, other)
    finally:
        await bound.close()
        await redis.acl_deluser("of-one-event")


async def test_a_server_that_forgot_the_scripts_is_sent_them_anew(gate: Gate, redis: Redis) -> None:
    sale = await on_sale(gate, an_event(5))
    first, second = an_order("buyer", "1"), an_order("buyer", "2")
    assert (await gate.admit(sale.event.id, sale.epoch, pairs(first))).outcomes == [
        Outcome.ADMITTED
    ]
    await redis.script_flush()
    assert (await gate.admit(sale.event.id, sale.epoch, pairs(second))).outcomes == [
        Outcome.ADMITTED
    ]


async def test_a_script_is_sent_once(gate: Gate, redis: Redis) -> None:
    """Afterwards its hash is enough: the text would cost more than the orders."""
    sale = await on_sale(gate, an_event(5))
    await gate.admit(sale.event.id, sale.epoch, pairs(an_order("buyer", "0")))
    await redis.config_resetstat()
    for key in ("1", "2", "3"):
        await gate.admit(sale.event.id, sale.epoch, pairs(an_order("buyer", key)))
    stats = await redis.info("commandstats")
    assert stats["cmdstat_evalsha"]["calls"] == 3
    assert "cmdstat_script|load" not in stats


# -- who gets the seats


async def test_a_batch_is_decided_in_the_order_of_arrival(gate: Gate) -> None:
    sale = await on_sale(gate, an_event(3))
    answer = await gate.admit(sale.event.id, sale.epoch, pairs(*orders_of_many(10)))
    assert answer.outcomes == [Outcome.ADMITTED] * 3 + [Outcome.SOLD_OUT] * 7
    assert answer.available_units == {1: 0}


async def test_an_order_that_does_not_fit_leaves_the_seats_to_those_behind(gate: Gate) -> None:
    sale = await on_sale(gate, an_event(3))
    quantities = (2, 2, 1, 1)
    batch = [an_order("buyer", f"{at}", (1, units)) for at, units in enumerate(quantities)]
    answer = await gate.admit(sale.event.id, sale.epoch, pairs(*batch))
    assert answer.outcomes == [
        Outcome.ADMITTED,
        Outcome.SOLD_OUT,
        Outcome.ADMITTED,
        Outcome.SOLD_OUT,
    ]


async def test_an_order_has_all_of_its_items_or_none(gate: Gate) -> None:
    sale = await on_sale(gate, an_event(5, 1, 5))
    whole, short = an_order("a", "k", (1, 1), (2, 1), (3, 1)), an_order("b", "k", (1, 1), (2, 1))
    answer = await gate.admit(sale.event.id, sale.epoch, pairs(whole, short))
    assert answer.outcomes == [Outcome.ADMITTED, Outcome.SOLD_OUT]
    seen = await gate.availability(sale.event.id, sale.epoch)
    assert seen.available_units == {1: 4, 2: 0, 3: 4}


async def test_the_largest_orders_at_the_largest_event(gate: Gate) -> None:
    """100 tiers of 10,000,000 units, and batches of the largest size of the largest orders."""
    event = an_event(*[CAPACITY_UNITS_MAX] * TIERS_PER_EVENT_MAX)
    sale = await on_sale(gate, event)
    size = Settings().gate_batch_size_max
    batch = []
    for at in range(size):
        tiers = [(at + offset) % TIERS_PER_EVENT_MAX + 1 for offset in range(ITEMS_PER_ORDER_MAX)]
        cart = [(number, QUANTITY_PER_ITEM_MAX) for number in tiers]
        batch.append(an_order(f"buyer-{at}", "key", *cart))
    answer = await gate.admit(event.id, sale.epoch, pairs(*batch))
    assert answer.outcomes == [Outcome.ADMITTED] * size
    books = await gate.audit(event.id, sale.epoch)
    taken = {
        number: QUANTITY_PER_ITEM_MAX
        * sum(item.tier_number == number for order in batch for item in order.taken.items)
        for number in range(1, TIERS_PER_EVENT_MAX + 1)
    }
    assert books.tiers == [
        GateTierBooks(number, CAPACITY_UNITS_MAX, CAPACITY_UNITS_MAX - units, units)
        for number, units in taken.items()
    ]
    assert (await gate.availability(event.id, sale.epoch)).available_units == answer.available_units


@pytest.mark.parametrize("keeps_still", [True, False])
async def test_many_orders_are_added_up_in_chunks(
    gate: Gate, monkeypatch: pytest.MonkeyPatch, keeps_still: bool
) -> None:
    """And in one step where orders come all the while. Seen red without a look whether some did."""
    monkeypatch.setattr(gate_module, "_ADDED_UP_AT_ONCE_ORDERS", 100)
    sale = await on_sale(gate, an_event(5_000, 5))
    orders = orders_of_many(2 * CHUNK_ORDERS + 1)
    for at in range(0, len(orders), CHUNK_ORDERS):
        await gate.adopt(sale.event.id, sale.epoch, pairs(*orders[at : at + CHUNK_ORDERS]))
    read, late = gate.orders, (an_order(f"late-{n}", "key", (2, 1)) for n in count())

    async def read_while_they_come(event_id: str) -> AsyncIterator[dict[bytes, StoredOrder]]:
        chunks = [chunk async for chunk in read(event_id)]
        await gate.admit(event_id, sale.epoch, pairs(next(late)))
        for chunk in chunks:
            yield chunk

    if not keeps_still:
        monkeypatch.setattr(gate, "orders", read_while_they_come)
    came = 0 if keeps_still else gate_module._CHUNKED_AUDITS_MAX
    assert await gate.audit(sale.event.id, sale.epoch) == GateBooks(
        len(orders) + came,
        [
            GateTierBooks(1, 5_000, 5_000 - len(orders), len(orders)),
            GateTierBooks(2, 5, 5 - came, came),
        ],
    )


async def test_more_than_one_chunk_is_adopted_read_and_given_back(gate: Gate) -> None:
    sale = await on_sale(gate, an_event(10))
    orders = orders_of_many(2 * CHUNK_ORDERS + 1)
    for at in range(0, len(orders), CHUNK_ORDERS):
        await gate.adopt(sale.event.id, sale.epoch, pairs(*orders[at : at + CHUNK_ORDERS]))
    seen = await gate.availability(sale.event.id, sale.epoch)
    assert seen.available_units == {1: 10 - len(orders)}
    found = {
        order_id: stored.taken
        async for chunk in gate.orders(sale.event.id)
        for order_id, stored in chunk.items()
    }
    assert found == {order.id: order.taken for order in orders}
    for at in range(0, len(orders), CHUNK_ORDERS):
        ids = [order.id for order in orders[at : at + CHUNK_ORDERS]]
        assert (await gate.give_back(sale.event.id, sale.epoch, ids))[0] == len(ids)
    seen = await gate.availability(sale.event.id, sale.epoch)
    assert seen.available_units == {1: 10}


async def test_missing_are_those_that_the_gate_does_not_hold(gate: Gate) -> None:
    sale = await on_sale(gate, an_event(10))
    here, there = orders_of_many(2)
    await gate.admit(sale.event.id, sale.epoch, pairs(here))
    assert await gate.missing(sale.event.id, [here.id, there.id]) == [there.id]
    assert await gate.missing(sale.event.id, []) == []


# -- when


async def test_a_sale_opens_and_closes_by_the_servers_clock(gate: Gate) -> None:
    """To the millisecond, for each answer lies between two readings of that clock."""
    opens_at = datetime.now(UTC) + timedelta(milliseconds=150)
    closes_at = opens_at + timedelta(milliseconds=150)
    event = an_event(1_000_000, opens_at=opens_at, closes_at=closes_at)
    sale = await on_sale(gate, event)
    answers: set[Outcome] = set()
    pressed = 0
    while Outcome.CLOSED not in answers:
        before_ms = (await gate.availability(event.id, sale.epoch)).now_ms
        order = an_order("buyer", f"{pressed}")
        (outcome,) = (await gate.admit(event.id, sale.epoch, pairs(order))).outcomes
        after_ms = (await gate.availability(event.id, sale.epoch)).now_ms
        pressed += 1
        answers.add(outcome)
        match outcome:
            case Outcome.NOT_OPEN:
                assert before_ms < event.sale_opens_at_ms
            case Outcome.ADMITTED:
                assert after_ms >= event.sale_opens_at_ms
                assert before_ms < event.sale_closes_at_ms
            case _:
                assert outcome is Outcome.CLOSED
                assert after_ms >= event.sale_closes_at_ms
    assert answers == {Outcome.NOT_OPEN, Outcome.ADMITTED, Outcome.CLOSED}


async def test_saying_it_twice_is_saying_it_once(gate: Gate) -> None:
    sale = await on_sale(gate, an_event(10, 20))
    changed = with_capacities(sale.event, SaleSwitch.PAUSED, [15, 5])
    assert await gate.configure(changed, sale.epoch) == (3, {1: 15, 2: 5})
    assert await gate.configure(changed, sale.epoch) == (0, {1: 15, 2: 5})


async def test_a_retired_gate_goes_as_a_whole(gate: Gate, redis: Redis) -> None:
    sale = await on_sale(gate, an_event(10, limit_units=4))
    await gate.admit(sale.event.id, sale.epoch, pairs(an_order("buyer", "key")))
    await gate.retire(sale.event.id, keep_seconds=60)
    for key in event_keys(sale.event.id):
        assert 0 < await redis.ttl(key) <= 60, key


# -- the log of whoever was admitted


async def test_a_long_log_is_read_in_parts(gate: Gate) -> None:
    many = 2**14
    sale = await on_sale(gate, an_event(many))
    admitted = orders_of_many(many)
    for at in range(0, many, CHUNK_ORDERS):
        await gate.admit(sale.event.id, sale.epoch, pairs(*admitted[at : at + CHUNK_ORDERS]))
    names: list[int] = []
    while part := await gate.seen(sale.event.id, sale.epoch, len(names)):
        assert len(part) < many
        names += part
    assert names == [seen_name(order.id) for order in admitted]


async def test_the_log_of_another_loading_is_not_told(gate: Gate) -> None:
    """Buyers whom only the one before knew would be taken for strangers. Seen red with the log
    read without asking for the epoch.
    """
    sale = await on_sale(gate, an_event(5))
    await gate.admit(sale.event.id, sale.epoch, pairs(an_order("buyer", "key")))
    later = await on_sale(gate, sale.event, generation=2)
    with pytest.raises(GateLost):
        await gate.seen(sale.event.id, sale.epoch, 0)
    assert await gate.seen(sale.event.id, later.epoch, 0) == ()


async def test_a_loading_gate_is_configured_and_adopts(gate: Gate) -> None:
    """The organiser's changes and the ledger's orders reach it before it opens."""
    sale = await load(gate, an_event(10))
    order = an_order("buyer", "key", (1, 3))
    assert await gate.adopt(sale.event.id, sale.epoch, pairs(order)) == 1
    grown = replace(with_capacities(sale.event, SaleSwitch.OPEN, [20]))
    assert await gate.configure(grown, sale.epoch) == (1, {1: 17})
    await gate.open(sale.event.id, sale.epoch)
    assert (await gate.availability(sale.event.id, sale.epoch)).available_units == {1: 17}
