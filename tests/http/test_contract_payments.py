"""Payments, by the methods of the simulated provider: each says with its name how it goes."""

import asyncio

import httpx
import pytest

from onsale.domain.event import Event, PaymentKind
from onsale.sales.service import Service
from onsale.settings import Settings
from tests.http.calls import order_path, place, placed, problem_of, started, units_taken
from tests.http.test_contract_orders import REPLAYED, expired
from tests.support import MakeEvent, as_buyer, count_rows, items, wait_until

GOOD = ["ok", "slow", "lost"]
BAD = ["declined", "timeout"]


async def pay(
    client: httpx.AsyncClient, order: dict[str, str], method: str, buyer: str = "buyer-1"
) -> httpx.Response:
    """Pay for an order."""
    return await client.post(
        order_path(order, "payment"), json={"method": method}, headers=as_buyer(buyer)
    )


async def charges(service: Service, event: Event) -> int:
    """Payments of the event's orders that take or may take money."""
    return await count_rows(
        service,
        "SELECT count(*) FROM payments"
        " WHERE event_id = :event AND state IN ('started', 'authorized', 'captured')",
        event=event.id,
    )


@pytest.fixture
async def event(make_event: MakeEvent) -> Event:
    """An event whose orders a card pays for."""
    return await make_event(10, payment=PaymentKind.CARD)


@pytest.mark.parametrize("method", GOOD)
async def test_a_payment_that_goes_well(
    client: httpx.AsyncClient, service: Service, event: Event, method: str
) -> None:
    order = await placed(client, event.id, items(2))
    answer = await pay(client, order, method)
    assert answer.status_code == 200
    assert answer.json() == {**order, "status": "confirmed", "expires_at": None}
    assert await charges(service, event) == 1
    assert await units_taken(service, event) == (1, 2, 1, 2)


@pytest.mark.parametrize("method", BAD)
async def test_a_payment_that_does_not(
    client: httpx.AsyncClient, service: Service, event: Event, method: str
) -> None:
    """Nothing is charged and the hold stands, so that another card may do."""
    order = await placed(client, event.id)
    problem = problem_of(await pay(client, order, method), 402, "payment_declined")
    assert problem["order_id"] == order["id"]
    assert await charges(service, event) == 0
    assert (await client.get(order_path(order), headers=as_buyer())).json() == order
    assert (await pay(client, order, "ok")).json()["status"] == "confirmed"
    assert await charges(service, event) == 1


@pytest.mark.parametrize("method", GOOD)
async def test_a_payment_sent_along(
    client: httpx.AsyncClient, service: Service, event: Event, method: str
) -> None:
    headers, body = as_buyer(), {**items(2), "payment": {"method": method}}
    order = await placed(client, event.id, body, headers)
    assert (order["status"], order["expires_at"]) == ("confirmed", None)
    again = await place(client, event.id, body, headers)
    assert (again.status_code, again.headers[REPLAYED], again.json()) == (201, "true", order)
    assert await charges(service, event) == 1


@pytest.mark.parametrize("method", BAD)
async def test_a_payment_sent_along_that_does_not_go_well_leaves_the_hold(
    client: httpx.AsyncClient, service: Service, event: Event, method: str
) -> None:
    headers, body = as_buyer(), {**items(2), "payment": {"method": method}}
    for _ in range(2):
        problem = problem_of(await place(client, event.id, body, headers), 402, "payment_declined")
        assert await units_taken(service, event) == (1, 2, 1, 2)
    order = {"event_id": event.id, "id": problem["order_id"]}
    held = (await client.get(order_path(order), headers=headers)).json()
    assert (held["status"], held["id"]) == ("held", problem["order_id"])
    assert (await pay(client, order, "ok")).json()["status"] == "confirmed"
    again = await place(client, event.id, body, headers)
    assert (again.status_code, again.json()["status"]) == (201, "confirmed")
    assert await charges(service, event) == 1


async def test_paying_again_charges_nothing(
    client: httpx.AsyncClient, service: Service, event: Event
) -> None:
    order = await placed(client, event.id)
    first = await pay(client, order, "ok")
    for method in ("ok", "declined", "timeout"):
        again = await pay(client, order, method)
        assert (again.status_code, again.json()) == (200, first.json())
    assert await charges(service, event) == 1


async def test_pressing_pay_twice_at_once_charges_once(
    client: httpx.AsyncClient, service: Service, event: Event
) -> None:
    order = await placed(client, event.id)
    answers = await asyncio.gather(*(pay(client, order, "slow") for _ in range(4)))
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.json()["status"] for answer in answers} == {"confirmed"}
    assert await charges(service, event) == 1


async def test_another_method_waits_for_the_first(
    settings: Settings, service: Service, event: Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    patient = settings.model_copy(update={"payment_timeout_seconds": 60})
    async with started(patient) as (app, client):
        order = await placed(client, event.id)
        asked, may_answer = asyncio.Event(), asyncio.Event()

        async def authorize(*_: object) -> None:
            asked.set()
            await may_answer.wait()

        monkeypatch.setattr(app.api.state.service.provider, "authorize", authorize)
        first = asyncio.create_task(pay(client, order, "ok"))
        await asked.wait()
        problem_of(await pay(client, order, "slow"), 409, "request_in_progress")
        may_answer.set()
        assert (await first).status_code == 200
    assert await charges(service, event) == 1


async def test_an_expired_hold_is_not_paid_for(
    client: httpx.AsyncClient, service: Service, make_event: MakeEvent
) -> None:
    event = await make_event(payment=PaymentKind.CARD, hold_seconds=1)
    order = await placed(client, event.id)
    await expired(service, event)
    problem_of(await pay(client, order, "ok"), 409, "order_expired")
    assert await charges(service, event) == 0


async def test_a_hold_that_expires_while_it_is_paid_for(
    settings: Settings, service: Service, event: Event
) -> None:
    """The ledger decides when the provider has answered; what it authorised is let go."""
    unhurried = settings.model_copy(
        update={"simulated_payment_slow_seconds": 1.0, "payment_timeout_seconds": 30.0}
    )
    async with started(unhurried) as (_, client):
        order = await placed(client, event.id)
        paying = asyncio.create_task(pay(client, order, "slow"))

        async def begun() -> bool:
            return await charges(service, event) == 1

        await wait_until(begun)
        overdue = "UPDATE orders SET expires_at = now() WHERE event_id = :event RETURNING 1"
        await count_rows(service, overdue, event=event.id)
        problem_of(await paying, 409, "order_expired")
    due = "SELECT count(*) FROM payments WHERE event_id = :event AND state = 'void_due'"
    assert await count_rows(service, due, event=event.id) == 1


async def test_a_released_order_is_not_paid_for(
    client: httpx.AsyncClient, service: Service, event: Event
) -> None:
    order = await placed(client, event.id)
    await client.delete(order_path(order), headers=as_buyer())
    problem_of(await pay(client, order, "ok"), 409, "order_not_payable")
    assert await charges(service, event) == 0


async def test_an_order_that_cost_nothing_to_confirm_is_paid_already(
    client: httpx.AsyncClient, make_event: MakeEvent
) -> None:
    order = await placed(client, (await make_event()).id)
    answer = await pay(client, order, "declined")
    assert (answer.status_code, answer.json()) == (200, order)
