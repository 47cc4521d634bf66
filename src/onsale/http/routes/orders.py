"""Orders: placed, looked at, paid for, released, refunded."""

from typing import Annotated

from fastapi import APIRouter, Header, Request, Response

from onsale.domain.order import Order
from onsale.http import cursors
from onsale.http.auth import Scope
from onsale.http.dependencies import (
    JSON_BODY,
    Admin,
    Buyer,
    Cursor,
    OrderKeyDep,
    PageSize,
    PrincipalDep,
    ServiceDep,
)
from onsale.http.intake import ROUTE, Intake
from onsale.http.problems import responses
from onsale.http.schemas import OrderIn, OrderOut, OrderPage, PaymentIn
from onsale.ledger.ledger import PageMark
from onsale.sales.ending import own_order
from onsale.sales.service import Service

router = APIRouter(tags=["orders"])

_CALLER = ("unauthenticated", "forbidden", "not_found", "ledger_unavailable")
_BODY = ("invalid_request", "body_too_large", "unsupported_media_type")
_REPLAYED = {
    "Idempotent-Replayed": {
        "description": "`true` when an earlier request with this key had placed the order.",
        "schema": {"type": "string"},
    }
}


@router.post(
    ROUTE,
    dependencies=[JSON_BODY],
    status_code=201,
    response_model=OrderOut,
    responses={
        201: {"description": "The order, durable.", "headers": _REPLAYED},
        **responses(
            *_CALLER,
            *_BODY,
            "idempotency_key_missing",
            "idempotency_key_reused",
            "payment_declined",
            "sold_out",
            "buyer_limit_reached",
            "sale_not_open",
            "sale_paused",
            "sale_closed",
            "order_expired",
            "order_not_payable",
            "request_in_progress",
            "rate_limited",
            "overloaded",
        ),
    },
)
async def place_order(
    request: Request,
    event_id: str,
    _: PrincipalDep,
    order_in: OrderIn,
    idempotency_key: Annotated[
        str | None,
        Header(
            description="Required, 1 to 255 visible characters of your choice. The same key and"
            " body get the same order, however often and wherever they are sent.",
            examples=["3f1c9d2e-press-1"],
        ),
    ] = None,
) -> Response:
    """Order tickets. On a `card` event this holds the seats until `expires_at`, or confirms them
    when `payment` is sent along and goes well; on a `none` event it confirms them at once.
    """
    # Described here, served by `http.intake` in front of this app; whoever gets here goes there.
    intake: Intake = request.app.state.intake

    async def body_again() -> dict[str, object]:
        return {"type": "http.request", "body": await request.body()}

    answer = await intake.answer(request.scope, body_again, event_id, request.state.request_id)
    response = Response(answer.body, answer.status)
    response.raw_headers[:] = [
        *answer.headers,
        (b"content-length", b"%d" % len(answer.body)),
    ]
    return response


@router.get("/v1/orders", responses=responses(*_CALLER, "invalid_request"))
async def list_own_orders(
    service: ServiceDep, buyer: Buyer, cursor: Cursor = None, size: PageSize = 50
) -> OrderPage:
    """Your own orders of all events, newest first."""
    after = cursors.decode_order(cursor) if cursor is not None else None
    found = await service.ledger.of_buyer(buyer.subject, after, size + 1)
    page = found[:size]
    last = page[-1] if len(found) > size else None
    return OrderPage(
        data=[await _order_out(service, order) for order in page],
        next_cursor=cursors.encode_order(PageMark(last.created_at, last.event_id, last.id))
        if last
        else None,
    )


_ORDER = "/v1/events/{event_id}/orders/{order_id}"


@router.get(_ORDER, responses=responses(*_CALLER))
async def get_order(service: ServiceDep, caller: PrincipalDep, key: OrderKeyDep) -> OrderOut:
    """One order, for its buyer and for admins."""
    if Scope.ADMIN in caller.scopes:
        return await _order_out(service, await own_order(service.ledger, key, None))
    buyer = caller.require(Scope.BUY)
    return await _order_out(service, await own_order(service.ledger, key, buyer.subject))


@router.post(
    f"{_ORDER}/payment",
    dependencies=[JSON_BODY],
    responses=responses(
        *_CALLER,
        *_BODY,
        "payment_declined",
        "order_expired",
        "order_not_payable",
        "request_in_progress",
    ),
)
async def pay_order(
    service: ServiceDep, buyer: Buyer, key: OrderKeyDep, payment_in: PaymentIn
) -> OrderOut:
    """Pay for a hold. Paying for a paid order answers with the order and charges nothing."""
    return await _order_out(
        service, await service.paying.pay(key, buyer.subject, payment_in.method)
    )


@router.delete(
    _ORDER,
    status_code=204,
    responses=responses(*_CALLER, "order_expired", "order_not_releasable"),
)
async def release_order(service: ServiceDep, buyer: Buyer, key: OrderKeyDep) -> None:
    """Give a hold up; its seats are back on sale."""
    await service.ending.release(key, buyer.subject)


@router.post(f"{_ORDER}/refund", responses=responses(*_CALLER, "order_not_refundable"))
async def refund_order(service: ServiceDep, _: Admin, key: OrderKeyDep) -> OrderOut:
    """Refund a confirmed order; its seats are back on sale."""
    return await _order_out(service, await service.ending.refund(key))


async def _order_out(service: Service, order: Order) -> OrderOut:
    return OrderOut.of(order, (await service.catalog.require(order.event_id)).event)
