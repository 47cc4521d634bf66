"""What routes ask for: the service, who is calling, and ids that can be ids."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, Path, Query, Request
from fastapi.security import HTTPBearer

from onsale.domain.errors import NotFound
from onsale.domain.ids import HEX_ID, TIER_ID
from onsale.http.auth import Authenticator, Principal, Scope
from onsale.http.intake import require_json
from onsale.http.streams import Streams
from onsale.ledger.ledger import OrderKey
from onsale.sales.service import Service

PAGE_SIZE_MAX = 100

_bearer = HTTPBearer(auto_error=False, bearerFormat="JWT", description="A JWT; see `onsale token`.")


async def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


ServiceDep = Annotated[Service, Depends(_service)]


async def _principal(request: Request, _: Annotated[object, Depends(_bearer)]) -> Principal:
    authenticator: Authenticator = request.app.state.authenticator
    header = request.headers.get("authorization")
    return await authenticator.principal(header.encode("latin-1") if header else None)


PrincipalDep = Annotated[Principal, Depends(_principal)]


def _with_scope(scope: Scope) -> object:
    async def check(principal: PrincipalDep) -> Principal:
        return principal.require(scope)

    return Depends(check)


Buyer = Annotated[Principal, _with_scope(Scope.BUY)]
Admin = Annotated[Principal, _with_scope(Scope.ADMIN)]
Operator = Annotated[Principal, _with_scope(Scope.OPS)]


async def _json_body(request: Request) -> None:
    header = request.headers.get("content-type")
    require_json(header.encode("latin-1") if header else None)


JSON_BODY = Depends(_json_body)


async def _stream_place(request: Request) -> AsyncIterator[Streams]:
    """A place that is given back when the stream has ended, or never began."""
    streams: Streams = request.app.state.streams
    async with streams.place():
        yield streams


StreamPlace = Annotated[Streams, Depends(_stream_place)]

_HEX_EXAMPLES = ["0198f3a2b4c57d6e8f901a2b3c4d5e6f"]


def _require_hex(id_: str) -> str:
    # What cannot be an id names nothing: the same answer as for one that is not there.
    if not HEX_ID.fullmatch(id_):
        raise NotFound
    return id_


async def _event_id(event_id: Annotated[str, Path(examples=_HEX_EXAMPLES)]) -> str:
    return _require_hex(event_id)


EventId = Annotated[str, Depends(_event_id)]


async def _endpoint_id(endpoint_id: Annotated[str, Path(examples=_HEX_EXAMPLES)]) -> str:
    return _require_hex(endpoint_id)


EndpointId = Annotated[str, Depends(_endpoint_id)]


async def _delivery_id(delivery_id: Annotated[str, Path(examples=_HEX_EXAMPLES)]) -> str:
    return _require_hex(delivery_id)


DeliveryId = Annotated[str, Depends(_delivery_id)]


async def _order_key(
    event_id: EventId, order_id: Annotated[str, Path(examples=_HEX_EXAMPLES)]
) -> OrderKey:
    return OrderKey(event_id, bytes.fromhex(_require_hex(order_id)))


OrderKeyDep = Annotated[OrderKey, Depends(_order_key)]


async def _tier_id(tier_id: Annotated[str, Path(examples=["ga"])]) -> str:
    if not TIER_ID.fullmatch(tier_id):
        raise NotFound
    return tier_id


TierIdDep = Annotated[str, Depends(_tier_id)]

PageSize = Annotated[int, Query(alias="limit", ge=1, le=PAGE_SIZE_MAX)]
Cursor = Annotated[str | None, Query(description="The `next_cursor` of the page before.")]
