"""What bodies look like, in and out.

Strict: a number is a number, and unknown fields are refused.
"""

import re
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    field_validator,
    model_validator,
)
from pydantic_core import to_json

from onsale.domain.event import Event, PaymentKind, SaleState
from onsale.domain.ids import TIER_ID
from onsale.domain.order import (
    ITEMS_PER_ORDER_MAX,
    QUANTITY_PER_ITEM_MAX,
    Order,
    OrderStatus,
)
from onsale.domain.tier import CAPACITY_UNITS_MAX, TIERS_PER_EVENT_MAX
from onsale.domain.webhook import DeliveryState, WebhookKind
from onsale.ledger.webhooks import Delivery, Endpoint
from onsale.payments.simulated import SimulatedMethod
from onsale.sales.showing import order_fields

# 100 units of 10 tiers at this price are far below what a 64-bit amount can hold.
PRICE_MINOR_UNITS_MAX = 1_000_000_000
HOLD_SECONDS_MAX = 86_400
MAX_PER_BUYER_MAX = 1_000

TierId = Annotated[
    str,
    StringConstraints(strict=True, pattern=f"^{TIER_ID.pattern}$"),
    Field(examples=["ga"]),
]
# No control characters: they end in logs, on tickets, and Postgres refuses the first of them.
Text = Annotated[
    str,
    StringConstraints(strict=True, min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$"),
]
Quantity = Annotated[int, Field(strict=True, ge=1, le=QUANTITY_PER_ITEM_MAX)]
Capacity = Annotated[int, Field(strict=True, ge=0, le=CAPACITY_UNITS_MAX)]
# pydantic takes numbers, and texts of them, for seconds since 1970.
_RFC_3339_DATE = re.compile(r"\d{4}-\d{2}-\d{2}[Tt ]")
# Postgres and RFC 3339 agree on these years.
_YEARS = range(1970, 9999)


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _is_text(value: object) -> object:
    if not isinstance(value, str) or not _RFC_3339_DATE.match(value):
        raise ValueError("a time is a text such as 2030-05-01T10:00:00Z")
    return value


def _in_years(value: datetime) -> datetime:
    if value.year not in _YEARS:
        raise ValueError(f"the year must lie from {_YEARS.start} to {_YEARS.stop - 1}")
    return value


Moment = Annotated[AwareDatetime, BeforeValidator(_is_text), AfterValidator(_in_years)]


# -- orders


class ItemIn(_Body):
    """So many tickets of one tier."""

    tier_id: TierId
    quantity: Quantity


class PaymentIn(_Body):
    """How to pay; the simulated provider's methods say with their names how the payment goes."""

    method: SimulatedMethod = Field(examples=["ok"])


class OrderIn(_Body):
    """An order: up to ten items, each tier once."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"items": [{"tier_id": "ga", "quantity": 2}]}}
    )

    items: Annotated[list[ItemIn], Field(min_length=1, max_length=ITEMS_PER_ORDER_MAX)]
    payment: PaymentIn | None = Field(
        default=None,
        description="Pay in the same call; only for events with `card` payment.",
    )

    @field_validator("items")
    @classmethod
    def _each_tier_once(cls, items: list[ItemIn]) -> list[ItemIn]:
        if len(items) > 1 and len({item.tier_id for item in items}) < len(items):
            raise ValueError("each tier may stand in an order once")
        return items


ORDER_IN: TypeAdapter[OrderIn] = TypeAdapter(OrderIn)


class ItemOut(BaseModel):
    """So many tickets of one tier."""

    tier_id: str
    quantity: int


class OrderOut(BaseModel):
    """An order. `amount` is in the currency's minor units; `expires_at` is set while it is held."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": "9b2f4c1d8e7a6b5c4d3e2f1a0b9c8d7e",
                "event_id": "0198f3a2b4c57d6e8f901a2b3c4d5e6f",
                "buyer_id": "buyer-1",
                "status": "held",
                "items": [{"tier_id": "ga", "quantity": 2}],
                "amount": 9800,
                "currency": "EUR",
                "created_at": "2030-05-01T10:00:00.123456Z",
                "expires_at": "2030-05-01T10:10:00.123456Z",
            }
        }
    )

    id: str
    event_id: str
    buyer_id: str
    status: OrderStatus
    items: list[ItemOut]
    amount: int
    currency: str
    created_at: datetime
    expires_at: datetime | None

    @classmethod
    def of(cls, order: Order, event: Event) -> "OrderOut":
        """The order as its buyer sees it."""
        return cls.model_validate(order_fields(order, event))

    @staticmethod
    def json_of(order: Order, event: Event) -> bytes:
        """The bytes of `of`, without making a model of each order first."""
        return to_json(order_fields(order, event))


