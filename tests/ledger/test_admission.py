"""Admission by the ledger alone is exactly the gate's, only slower: held against the model that the
gate's scripts are held against, and beside processes that do ask a gate.

Seen red with each of these planted: `decide` without the limit, without the stock, content with one
item of several, or taking nothing from what is left; candidates decided in the order of their ids;
refused ones that stay; twins that are both new; orders that are here not looked for, or looked for
before the glance at the stock; a sale that is always open; units not counted by PLACE or by SETTLE
and not counted back; tiers or buyers read without a lock; tiers locked before the candidates are
written down. Rows that are locked in a random order are planted below.
"""

import asyncio
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import cycle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from onsale.domain.errors import LedgerUnavailable
from onsale.domain.event import Event, SaleSwitch
from onsale.domain.ids import buyer_ref
from onsale.domain.inventory import Inventory, Outcome, TakenOrder
from onsale.domain.order import Item, OrderRequest, OrderStatus
from onsale.ledger import admission, statements
from onsale.ledger.admission import Standing, decide
from onsale.ledger.engine import ConstraintRefused, Database
from onsale.ledger.events import Events
from onsale.ledger.ledger import Ledger, OrderKey, Placement
from tests.ledger.books import (
    MakeLedgers,
    assert_balanced,
    assert_limit_kept,
    key_of,
    new_event,
    request,
)
from tests.ledger.test_life import BEGINNINGS, begin

HOUR = timedelta(hours=1)
ADMITTED, SOLD_OUT, BUYER_LIMIT = Outcome.ADMITTED, Outcome.SOLD_OUT, Outcome.BUYER_LIMIT
CONFIRMED = OrderStatus.CONFIRMED


# -- the decision, against the model of the gate

EVENT_ID = "0" * 32
NOW_MS = 1_000

asked = st.builds(
    OrderRequest,
    event_id=st.just(EVENT_ID),
    order_id=st.binary(min_size=16, max_size=16),
    buyer_id=st.sampled_from(["ada", "bob", "cyd"]),
    fingerprint=st.just(bytes(8)),
    items=st.lists(
        st.builds(Item, st.sampled_from([1, 2, 3]), st.integers(1, 5)),
        min_size=1,
        unique_by=lambda item: item.tier_number,
    ).map(tuple),
    status=st.just(CONFIRMED),
    amount_minor_units=st.just(0),
    currency=st.just("EUR"),
    hold_seconds=st.just(600),
)
sales = st.builds(
    Inventory,
    capacity_units=st.fixed_dictionaries(dict.fromkeys((1, 2, 3), st.integers(0, 12))),
    limit_units=st.integers(0, 12),
    switch=st.sampled_from([SaleSwitch.OPEN] * 5 + list(SaleSwitch)),
    opens_at_ms=st.sampled_from([0, 0, 0, NOW_MS, NOW_MS + 1]),
    closes_at_ms=st.sampled_from([2**53] * 3 + [NOW_MS]),
)


def taken(request: OrderRequest) -> TakenOrder:
    """The request as the model takes it."""
    buyer = buyer_ref(request.buyer_id)
    return TakenOrder(request.order_id, buyer, request.fingerprint, request.items)


def standing_of(sale: Inventory, requests: Sequence[OrderRequest]) -> Standing:
    """How the model's sale stands, as the ledger would have read it."""
    refusal = sale._state_refusal(NOW_MS)
    allowances = {
        (EVENT_ID, request.buyer_id): sale.limit_units - sale.units_of(buyer_ref(request.buyer_id))
        for request in requests
    }
    return Standing(
        {} if refusal is None else {EVENT_ID: refusal},
        {(EVENT_ID, tier): sale.available_units(tier) for tier in sale.capacity_units},
        allowances if sale.limit_units else {},
    )


@given(sales, st.lists(asked, max_size=30, unique_by=lambda one: one.order_id), st.integers(0, 30))
def test_the_ledger_decides_as_the_gate_does(
    sale: Inventory, requests: list[OrderRequest], cut: int
) -> None:
    """Two batches, one after the other, so that the second meets a sale with orders in it."""
    for batch in (requests[:cut], requests[cut:]):
        standing = standing_of(sale, batch)
        assert decide(batch, standing) == sale.admit([taken(one) for one in batch], NOW_MS)


