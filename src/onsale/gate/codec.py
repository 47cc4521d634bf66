"""How an order looks at the gate: binary, because there is one for every live order.

body:   fingerprint 8 bytes │ buyer 8 bytes │ per item: tier number 1 byte, quantity 1 byte
stored: admitted at 4 bytes (seconds, big-endian, the server's clock) │ body
"""

import struct
from collections.abc import Iterable
from typing import NamedTuple

from onsale.domain.ids import BUYER_REF_BYTES, FINGERPRINT_BYTES, buyer_ref
from onsale.domain.inventory import TakenOrder
from onsale.domain.order import Item

_STAMP_BYTES = 4
_BUYER_FROM = _STAMP_BYTES + FINGERPRINT_BYTES
_ITEMS_FROM = _BUYER_FROM + BUYER_REF_BYTES


class StoredOrder(NamedTuple):
    """An order read back from the gate; `admitted_at_seconds` is the gate's clock."""

    admitted_at_seconds: int
    taken: TakenOrder


def encode_body(buyer_id: str, fingerprint: bytes, items: Iterable[Item]) -> bytes:
    """The body that the scripts take; tier numbers and quantities are below 256 by validation."""
    flat = bytes(number for item in items for number in item)
    return fingerprint + buyer_ref(buyer_id) + flat


def decode_stored(order_id: bytes, stored: bytes) -> StoredOrder:
    """What the `orders` hash holds for an id."""
    (admitted_at_seconds,) = struct.unpack_from(">I", stored)
    flat = stored[_ITEMS_FROM:]
    return StoredOrder(
        admitted_at_seconds,
        TakenOrder(
            order_id=order_id,
            buyer=stored[_BUYER_FROM:_ITEMS_FROM],
            fingerprint=stored[_STAMP_BYTES:_BUYER_FROM],
            items=tuple(Item(*pair) for pair in zip(flat[::2], flat[1::2], strict=True)),
        ),
    )
