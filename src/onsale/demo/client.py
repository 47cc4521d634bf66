"""What the commands ask of a running service, over HTTP like everybody else."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from onsale.http.auth import make_token

_TOKEN_LIFETIME = timedelta(hours=12)


class ServiceError(RuntimeError):
    """The service answered a command with a problem, or not at all; one line says which."""


class ServiceClient:
    """An organiser's and operator's client. Every method raises `ServiceError`."""

    def __init__(self, base_url: str, auth_secret: str) -> None:
        token = make_token(auth_secret, "onsale-cli", "buy admin ops", _TOKEN_LIFETIME)
        self._http = httpx.Client(
            base_url=base_url, headers={"Authorization": f"Bearer {token}"}, timeout=60
        )

    def create_event(
        self, name: str, tiers: list[dict[str, Any]], *, payment: str, max_per_buyer: int = 0
    ) -> dict[str, Any]:
        """An event that is on sale now and for a day."""
        now = datetime.now(UTC)
        return self._ask(
            "POST",
            "/v1/events",
            json={
                "name": name,
                "starts_at": _text(now + timedelta(days=30)),
                "sale_opens_at": _text(now - timedelta(minutes=1)),
                "sale_closes_at": _text(now + timedelta(days=1)),
                "payment": payment,
                "max_per_buyer": max_per_buyer,
                "currency": "EUR",
                "tiers": tiers,
            },
        )

    def events(self) -> list[dict[str, Any]]:
        """The newest events."""
        data: list[dict[str, Any]] = self._ask("GET", "/v1/events")["data"]
        return data

    def audit(self, event_id: str) -> dict[str, Any]:
        """The books of both stores."""
        return self._ask("GET", f"/v1/events/{event_id}/audit")

    def _ask(self, method: str, path: str, **kwargs: Any) -> dict[str, Any]:
        try:
            answer = self._http.request(method, path, **kwargs)
        except httpx.HTTPError as error:
            raise ServiceError(f"{self._http.base_url} does not answer: {error}") from error
        if answer.is_error:
            raise ServiceError(f"{method} {path} answered {answer.status_code}: {answer.text:.200}")
        try:
            found: dict[str, Any] = answer.json()
        except ValueError as error:
            raise ServiceError(f"{self._http.base_url} is not an onsale service") from error
        return found


def _text(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")