# -- in the ledger


def outcomes(answers: Sequence[Placement | Outcome]) -> list[Outcome]:
    """What was decided; an order that was here is `SEEN`."""
    return [
        (ADMITTED if answer.new else Outcome.SEEN) if isinstance(answer, Placement) else answer
        for answer in answers
    ]


async def test_a_batch_is_decided_in_the_order_of_its_arrival(
    ledger: Ledger, events: Events
) -> None:
    """Over and over, for ids are hashes and come in any order."""
    for _ in range(10):
        event = await new_event(events, 5)
        batch = [request(event, (1, quantity)) for quantity in (3, 3, 1, 2, 1)]
        answers = await ledger.admit(batch)
        assert outcomes(answers) == [ADMITTED, SOLD_OUT, ADMITTED, SOLD_OUT, ADMITTED]
        assert await assert_balanced(ledger, event) == (5, 0)


async def test_an_order_is_admitted_with_all_of_its_items_or_none(
    ledger: Ledger, events: Events
) -> None:
    event = await new_event(events, 5, 1)
    batch = [request(event, (1, 2), (2, 2)), request(event, (1, 3), (2, 1)), request(event, (1, 2))]
    answers = await ledger.admit(batch)
    assert outcomes(answers) == [SOLD_OUT, ADMITTED, ADMITTED]
    assert await assert_balanced(ledger, event) == (6, 0)


@pytest.mark.parametrize("status", [OrderStatus.HELD, CONFIRMED])
async def test_an_order_that_is_admitted_is_as_if_it_had_been_placed(
    ledger: Ledger, events: Events, status: OrderStatus
) -> None:
    event = await new_event(events, 10, 10, max_per_buyer_units=10)
    one, other = (request(event, (1, 1), (2, 3), status=status) for _ in "ab")
    (admitted,), (placed,) = await ledger.admit([one]), await ledger.place([other])
    assert isinstance(admitted, Placement)
    assert admitted.order._replace(id=b"", created_at=placed.order.created_at) == (
        placed.order._replace(
            id=b"",
            expires_at=placed.order.expires_at
            and admitted.order.created_at + timedelta(seconds=one.hold_seconds),
        )
    )
    assert await ledger.get(key_of(one)) == admitted.order
    assert await assert_balanced(ledger, event) == (8, 8 * (status is CONFIRMED))


async def test_a_buyer_has_no_more_than_the_limit(
    database: Database, ledger: Ledger, events: Events
) -> None:
    """In one batch and over several, over several tiers, beside what was placed."""
    event = await new_event(events, 20, 20, max_per_buyer_units=4)
    await ledger.place([request(event, (1, 1), buyer="ada")])
    batch = [
        request(event, (1, 1), (2, 1), buyer="ada"),
        request(event, (2, 2), buyer="ada"),
        request(event, (2, 4), buyer="bob"),
        request(event, (1, 5), buyer="cyd"),
        request(event, (1, 1), buyer="ada"),
    ]
    assert outcomes(await ledger.admit(batch)) == [
        ADMITTED,
        BUYER_LIMIT,
        ADMITTED,
        BUYER_LIMIT,
        ADMITTED,
    ]
    assert await assert_limit_kept(database, event) == {"ada": 4, "bob": 4}
    again = [request(event, buyer=buyer) for buyer in ("ada", "bob", "cyd")]
    assert outcomes(await ledger.admit(again)) == [BUYER_LIMIT, BUYER_LIMIT, ADMITTED]
    with pytest.raises(ConstraintRefused) as refused:
        await ledger.place([request(event, buyer="ada")])
    assert refused.value.constraint == "buyer_units_limit"
    assert await assert_limit_kept(database, event) == {"ada": 4, "bob": 4, "cyd": 1}
    assert await assert_balanced(ledger, event) == (9, 0)


async def test_twins_in_one_batch_are_one_order(ledger: Ledger, events: Events) -> None:
    """New to the first of them; and one that is refused is refused to both."""
    event = await new_event(events, 3)
    keys = ("twin", "refused", "twin", "refused", "twin")
    answers = await ledger.admit([request(event, (1, 2), key=key) for key in keys])
    assert outcomes(answers) == [ADMITTED, SOLD_OUT, Outcome.SEEN, SOLD_OUT, Outcome.SEEN]
    (order,) = {answer.order for answer in answers if isinstance(answer, Placement)}
    assert order.items == (Item(1, 2),)
    assert await assert_balanced(ledger, event) == (2, 0)


