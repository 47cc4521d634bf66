"""Signatures by Standard Webhooks, version 1: whoever has the secret knows who sent a message, that
nobody changed it, and when it was sent.
"""

import base64
import secrets
from datetime import UTC, datetime

from standardwebhooks import Webhook

# The specification asks for 24 to 64.
_SECRET_BYTES = 32


def new_secret() -> str:
    """A secret for one endpoint, as its owner keeps it: `whsec_` and base64."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def signed_headers(secret: str, message_id: str, sent_at: datetime, body: bytes) -> dict[str, str]:
    """The headers that name, date and sign an attempt to deliver `body`."""
    signature = Webhook(secret).sign(message_id, sent_at.astimezone(UTC), body.decode())
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(sent_at.timestamp())),
        "webhook-signature": signature,
    }