class OrderPage(BaseModel):
    """A page of orders; ask for the next with `cursor=next_cursor` until that is null."""

    data: list[OrderOut]
    next_cursor: str | None


# -- webhooks


class WebhookEndpointIn(_Body):
    """A receiver to be told of orders; of every kind of news unless some are named."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "url": "https://tickets.example.com/onsale",
                "kinds": ["order.confirmed", "order.refunded"],
            }
        }
    )

    url: Annotated[
        str,
        StringConstraints(
            strict=True, min_length=1, max_length=2_000, pattern=r"^https?://[\x21-\x7e]+$"
        ),
    ] = Field(description="`https`, at a public address.")
    kinds: Annotated[list[WebhookKind], Field(min_length=1)] = Field(
        default=list(WebhookKind), description="Each kind once."
    )

    @field_validator("kinds")
    @classmethod
    def _each_kind_once(cls, kinds: list[WebhookKind]) -> list[WebhookKind]:
        if len(set(kinds)) < len(kinds):
            raise ValueError("each kind may stand once")
        return kinds


class WebhookEndpointOut(BaseModel):
    """A receiver. It is sent nothing from `disabled_at` on, because it answered 410."""

    id: str
    url: str
    kinds: list[WebhookKind]
    created_at: datetime
    disabled_at: datetime | None

    @classmethod
    def of(cls, endpoint: Endpoint) -> "WebhookEndpointOut":
        """The endpoint as admins see it."""
        return cls.model_validate(endpoint._asdict())


class NewWebhookEndpointOut(WebhookEndpointOut):
    """A new receiver, and the secret that its messages are signed with: shown this once."""

    secret: str = Field(examples=["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo="])


class WebhookEndpointList(BaseModel):
    """Every receiver, newest first; there are few."""

    data: list[WebhookEndpointOut]


class WebhookDeliveryOut(BaseModel):
    """A message to one receiver; its `id` is the `webhook-id` there, at every attempt."""

    id: str
    endpoint_id: str
    kind: WebhookKind
    event_id: str
    order_id: str
    state: DeliveryState
    attempts: int
    created_at: datetime
    next_attempt_at: datetime | None
    ended_at: datetime | None
    last_error: str | None = Field(examples=["answered 500"])

    @classmethod
    def of(cls, delivery: Delivery) -> "WebhookDeliveryOut":
        """The delivery as admins see it."""
        return cls.model_validate({**delivery._asdict(), "order_id": delivery.order_id.hex()})


class WebhookDeliveryPage(BaseModel):
    """A page of deliveries, newest first."""

    data: list[WebhookDeliveryOut]
    next_cursor: str | None


class WebhookMessage(BaseModel):
    """What a receiver is sent: the order as it was when it entered the status, at `timestamp`."""

    type: WebhookKind
    timestamp: datetime
    data: OrderOut


# -- events


class TierIn(_Body):
    """A tier to be; `price` in the currency's minor units."""

    id: TierId
    name: Text
    price: Annotated[int, Field(strict=True, ge=0, le=PRICE_MINOR_UNITS_MAX)]
    capacity: Capacity


