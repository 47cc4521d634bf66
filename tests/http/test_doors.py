"""Who is refused before anything is done for them, and who never is."""

import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import pytest

from onsale.domain.event import Event, PaymentKind
from onsale.http.app import Application
from onsale.observability.runtime import stop
from onsale.sales.service import Service
from onsale.settings import Settings
from tests.http.calls import (
    assert_nothing_taken,
    event_path,
    order_path,
    orders_path,
    place,
    placed,
    problem_of,
    started,
)
from tests.support import MakeEvent, as_buyer, count_rows, items, wait_until, with_scope

CARD = {"method": "ok"}


@pytest.fixture
async def own(settings: Settings) -> AsyncIterator[tuple[Application, httpx.AsyncClient]]:
    """An API with four places for requests that are not orders."""
    few = settings.model_copy(update={"requests_in_flight_max": 4})
    async with started(few) as made:
        yield made


def fill_the_valve(app: Application) -> None:
    """As if as many orders were in flight as there may be."""
    valve = app.api.state.service.placing.valve
    valve.in_flight = valve.limit = 10_000


async def test_a_full_process_refuses_orders_and_takes_nothing(
    own: tuple[Application, httpx.AsyncClient], service: Service, make_event: MakeEvent
) -> None:
    """Seen red with `refusal` left out: the order is placed."""
    app, client = own
    event = await make_event()
    fill_the_valve(app)
    answer = await place(client, event.id)
    problem_of(answer, 503, "overloaded")
    await assert_nothing_taken(service, event)


async def test_before_it_is_even_known_who_asks(
    own: tuple[Application, httpx.AsyncClient],
) -> None:
    """The cheapest answer is for everybody: a token is not looked at."""
    app, client = own
    fill_the_valve(app)
    answer = await client.post(orders_path("0" * 32), content=b"{", headers={})
    problem_of(answer, 503, "overloaded")


async def test_only_orders_that_may_be_placed_have_a_place_kept(
    own: tuple[Application, httpx.AsyncClient], make_event: MakeEvent
) -> None:
    """There is one place, and in one turn of the event loop come many without a token or a sound
    body, then two buyers. Seen red with a place for everybody who asked: no buyer had one.
    """
    app, _ = own
    event = await make_event()
    app.api.state.service.placing.valve.limit = 1
    target = orders_path(event.id).encode()
    sound = [
        (name.lower().encode(), value.encode())
        for name, value in (as_buyer() | {"Content-Type": "application/json"}).items()
    ]
    body = json.dumps(items()).encode()
    junk = [
        ([(name, value) for name, value in sound if name != b"authorization"], body),
        ([(name, value) for name, value in sound if name != b"idempotency-key"], body),
        (sound, b"{"),
    ]
    for headers, asked in junk:
        assert app.answer_at_once(b"POST", target, headers, asked) is None
    assert app.answer_at_once(b"POST", target, sound, body) is None
    refused = app.answer_at_once(b"POST", target, sound, body)
    assert refused is not None
    assert refused.status == 503


async def test_who_had_room_when_his_head_was_read_is_asked_again(
    own: tuple[Application, httpx.AsyncClient], service: Service, make_event: MakeEvent
) -> None:
    """Others came in while his body was on its way. Seen red without the second look, which placed
    the order.
    """
    app, client = own
    event = await make_event()

    async def body() -> AsyncIterator[bytes]:
        fill_the_valve(app)
        yield json.dumps(items()).encode()

    headers = as_buyer() | {"Content-Type": "application/json"}
    answer = await client.post(orders_path(event.id), content=body(), headers=headers)
    problem_of(answer, 503, "overloaded")
    await assert_nothing_taken(service, event)