@pytest.mark.parametrize("beginning", BEGINNINGS)
async def test_an_id_that_is_there_is_that_order(
    ledger: Ledger, events: Events, beginning: str
) -> None:
    """Whatever became of it, whatever else is asked under it, however the sale stands."""
    event = await new_event(events, 10, 10)
    order = await begin(ledger, event, beginning)
    before, books = await ledger.get(key_of(order)), await assert_balanced(ledger, event)
    other_body = order._replace(fingerprint=bytes(8), items=(Item(1, 100),))
    await events.set_switch(event.id, SaleSwitch.CLOSED)
    assert await ledger.admit([order, other_body]) == [Placement(before, new=False)] * 2  # type: ignore[arg-type]
    assert await assert_balanced(ledger, event) == books


async def test_an_order_that_arrives_meanwhile_is_that_order(
    make_ledgers: MakeLedgers, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first press, at another process, commits and takes the last seat between the two looks
    that are taken here; nobody is refused for want of the seat that he has.
    """
    ledger, other = await make_ledgers(2)
    event = await new_event(events, 1)
    order = request(event)
    placed: list[Placement] = []

    def then_it_commits(look: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def looked(*args: Any) -> Any:
            found = await look(*args)
            if not placed:
                placed.extend(await other.place([order]))
            return found

        return looked

    for name in ("_seen", "_glance"):
        monkeypatch.setattr(admission, name, then_it_commits(getattr(admission, name)))
    (answer,) = await ledger.admit([order])
    assert answer == Placement(placed[0].order, new=False)


STATES: dict[str, tuple[Outcome, str]] = {
    "open": (ADMITTED, "sale_opens_at = now(), sale_closes_at = now() + interval '1 h'"),
    "scheduled": (Outcome.NOT_OPEN, "sale_opens_at = now() + interval '1 h'"),
    "paused": (Outcome.PAUSED, "switch = 'paused'"),
    "closed": (Outcome.CLOSED, "switch = 'closed'"),
    "over": (Outcome.CLOSED, "sale_closes_at = now()"),
}


@pytest.mark.parametrize("state", STATES)
async def test_only_a_sale_that_is_open_admits(
    database: Database, ledger: Ledger, events: Events, state: str
) -> None:
    """By the ledger's clock, to the instant; paused and scheduled at once is paused, as ever."""
    event = await new_event(events, 10, 10)
    outcome, change = STATES[state]
    async with database.transaction("test") as connection:
        await connection.execute(
            text(f"UPDATE events SET {change} WHERE id = :event"), {"event": event.id}
        )
    answers = await ledger.admit([request(event), request(event, (1, 11))])
    assert outcomes(answers) == [outcome, SOLD_OUT if outcome is ADMITTED else outcome]
    assert await assert_balanced(ledger, event) == (int(outcome is ADMITTED), 0)


async def test_a_batch_of_several_events(
    database: Database, ledger: Ledger, events: Events
) -> None:
    """Each by its own stock, limit and window; the same buyer and tier number in all of them."""
    now = datetime.now(UTC)
    scarce, limited = await new_event(events, 1), await new_event(events, 9, max_per_buyer_units=1)
    later = await new_event(events, 9, sale_opens_at=now + HOUR)
    sold_out = await new_event(events, 0)
    batch = [
        request(event, buyer="ada") for event in (scarce, limited, later, sold_out) for _ in "ab"
    ]
    random.Random(5).shuffle(batch)
    told = defaultdict(list)
    for one, outcome in zip(batch, outcomes(await ledger.admit(batch)), strict=True):
        told[one.event_id].append(outcome)
    assert told == {
        scarce.id: [ADMITTED, SOLD_OUT],
        limited.id: [ADMITTED, BUYER_LIMIT],
        later.id: [Outcome.NOT_OPEN] * 2,
        sold_out.id: [SOLD_OUT] * 2,
    }
    for event, units in ((scarce, 1), (limited, 1), (later, 0), (sold_out, 0)):
        assert await assert_balanced(ledger, event) == (units, 0)
        assert sum((await assert_limit_kept(database, event)).values()) == units


async def test_nothing_is_left_of_what_was_refused(
    database: Database, ledger: Ledger, events: Events
) -> None:
    """Also when it was nobody's turn to be refused at first glance: two who want the last seat."""
    event = await new_event(events, 3)
    batch = [request(event, (1, 2)) for _ in range(5)]
    assert outcomes(await ledger.admit(batch)) == [ADMITTED] + [SOLD_OUT] * 4
    for one in batch[1:]:
        assert await ledger.get(key_of(one)) is None
    # The same ids buy after all once there are seats.
    assert await ledger.release(key_of(batch[0]), batch[0].buyer_id)
    assert outcomes(await ledger.admit(batch[1:2])) == [ADMITTED]


async def test_the_gate_is_to_hear_of_what_was_admitted(ledger: Ledger, events: Events) -> None:
    """Once, whatever became of it; not of what asked the gate, and not of what was refused."""
    event = await new_event(events, 5)
    first, second, refused = (request(event, (1, units)) for units in (1, 2, 5))
    await ledger.place([request(event)])
    await ledger.admit([first, second, refused])
    await ledger.release(key_of(first), first.buyer_id)
    unheard = await ledger.unheard(event.id, 10)
    assert set(unheard) == {first.order_id, second.order_id}
    assert await events.with_unheard([event.id, "0" * 32]) == [event.id]
    assert len(await ledger.unheard(event.id, 1)) == 1
    live = await ledger.live([OrderKey(event.id, order_id) for order_id in unheard])
    assert [order.id for order in live] == [second.order_id]
    await ledger.heard(event.id, [first.order_id])
    assert await ledger.unheard(event.id, 10) == [second.order_id]
    await ledger.heard(event.id, [second.order_id])
    assert await events.with_unheard([event.id]) == []


# -- a buyer's units


@pytest.mark.parametrize("way", ["admit", "place"])
@pytest.mark.parametrize("end", ["release", "expire", "refund"])
async def test_an_order_that_ends_gives_its_units_back(
    database: Database, ledger: Ledger, events: Events, way: str, end: str
) -> None:
    """To its buyer, once, and to nobody else."""
    event = await new_event(events, 10, 10, max_per_buyer_units=3)
    order, beside = (
        request(
            event,
            *((1, 2), (2, 1)),
            buyer=buyer,
            status=CONFIRMED if end == "refund" else OrderStatus.HELD,
            hold_seconds=-1 if end == "expire" and buyer == "ada" else 600,
        )
        for buyer in ("ada", "bob")
    )
    await getattr(ledger, way)([order, beside])
    assert await assert_limit_kept(database, event) == {"ada": 3, "bob": 3}
    more = request(event, buyer="ada")
    assert outcomes(await ledger.admit([more])) == [BUYER_LIMIT]
    for _ in range(2):
        if end == "release":
            await ledger.release(key_of(order), "ada")
        elif end == "refund":
            await ledger.refund(key_of(order))
        else:
            await ledger.expire(1_000)
        assert await assert_limit_kept(database, event) == {"bob": 3}
    assert outcomes(await ledger.admit([more])) == [ADMITTED]
    assert await assert_limit_kept(database, event) == {"ada": 1, "bob": 3}


# -- many at once

PROCESSES = 4
TIERS = 4
BUYERS = 12
LIMIT_UNITS = 3


def crowd(event: Event, chance: random.Random, size: int, series: object) -> list[OrderRequest]:
    """Orders of a few buyers under a few keys: those of one series have ids in common, and all have
    buyers and tiers.
    """
    return [
        request(
            event,
            *((number, 1) for number in chance.sample(range(1, TIERS + 1), k=chance.randint(1, 2))),
            buyer=f"buyer-{chance.randrange(BUYERS)}",
            key=f"{series}-{chance.randrange(3)}",
        )
        for _ in range(size)
    ]


async def admit(ledger: Ledger, batch: Sequence[OrderRequest]) -> None:
    """As a process without a gate."""
    await ledger.admit(batch)


async def place(ledger: Ledger, batch: Sequence[OrderRequest]) -> None:
    """As a process whose gate says yes to everybody: what does not fit is decided again."""
    try:
        await ledger.place(batch)
    except ConstraintRefused:
        await ledger.admit(batch)


async def release_some(ledger: Ledger, batch: Sequence[OrderRequest]) -> None:
    """As buyers who change their minds."""
    for order in batch[:5]:
        await ledger.release(key_of(order), order.buyer_id)


@pytest.mark.parametrize("limit_units", [0, LIMIT_UNITS])
async def test_processes_with_a_gate_and_without_one(
    database: Database, make_ledgers: MakeLedgers, events: Events, limit_units: int
) -> None:
    """The same tiers, buyers and ids at all of them, in several ways: no deadlock (which would be
    `LedgerUnavailable`), no seat twice, nobody over the limit; rows are counted after every round.
    """
    ledgers, chance = await make_ledgers(PROCESSES), random.Random(6)
    event = await new_event(events, *[25] * TIERS, max_per_buyer_units=limit_units)
    sold_out = False
    for round_number in range(30):
        common = crowd(event, chance, 30, round_number)
        await asyncio.gather(
            *(
                do(ledger, chance.sample(common, k=len(common)))
                for ledger, do in zip(
                    ledgers, cycle((admit, place, admit, release_some)), strict=False
                )
            ),
            admit(ledgers[0], crowd(event, chance, 30, round_number)),
            place(ledgers[1], crowd(event, chance, 30, round_number)),
        )
        reserved, _ = await assert_balanced(ledgers[0], event)
        await assert_limit_kept(database, event)
        sold_out = sold_out or reserved == 25 * TIERS
    # Twelve buyers of three units each leave seats over.
    assert sold_out == (limit_units == 0)


async def test_one_buyer_at_many_processes(
    database: Database, make_ledgers: MakeLedgers, events: Events
) -> None:
    """Each at a tier of its own, so that nothing but the buyer's own row is in common."""
    ledgers = await make_ledgers(PROCESSES)
    event = await new_event(events, *[100] * TIERS, max_per_buyer_units=5)
    for number in range(25):
        buyer = f"buyer-{number}"
        await asyncio.gather(
            *(
                do(ledger, [request(event, (tier, 2), buyer=buyer)])
                for tier, (ledger, do) in enumerate(
                    zip(ledgers, cycle((admit, place)), strict=False), start=1
                )
            )
        )
    units = await assert_limit_kept(database, event)
    assert set(units.values()) == {4}, "two orders of two units, of four that were tried"
    await assert_balanced(ledgers[0], event)


PLANTED = {
    "candidates": ("WRITE_CANDIDATES", "ORDER BY event_id, id\n", "ORDER BY random()\n"),
    "buyers": ("LOCK_BUYERS", "ORDER BY event_id, buyer_id", "ORDER BY random()"),
    "tiers": ("LOCK_TIERS", "ORDER BY tiers.event_id, tiers.number", "ORDER BY random()"),
}


@pytest.mark.parametrize("rows", PLANTED)
async def test_locking_in_any_order_is_caught(
    make_ledgers: MakeLedgers, events: Events, monkeypatch: pytest.MonkeyPatch, rows: str
) -> None:
    """Which two batches meet is chance; that none do in so many is not. They have no more in common
    than what is locked in any order, or they would wait for each other before that.
    """
    name, locking, at_random = PLANTED[rows]
    sound: str = getattr(statements, name)
    assert sound.count(locking) == 1, "the statement has changed: plant the fault anew"
    monkeypatch.setattr(statements, name, sound.replace(locking, at_random))
    ledgers, chance = await make_ledgers(PROCESSES), random.Random(7)
    limit_units = 0 if rows == "tiers" else 10_000
    event = await new_event(events, *[100_000] * TIERS, max_per_buyer_units=limit_units)

    async def until_caught() -> None:
        for number in range(2_000):
            common = crowd(event, chance, 30, number)
            batches = [
                chance.sample(common, k=len(common))
                if rows == "candidates"
                else crowd(event, chance, 30, (number, process))
                for process in range(PROCESSES)
            ]
            await asyncio.gather(*map(admit, ledgers, batches))

    with pytest.raises(LedgerUnavailable):
        await until_caught()
