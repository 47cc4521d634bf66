"""Ids that follow from what they name, so that pressing twice is the same order.

An order id is a hash of (event, buyer, Idempotency-Key): whoever asks again, at any process,
in any state of the stores, arrives at the same id. Ids are 16 bytes inside and 32 hexadecimal
digits outside.
"""

import re
from collections.abc import Iterable
from hashlib import blake2b

from onsale.domain.order import Item

ORDER_ID_BYTES = 16
FINGERPRINT_BYTES = 8
BUYER_REF_BYTES = 8

# Visible ASCII: what a header value can carry without quoting surprises.
IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,255}")
BUYER_ID = re.compile(r"[\x21-\x7e]{1,255}")
HEX_ID = re.compile(r"[0-9a-f]{32}")
TIER_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def order_id(event_id: str, buyer_id: str, idempotency_key: str, attempt: int = 0) -> bytes:
    """16 bytes. A later `attempt` names the order anew after the ledger abandoned the one before.

    The parts cannot run into each other: neither an id nor a key contains a space.
    """
    named = f"{event_id} {buyer_id} {idempotency_key} {attempt}"
    return blake2b(named.encode(), digest_size=ORDER_ID_BYTES).digest()


def fingerprint(items: Iterable[Item], payment_method: str | None) -> bytes:
    """8 bytes that differ when a body asks for something else; the order of items is no matter."""
    asked = ",".join(f"{tier}x{quantity}" for tier, quantity in sorted(items))
    return blake2b(f"{asked} {payment_method or ''}".encode(), digest_size=8).digest()


def buyer_ref(buyer_id: str) -> bytes:
    """8 bytes that stand for a buyer at the gate.

    Two of a million buyers share one with a probability of 3 in 10^8, and then share their limit:
    they may be refused too early, the limit is never exceeded.
    """
    return blake2b(buyer_id.encode(), digest_size=BUYER_REF_BYTES).digest()
