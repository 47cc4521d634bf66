"""What docs/webhooks.md tells a receiver to do works as it stands there."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from onsale.domain.webhook import WebhookKind
from onsale.settings import Settings
from onsale.webhooks.signing import new_secret, signed_headers

PAGE = (Path(__file__).parents[2] / "docs" / "webhooks.md").read_text(encoding="utf-8")
BODY = b'{"type":"order.held","data":{"id":"9b2f"}}'


async def test_the_receiver_of_the_page_verifies(capsys: pytest.CaptureFixture[str]) -> None:
    secret, found = new_secret(), re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    page: dict[str, Any] = {}
    # Not by way of a module: FastAPI looks annotations up where the function was made.
    exec(compile(found[1].replace("whsec_…", secret), "webhooks.md", "exec"), page)
    headers = signed_headers(secret, "message-1", datetime.now(UTC), BODY)
    forged = signed_headers(new_secret(), "message-2", datetime.now(UTC), BODY)
    transport = httpx.ASGITransport(page["app"])
    async with httpx.AsyncClient(transport=transport, base_url="http://receiver") as client:
        answers = [
            (await client.post("/onsale", content=BODY, headers=sent)).status_code
            for sent in (headers, headers, forged, {})
        ]
    assert answers == [204, 204, 400, 400]
    assert capsys.readouterr().out == "order.held 9b2f\n", "taken once"


def test_the_page_knows_every_kind_and_the_settings() -> None:
    assert set(re.findall(r"^\| `(order\.\w+)`", PAGE, re.MULTILINE)) == set(WebhookKind)
    settings = Settings()
    assert (settings.webhook_timeout_seconds, settings.webhook_attempts_max) == (15, 10)
    assert (settings.webhook_backoff_seconds, settings.webhook_keep_days) == (5, 30)
    assert "within 15 s" in PAGE
    assert "Ten attempts" in PAGE
    assert "30 days" in PAGE
