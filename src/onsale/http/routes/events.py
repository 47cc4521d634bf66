"""Events: put on sale, look at, pause, resume, close; capacities, availability, books."""

from collections.abc import AsyncIterator
from dataclasses import asdict
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Annotated

from fastapi import APIRouter, Header, Response
from fastapi.responses import StreamingResponse

from onsale.domain.errors import GateUnavailable, NotFound
from onsale.domain.event import Event, SaleState, SaleSwitch
from onsale.http import cursors
from onsale.http.dependencies import (
    JSON_BODY,
    Admin,
    Cursor,
    EventId,
    Operator,
    PageSize,
    ServiceDep,
    StreamPlace,
    TierIdDep,
)
from onsale.http.problems import responses
from onsale.http.schemas import (
    AuditedTier,
    AuditOut,
    AvailabilityOut,
    CapacityIn,
    EventIn,
    EventOut,
    EventPage,
    TierAvailability,
)
from onsale.http.streams import Streams
from onsale.ledger.events import NewEvent, NewTier
from onsale.sales.books import DIFFERENCES_MAX, Audit, audit
from onsale.sales.sale import Sale
from onsale.sales.service import Service

router = APIRouter(prefix="/v1/events", tags=["events"])

_ADMIN = ("unauthenticated", "forbidden", "ledger_unavailable")
_BODY = ("invalid_request", "body_too_large", "unsupported_media_type")
# A proxy closes a connection that says nothing for long.
_HEARTBEAT_SECONDS = 15.0


@router.post("", status_code=201, dependencies=[JSON_BODY], responses=responses(*_ADMIN, *_BODY))
async def create_event(
    service: ServiceDep, _: Admin, event_in: EventIn, response: Response
) -> EventOut:
    """Put an event on sale. Its window says from when to when it sells."""
    event = await service.organising.create(
        NewEvent(
            name=event_in.name,
            venue=event_in.venue,
            starts_at=event_in.starts_at.astimezone(UTC),
            sale_opens_at=event_in.sale_opens_at.astimezone(UTC),
            sale_closes_at=event_in.sale_closes_at.astimezone(UTC),
            hold_seconds=event_in.hold_seconds,
            max_per_buyer_units=event_in.max_per_buyer,
            payment=event_in.payment,
            currency=event_in.currency,
            tiers=tuple(
                NewTier(tier.id, tier.name, tier.price, tier.capacity) for tier in event_in.tiers
            ),
        )
    )
    response.headers["Location"] = f"/v1/events/{event.id}"
    return await _event_out(service, event)


@router.get("", responses=responses("invalid_request", "ledger_unavailable"))
async def list_events(service: ServiceDep, cursor: Cursor = None, size: PageSize = 50) -> EventPage:
    """Events, newest first."""
    after = cursors.decode_id(cursor) if cursor is not None else None
    found = await service.events.page(after, size + 1)
    now = await service.events.now()
    page = found[:size]
    return EventPage(
        data=[EventOut.of(event, event.state_at(now)) for event in page],
        next_cursor=cursors.encode_id(page[-1].id) if len(found) > size else None,
    )


@router.get("/{event_id}", responses=responses("not_found", "ledger_unavailable"))
async def get_event(service: ServiceDep, event_id: EventId) -> EventOut:
    """One event."""
    event = await service.events.get(event_id)
    if event is None:
        raise NotFound
    return await _event_out(service, event)


@router.post("/{event_id}/pause", responses=responses(*_ADMIN, "not_found", "sale_closed"))
async def pause_sale(service: ServiceDep, _: Admin, event_id: EventId) -> EventOut:
    """Stop admitting orders for now. Holds can still be paid for."""
    return await _switched(service, event_id, SaleSwitch.PAUSED)


@router.post("/{event_id}/resume", responses=responses(*_ADMIN, "not_found", "sale_closed"))
async def resume_sale(service: ServiceDep, _: Admin, event_id: EventId) -> EventOut:
    """Admit orders again, within the sale's window."""
    return await _switched(service, event_id, SaleSwitch.OPEN)


@router.post("/{event_id}/close", responses=responses(*_ADMIN, "not_found"))
async def close_sale(service: ServiceDep, _: Admin, event_id: EventId) -> EventOut:
    """End the sale for good. Holds can still be paid for until they expire."""
    return await _switched(service, event_id, SaleSwitch.CLOSED)


@router.patch(
    "/{event_id}/tiers/{tier_id}",
    dependencies=[JSON_BODY],
    responses=responses(*_ADMIN, *_BODY, "not_found", "capacity_below_reserved"),
)
async def set_capacity(
    service: ServiceDep,
    _: Admin,
    event_id: EventId,
    tier_id: TierIdDep,
    capacity_in: CapacityIn,
) -> EventOut:
    """Give a tier another capacity, not below what is held and sold."""
    event = await service.organising.set_capacity(event_id, tier_id, capacity_in.capacity)
    return await _event_out(service, event)