class EventIn(_Body):
    """An event to be put on sale."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "name": "The Last Waltz",
                "venue": "Winterland",
                "starts_at": "2030-11-25T19:00:00Z",
                "sale_opens_at": "2030-05-01T10:00:00Z",
                "sale_closes_at": "2030-11-25T18:00:00Z",
                "hold_seconds": 600,
                "max_per_buyer": 4,
                "payment": "card",
                "currency": "EUR",
                "tiers": [
                    {
                        "id": "ga",
                        "name": "General admission",
                        "price": 4900,
                        "capacity": 1800,
                    },
                    {
                        "id": "balcony",
                        "name": "Balcony",
                        "price": 7900,
                        "capacity": 200,
                    },
                ],
            }
        }
    )

    name: Text
    venue: Text | None = None
    starts_at: Moment
    sale_opens_at: Moment
    sale_closes_at: Moment
    hold_seconds: Annotated[int, Field(strict=True, ge=1, le=HOLD_SECONDS_MAX)] = 600
    max_per_buyer: Annotated[int, Field(strict=True, ge=0, le=MAX_PER_BUYER_MAX)] = Field(
        default=0,
        description="Most tickets of this event for one buyer; 0 for no limit.",
    )
    payment: PaymentKind
    currency: Annotated[
        str,
        StringConstraints(strict=True, pattern=r"^[A-Z]{3}$"),
        Field(examples=["EUR"]),
    ]
    tiers: Annotated[list[TierIn], Field(min_length=1, max_length=TIERS_PER_EVENT_MAX)]

    @field_validator("tiers")
    @classmethod
    def _each_id_once(cls, tiers: list[TierIn]) -> list[TierIn]:
        if len({tier.id for tier in tiers}) < len(tiers):
            raise ValueError("each tier id may stand once")
        return tiers

    @model_validator(mode="after")
    def _window_has_a_length(self) -> "EventIn":
        if self.sale_closes_at - self.sale_opens_at < timedelta(milliseconds=1):
            raise ValueError("sale_closes_at must be after sale_opens_at")
        return self


class TierOut(BaseModel):
    """A tier; `price` in the currency's minor units."""

    id: str
    name: str
    price: int
    capacity: int


class EventOut(BaseModel):
    """An event."""

    id: str
    name: str
    venue: str | None
    starts_at: datetime
    sale_opens_at: datetime
    sale_closes_at: datetime
    hold_seconds: int
    max_per_buyer: int
    payment: PaymentKind
    currency: str
    state: SaleState
    tiers: list[TierOut]
    created_at: datetime

    @classmethod
    def of(cls, event: Event, state: SaleState) -> "EventOut":
        """The event as everybody sees it."""
        return cls(
            id=event.id,
            name=event.name,
            venue=event.venue,
            starts_at=event.starts_at,
            sale_opens_at=event.sale_opens_at,
            sale_closes_at=event.sale_closes_at,
            hold_seconds=event.hold_seconds,
            max_per_buyer=event.max_per_buyer_units,
            payment=event.payment,
            currency=event.currency,
            state=state,
            tiers=[
                TierOut(
                    id=tier.id,
                    name=tier.name,
                    price=tier.price_minor_units,
                    capacity=tier.capacity_units,
                )
                for tier in event.tiers
            ],
            created_at=event.created_at,
        )


class EventPage(BaseModel):
    """A page of events, newest first."""

    data: list[EventOut]
    next_cursor: str | None


class CapacityIn(_Body):
    """A tier's new capacity."""

    model_config = ConfigDict(json_schema_extra={"example": {"capacity": 2500}})

    capacity: Capacity


# -- availability and books


class TierAvailability(BaseModel):
    """What is left of a tier."""

    id: str
    capacity: int
    available: int


class AvailabilityOut(BaseModel):
    """How the sale stands, as of the gate's clock."""

    state: SaleState
    tiers: list[TierAvailability]
    as_of: datetime


class AuditedTier(BaseModel):
    """One tier's books."""

    id: str
    capacity: int
    available: int
    held: int
    sold: int


class AuditOut(BaseModel):
    """The books of both stores. `differences` is empty exactly when they balance."""

    balanced: bool
    oversold: int
    tiers: list[AuditedTier]
    gate: dict[str, Any]
    ledger: dict[str, Any]
    differences: list[dict[str, str]]


class Health(BaseModel):
    """Whether the process lives, or is ready, and what it found of its stores."""

    status: Literal["ok", "unavailable"]
    dependencies: dict[str, bool] | None = None


CURSOR = re.compile(r"[A-Za-z0-9_-]{1,200}")
