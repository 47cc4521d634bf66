"""What is on sale in a campaign: little stock and many who want it, and more than anybody wants."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import httpx

from onsale.http.auth import make_token

_ANSWER_SECONDS_MAX = 30
_PRICE_MINOR_UNITS = 1_000


@dataclass(frozen=True, slots=True)
class Sale:
    """An event as its buyers know it; capacities by tier id, a limit of 0 is none."""

    event_id: str
    name: str
    payment: str
    capacities_units: Mapping[str, int]
    max_per_buyer_units: int
    hold_seconds: int


@dataclass(frozen=True, slots=True)
class Sales:
    """To be held and paid; to be had at once; and one that cannot sell out, to see who serves."""

    card: Sale
    free: Sale
    probe: Sale

    @property
    def all(self) -> tuple[Sale, ...]:
        return (self.card, self.free, self.probe)


async def open_sales(base_url: str, auth_secret: str) -> Sales:
    """Put all three on sale, for longer than any campaign. Raises `httpx.HTTPError`."""
    token = make_token(auth_secret, "organiser", "admin", timedelta(hours=1))
    async with httpx.AsyncClient(
        base_url=base_url,
        headers={"Authorization": f"Bearer {token}"},
        timeout=_ANSWER_SECONDS_MAX,
    ) as client:
        return Sales(
            # Holds that expire while one looks on.
            card=await _put_on_sale(client, "card", {"ga": 60, "balcony": 20}, "card", 4, 4),
            free=await _put_on_sale(client, "free", {"ga": 80, "balcony": 30}, "none", 3),
            probe=await _put_on_sale(client, "probe", {"ga": 1_000_000}, "none", 0),
        )


async def _put_on_sale(
    client: httpx.AsyncClient,
    name: str,
    capacities_units: Mapping[str, int],
    payment: str,
    max_per_buyer_units: int,
    hold_seconds: int = 600,
) -> Sale:
    now = datetime.now(UTC)
    answer = await client.post(
        "/v1/events",
        json={
            "name": name,
            "starts_at": (now + timedelta(days=30)).isoformat(),
            "sale_opens_at": (now - timedelta(days=1)).isoformat(),
            "sale_closes_at": (now + timedelta(days=1)).isoformat(),
            "payment": payment,
            "hold_seconds": hold_seconds,
            "max_per_buyer": max_per_buyer_units,
            "currency": "EUR",
            "tiers": [
                {"id": tier, "name": tier, "price": _PRICE_MINOR_UNITS, "capacity": units}
                for tier, units in capacities_units.items()
            ],
        },
    )
    answer.raise_for_status()
    event_id: str = answer.json()["id"]
    return Sale(event_id, name, payment, capacities_units, max_per_buyer_units, hold_seconds)
