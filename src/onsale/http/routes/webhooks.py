"""Webhooks: who is to be told of orders, and how it stands with telling them."""

from typing import Annotated

from fastapi import APIRouter, Query

from onsale.domain.errors import FieldError, InvalidRequest
from onsale.domain.webhook import DeliveryState
from onsale.http import cursors
from onsale.http.dependencies import (
    JSON_BODY,
    Admin,
    Cursor,
    DeliveryId,
    EndpointId,
    PageSize,
    ServiceDep,
)
from onsale.http.problems import responses
from onsale.http.schemas import (
    NewWebhookEndpointOut,
    WebhookDeliveryOut,
    WebhookDeliveryPage,
    WebhookEndpointIn,
    WebhookEndpointList,
    WebhookEndpointOut,
    WebhookMessage,
)
from onsale.webhooks.signing import new_secret
from onsale.webhooks.targets import TargetRefused

router = APIRouter(prefix="/v1", tags=["webhooks"])
# What receivers are sent; documented, and served by them.
messages = APIRouter(tags=["webhooks"])

_ADMIN = ("unauthenticated", "forbidden", "ledger_unavailable")
_BODY = ("invalid_request", "body_too_large", "unsupported_media_type")


@router.post(
    "/webhook-endpoints",
    status_code=201,
    dependencies=[JSON_BODY],
    responses=responses(*_ADMIN, *_BODY, "webhook_endpoint_limit_reached"),
)
async def register_webhook_endpoint(
    service: ServiceDep, _: Admin, endpoint_in: WebhookEndpointIn
) -> NewWebhookEndpointOut:
    """Have a receiver told of what happens to orders from now on. Keep the `secret` of the answer:
    messages are signed with it, and it is not shown again.
    """
    try:
        await service.targets.check(endpoint_in.url)
    except TargetRefused as refused:
        raise InvalidRequest(FieldError("url", str(refused))) from refused
    secret = new_secret()
    endpoint = await service.webhooks.register(endpoint_in.url, secret, endpoint_in.kinds)
    return NewWebhookEndpointOut(**endpoint._asdict(), secret=secret)


@router.get("/webhook-endpoints", responses=responses(*_ADMIN))
async def list_webhook_endpoints(service: ServiceDep, _: Admin) -> WebhookEndpointList:
    """Every receiver, newest first, without its secret."""
    found = await service.webhooks.endpoints()
    return WebhookEndpointList(data=[WebhookEndpointOut.of(endpoint) for endpoint in found])


@router.delete(
    "/webhook-endpoints/{endpoint_id}",
    status_code=204,
    responses=responses(*_ADMIN, "not_found"),
)
async def remove_webhook_endpoint(service: ServiceDep, _: Admin, endpoint_id: EndpointId) -> None:
    """Forget a receiver, and what it has not been told yet."""
    await service.webhooks.remove(endpoint_id)


@router.post("/webhook-endpoints/{endpoint_id}/enable", responses=responses(*_ADMIN, "not_found"))
async def enable_webhook_endpoint(
    service: ServiceDep, _: Admin, endpoint_id: EndpointId
) -> WebhookEndpointOut:
    """Send again to a receiver that once answered 410. What waited for it is sent; what happened
    meanwhile is not.
    """
    return WebhookEndpointOut.of(await service.webhooks.enable(endpoint_id))


@router.get("/webhook-deliveries", responses=responses(*_ADMIN, "invalid_request"))
async def list_webhook_deliveries(
    service: ServiceDep,
    _: Admin,
    state: Annotated[
        DeliveryState | None,
        Query(description="`dead`: given up after the last attempt, until sent again."),
    ] = None,
    cursor: Cursor = None,
    size: PageSize = 50,
) -> WebhookDeliveryPage:
    """Messages to receivers, newest first."""
    before = cursors.decode_id(cursor) if cursor is not None else None
    found = await service.webhooks.page(state, before, size + 1)
    page = found[:size]
    return WebhookDeliveryPage(
        data=[WebhookDeliveryOut.of(delivery) for delivery in page],
        next_cursor=cursors.encode_id(page[-1].id) if len(found) > size else None,
    )


@router.post(
    "/webhook-deliveries/{delivery_id}/resend",
    status_code=202,
    responses=responses(*_ADMIN, "not_found", "webhook_endpoint_disabled"),
)
async def resend_webhook_delivery(
    service: ServiceDep, _: Admin, delivery_id: DeliveryId
) -> WebhookDeliveryOut:
    """Send a message again, dead or not, under the same id and with all its attempts before it."""
    return WebhookDeliveryOut.of(await service.webhooks.resend(delivery_id))


@messages.post("order", status_code=204)
async def order_changed(message: WebhookMessage) -> None:
    """An order entered a status. Sent at least once, signed by Standard Webhooks (`webhook-id`,
    `webhook-timestamp`, `webhook-signature`); any 2xx takes it, 410 disables the endpoint, and
    anything else is tried again.
    """
