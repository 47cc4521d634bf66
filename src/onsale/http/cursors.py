"""Cursors: where the next page begins, opaque to clients and checked before anything is asked."""

import base64
import binascii
from datetime import UTC, datetime, timedelta

from onsale.domain.errors import FieldError, InvalidRequest
from onsale.http.schemas import CURSOR
from onsale.ledger.ledger import PageMark

_ID_BYTES = 16
_MOMENT_BYTES = 8
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def encode_id(id_: str) -> str:
    """A cursor after what has this id: an event, or a webhook's message."""
    return _encode(bytes.fromhex(id_))


def decode_id(cursor: str) -> str:
    """The id in a cursor. Raises `InvalidRequest`."""
    return _decode(cursor, _ID_BYTES).hex()


def encode_order(mark: PageMark) -> str:
    """A cursor after an order."""
    microseconds = (mark.created_at - _EPOCH) // timedelta(microseconds=1)
    return _encode(
        microseconds.to_bytes(_MOMENT_BYTES, "big") + bytes.fromhex(mark.event_id) + mark.order_id
    )


def decode_order(cursor: str) -> PageMark:
    """The page mark in a cursor. Raises `InvalidRequest`."""
    raw = _decode(cursor, _MOMENT_BYTES + 2 * _ID_BYTES)
    try:
        created_at = _EPOCH + timedelta(microseconds=int.from_bytes(raw[:_MOMENT_BYTES], "big"))
    except OverflowError:
        raise _malformed() from None
    ids = raw[_MOMENT_BYTES:]
    return PageMark(created_at, ids[:_ID_BYTES].hex(), ids[_ID_BYTES:])


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decode(cursor: str, size: int) -> bytes:
    if not CURSOR.fullmatch(cursor):
        raise _malformed()
    try:
        raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    except (binascii.Error, ValueError):
        raise _malformed() from None
    if len(raw) != size:
        raise _malformed()
    return raw


def _malformed() -> InvalidRequest:
    return InvalidRequest(FieldError("cursor", "not a cursor that this service gave out"))
