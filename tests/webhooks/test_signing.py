"""Signatures that the specification's own library and its published example agree with."""

import base64
from datetime import UTC, datetime, timedelta, timezone

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from onsale.webhooks.signing import new_secret, signed_headers

BODY = '{"type":"order.held","data":{"name":"ü"}}'.encode()


def test_a_secret_is_long_and_nobody_elses() -> None:
    secrets = {new_secret() for _ in range(100)}
    assert len(secrets) == 100
    for secret in secrets:
        assert secret.startswith("whsec_")
        assert 24 <= len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) <= 64


def test_a_receiver_verifies_it() -> None:
    secret = new_secret()
    headers = signed_headers(secret, "message-1", datetime.now(UTC), BODY)
    assert Webhook(secret).verify(BODY, headers) == {"type": "order.held", "data": {"name": "ü"}}


@pytest.mark.parametrize("changed", ["secret", "body", "webhook-id", "webhook-timestamp"])
def test_whatever_is_changed_is_noticed(changed: str) -> None:
    secret, body = new_secret(), BODY
    headers = signed_headers(secret, "message-1", datetime.now(UTC), BODY)
    match changed:
        case "secret":
            secret = new_secret()
        case "body":
            body = body.replace(b"held", b"sold")
        case "webhook-timestamp":
            headers[changed] = str(int(headers[changed]) - 1)
        case _:
            headers[changed] += "0"
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(body, headers)


def test_an_old_one_is_refused() -> None:
    secret = new_secret()
    long_ago = datetime.now(UTC) - timedelta(minutes=6)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(BODY, signed_headers(secret, "message-1", long_ago, BODY))


def test_the_libraries_known_answer() -> None:
    """The vector that every library of Standard Webhooks is tested with."""
    sent_at = datetime.fromtimestamp(1_614_265_330, timezone(timedelta(hours=2)))
    headers = signed_headers(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        sent_at,
        b'{"test": 2432232314}',
    )
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