@router.get(
    "/{event_id}/availability",
    response_model=AvailabilityOut,
    responses={
        304: {"description": "Unchanged since the `ETag` in `If-None-Match`."},
        **responses("not_found", "ledger_unavailable"),
    },
)
async def get_availability(
    service: ServiceDep,
    event_id: EventId,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """What is left, tier by tier."""
    availability = await _availability(service, event_id)
    etag = _etag(availability)
    headers = {"ETag": etag, "Cache-Control": "no-cache"}
    if if_none_match is not None and (if_none_match == "*" or etag in if_none_match):
        return Response(status_code=304, headers=headers)
    return Response(availability.model_dump_json(), media_type="application/json", headers=headers)


@router.get(
    "/{event_id}/availability/stream",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "Server-sent events `availability`: one now, and one per change.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        **responses("not_found", "overloaded", "ledger_unavailable"),
    },
)
async def stream_availability(
    service: ServiceDep, event_id: EventId, streams: StreamPlace
) -> StreamingResponse:
    """What is left, told as it changes."""
    first = await _availability(service, event_id)
    return StreamingResponse(
        _stream(streams, service, event_id, first),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
    )


async def _stream(
    streams: Streams, service: Service, event_id: str, first: AvailabilityOut
) -> AsyncIterator[str]:
    interval_seconds = service.settings.availability_stream_interval_seconds
    told, quiet_seconds = _etag(first), 0.0
    yield _server_sent(first)
    sale = await service.catalog.require(event_id)
    # Once its gate is retired nothing changes any more, and the last word has been said.
    while not sale.event.gate_retired and await streams.goes_on_after(interval_seconds):
        quiet_seconds += interval_seconds
        availability = await _availability(service, event_id)
        etag = _etag(availability)
        if etag != told:
            told, quiet_seconds = etag, 0.0
            yield _server_sent(availability)
        elif quiet_seconds >= _HEARTBEAT_SECONDS:
            quiet_seconds = 0.0
            yield ": still here\n\n"


def _server_sent(availability: AvailabilityOut) -> str:
    return f"event: availability\ndata: {availability.model_dump_json()}\n\n"


@router.get(
    "/{event_id}/audit",
    responses=responses("unauthenticated", "forbidden", "not_found", "ledger_unavailable"),
)
async def get_audit(service: ServiceDep, _: Operator, event_id: EventId) -> AuditOut:
    """The books of both stores, and what does not add up in them or between them."""
    event = await service.events.get(event_id)
    if event is None:
        raise NotFound
    grace_seconds = service.settings.reconciler_grace_seconds
    return audit_out(await audit(event, service.gate, service.ledger, grace_seconds))


def audit_out(found: Audit) -> AuditOut:
    """An audit as the contract shows it."""
    tiers = [
        AuditedTier(
            id=tier.counted.tier_id,
            capacity=tier.counted.capacity_units,
            available=tier.counted.available_units,
            held=tier.counted.held_units,
            sold=tier.counted.sold_units,
        )
        for tier in found.ledger
    ]
    gate = found.gate
    return AuditOut(
        balanced=found.balanced,
        oversold=found.oversold_units,
        tiers=tiers,
        ledger={
            "orders": {
                tier.counted.tier_id: {
                    "reserved": tier.summed_reserved_units,
                    "sold": tier.summed_sold_units,
                }
                for tier in found.ledger
            },
            "tiers": [tier.model_dump() for tier in tiers],
        },
        gate={
            "loaded": gate is not None,
            "live_orders": gate.live_orders if gate else 0,
            "tiers": [
                {
                    "id": found.event.tier_by_number[tier.tier_number].id,
                    "capacity": tier.capacity_units,
                    "available": tier.available_units,
                    "taken": tier.taken_units,
                }
                for tier in (gate.tiers if gate else ())
            ],
        },
        differences=[asdict(difference) for difference in found.differences[:DIFFERENCES_MAX]],
    )


async def _switched(service: Service, event_id: str, switch: SaleSwitch) -> EventOut:
    return await _event_out(service, await service.organising.switch(event_id, switch))


async def _event_out(service: Service, event: Event) -> EventOut:
    return EventOut.of(event, event.state_at(await service.events.now()))


async def _availability(service: Service, event_id: str) -> AvailabilityOut:
    sale = await service.catalog.require(event_id)
    try:
        seen = await service.catalog.availability(sale)
    except GateUnavailable:
        # The ledger knows as well, and is asked only while there is no gate to ask.
        return await _availability_by_ledger(service, sale)
    return _availability_out(
        sale.event,
        sale.state(),
        {tier.id: seen.available_units.get(tier.number, 0) for tier in sale.event.tiers},
        datetime.fromtimestamp(seen.now_ms / 1000, UTC),
    )


async def _availability_by_ledger(service: Service, sale: Sale) -> AvailabilityOut:
    now = await service.events.now()
    counters = await service.ledger.counters(sale.event.id)
    left = {tier.tier_id: tier.available_units for tier in counters}
    return _availability_out(sale.event, sale.event.state_at(now), left, now)


def _availability_out(
    event: Event, state: SaleState, available_units: dict[str, int], as_of: datetime
) -> AvailabilityOut:
    return AvailabilityOut(
        state=state,
        tiers=[
            TierAvailability(
                id=tier.id, capacity=tier.capacity_units, available=max(0, available_units[tier.id])
            )
            for tier in event.tiers
        ],
        as_of=as_of,
    )


def _etag(availability: AvailabilityOut) -> str:
    content = availability.model_dump_json(exclude={"as_of"})
    return f'"{blake2b(content.encode(), digest_size=8).hexdigest()}"'