async def test_who_waits_for_the_provider_takes_nobodys_room(
    settings: Settings, service: Service, make_event: MakeEvent
) -> None:
    """There is room for one order, and the provider never answers for the first. Seen red with the
    payment inside the valve, which refused the second.
    """
    event = await make_event(payment=PaymentKind.CARD)
    one = settings.model_copy(update={"orders_in_flight_max": 1, "payment_timeout_seconds": 60.0})
    async with started(one) as (_, client):
        body = items() | {"payment": {"method": "timeout"}}
        waiting = asyncio.create_task(place(client, event.id, body))

        async def provider_is_asked() -> bool:
            asked = "SELECT count(*) FROM payments WHERE event_id = :event"
            return await count_rows(service, asked, event=event.id) == 1

        await wait_until(provider_is_asked)
        assert (await place(client, event.id, headers=as_buyer("buyer-2"))).status_code == 201
        assert not waiting.done()
        await stop(waiting)


async def test_who_holds_can_pay_and_release_and_the_organiser_can_pause(
    own: tuple[Application, httpx.AsyncClient], make_event: MakeEvent
) -> None:
    """While every order is refused. Seen red with the doors shut for everybody."""
    app, client = own
    event = await make_event(payment=PaymentKind.CARD)
    headers = as_buyer()
    first, second = [
        await placed(client, event.id, headers=headers | {"Idempotency-Key": key}) for key in "ab"
    ]
    fill_the_valve(app)
    problem_of(await place(client, event.id), 503, "overloaded")
    paid = await client.post(order_path(first, "payment"), json=CARD, headers=headers)
    assert (paid.status_code, paid.json()["status"]) == (200, "confirmed")
    released = await client.delete(order_path(second), headers=headers)
    assert released.status_code == 204
    paused = await client.post(event_path(event.id, "pause"), headers=with_scope("admin"))
    assert paused.status_code == 200
    for path in ("/healthz", "/readyz", event_path(event.id)):
        assert (await client.get(path)).status_code == 200


async def test_readers_leave_places_to_those_who_pay(
    own: tuple[Application, httpx.AsyncClient], make_event: MakeEvent
) -> None:
    """Two of four places are taken: nobody reads any more, and the others come in until all are."""
    app, client = own
    event = await make_event()
    doors = app.api.state.doors
    inside = {"path": "/v1/events", "method": "GET"}
    with doors.inside(inside), doors.inside(inside):
        problem_of(await client.get(event_path(event.id)), 503, "overloaded")
        pause = event_path(event.id, "pause")
        assert (await client.post(pause, headers=with_scope("admin"))).status_code == 200
        with doors.inside(inside), doors.inside(inside):
            problem_of(await client.post(pause, headers=with_scope("admin")), 503, "overloaded")
            assert (await client.get("/healthz")).status_code == 200
    assert (await client.get(event_path(event.id))).status_code == 200


async def test_streams_do_not_take_those_places(
    own: tuple[Application, httpx.AsyncClient],
) -> None:
    """They last as long as somebody looks, and have places of their own."""
    app, client = own
    doors = app.api.state.doors
    stream = {"path": "/v1/events/e/availability/stream", "method": "GET"}
    with doors.inside(stream), doors.inside(stream), doors.inside(stream):
        assert (await client.get("/v1/events")).status_code == 200


async def test_who_was_let_in_is_served_when_the_doors_close(
    own: tuple[Application, httpx.AsyncClient], make_event: MakeEvent
) -> None:
    """Told to stop: the order on its way is placed, and whoever comes after is told to come again;
    a balancer sees that the process is not ready, and the one who restarts it that it lives.
    """
    app, client = own
    event: Event = await make_event()
    on_its_way = asyncio.create_task(place(client, event.id))
    valve = app.api.state.service.placing.valve

    async def is_inside() -> bool:
        return bool(valve.in_flight == 1)

    await wait_until(is_inside, poll_s=0)
    app.api.state.doors.close()
    problem_of(await place(client, event.id), 503, "overloaded")
    problem_of(await client.get("/v1/events"), 503, "overloaded")
    assert (await client.get("/readyz")).status_code == 503
    assert (await client.get("/healthz")).status_code == 200
    assert (await on_its_way).status_code == 201
