"""The moment of a sale: 2,000 buyers, 100 tickets, two API processes, counted in the database.

Seen red with order ids that are random, or leave the buyer out, and without stock checks: see
`test_planted`.
"""

from collections import Counter

from onsale.sales.service import Service
from tests.races.books import assert_balanced
from tests.races.crowd import outcomes, press_at_once, presses
from tests.support import MakeEvent, live_orders

BUYERS = 2_000
TICKETS = 100


async def test_every_ticket_is_sold_and_everybody_else_is_told_so(
    ports: list[int], service: Service, make_event: MakeEvent
) -> None:
    event = await make_event(TICKETS)
    answers = await press_at_once(ports, presses(event.id, BUYERS))

    assert outcomes(answers) == {"confirmed": TICKETS, "409 sold_out": BUYERS - TICKETS}
    sold_ids = {answer.body["id"] for answer in answers if answer.status == 201}
    assert len(sold_ids) == TICKETS
    assert await live_orders(service, event.id) == TICKETS
    (tier,) = await assert_balanced(service, event.id)
    assert (tier.sold_units, tier.available_units) == (TICKETS, 0)


async def test_pressing_twice_at_once_buys_once(
    ports: list[int], service: Service, make_event: MakeEvent
) -> None:
    """Both presses of a buyer, each at another process, get one order."""
    event = await make_event(TICKETS)
    pressed = presses(event.id, BUYERS)
    answers = await press_at_once(ports, [press for press in pressed for _ in range(2)])

    assert outcomes(answers) == {
        "confirmed": 2 * TICKETS,
        "409 sold_out": 2 * (BUYERS - TICKETS),
    }
    for first, second in zip(answers[::2], answers[1::2], strict=True):
        assert first.outcome == second.outcome
        assert first.body.get("id") == second.body.get("id")
    presses_per_order = Counter(a.body["id"] for a in answers if a.status == 201)
    assert set(presses_per_order.values()) == {2}
    # Of two presses one is the order's first and the other repeats it.
    assert sum(a.replayed for a in answers) == TICKETS
    assert await live_orders(service, event.id) == TICKETS
    await assert_balanced(service, event.id)
