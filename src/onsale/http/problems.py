"""Errors as clients see them: RFC 9457 problems with a stable `code`, and nothing of the inside.

The one place that turns an error into a status.
"""

import random
from collections.abc import Sequence
from functools import lru_cache
from http import HTTPStatus
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import to_json

from onsale.domain import errors
from onsale.domain.errors import FieldError, OnsaleError
from onsale.http.answers import Answer

MEDIA_TYPE = "application/problem+json"
_HEAD = b"content-type: %b\r\n" % MEDIA_TYPE.encode()


class IdempotencyKeyMissing(errors.Refused):
    """An order needs an Idempotency-Key header, so that pressing twice buys once."""

    code = "idempotency_key_missing"


class Unauthenticated(errors.Refused):
    """A valid bearer token is needed."""

    code = "unauthenticated"


class KeysUnavailable(errors.Unavailable):
    """The keys that tokens are checked with cannot be had right now; keep yours and try again."""


class Forbidden(errors.Refused):
    """Your token does not allow this."""

    code = "forbidden"


class BodyTooLarge(errors.Refused):
    """The body is larger than 64 KiB."""

    code = "body_too_large"


class UnsupportedMediaType(errors.Refused):
    """The body must be application/json."""

    code = "unsupported_media_type"


class MethodNotAllowed(errors.Refused):
    """This resource does not know that method."""

    code = "method_not_allowed"


class RateLimited(errors.Refused):
    """You are asking too often; try again shortly."""

    code = "rate_limited"

    def __init__(self, wait_seconds: float = 1.0, head: bytes = b"") -> None:
        super().__init__()
        self.wait_seconds = wait_seconds
        self.head = head


class InternalError(OnsaleError):
    """Something went wrong on our side; ask again with the same Idempotency-Key."""

    code = "internal_error"


class Kind(NamedTuple):
    """How a code is answered: status, title, and seconds after which to try again, if any."""

    status: int
    title: str
    retry_after_seconds: int | None = None


# Every code of the contract.
KINDS: dict[str, Kind] = {
    "idempotency_key_missing": Kind(400, "Idempotency-Key missing"),
    "unauthenticated": Kind(401, "Not authenticated"),
    "payment_declined": Kind(402, "Payment declined"),
    "forbidden": Kind(403, "Not allowed"),
    "not_found": Kind(404, "Not found"),
    "method_not_allowed": Kind(405, "Method not allowed"),
    "sold_out": Kind(409, "Sold out"),
    "buyer_limit_reached": Kind(409, "Limit per buyer reached"),
    "sale_not_open": Kind(409, "Sale not open yet"),
    "sale_paused": Kind(409, "Sale paused"),
    "sale_closed": Kind(409, "Sale closed"),
    "order_expired": Kind(409, "Hold expired"),
    "order_not_payable": Kind(409, "Order not payable"),
    "order_not_releasable": Kind(409, "Order not releasable"),
    "order_not_refundable": Kind(409, "Order not refundable"),
    "capacity_below_reserved": Kind(409, "Capacity below what is reserved"),
    "webhook_endpoint_limit_reached": Kind(409, "Too many webhook endpoints"),
    "webhook_endpoint_disabled": Kind(409, "Webhook endpoint disabled"),
    "request_in_progress": Kind(409, "Request in progress", retry_after_seconds=1),
    "body_too_large": Kind(413, "Body too large"),
    "unsupported_media_type": Kind(415, "Unsupported media type"),
    "invalid_request": Kind(422, "Invalid request"),
    "idempotency_key_reused": Kind(422, "Idempotency-Key reused"),
    "rate_limited": Kind(429, "Too many requests", retry_after_seconds=1),
    "internal_error": Kind(500, "Internal error"),
    "overloaded": Kind(503, "Overloaded", retry_after_seconds=1),
    "ledger_unavailable": Kind(503, "Ledger unavailable", retry_after_seconds=2),
}

# More than anybody mends at once; to tell thousands would cost more than to find them.
FAULTS_MAX = 50

# A crowd that was told the same second would come back in the same second.
_RETRY_JITTER = 2.0
# What follows the request id, if an error says no more than its sentence.
_END = b'"}'


class FieldProblem(BaseModel):
    """One fault of a request."""

    field: str = Field(examples=["items.0.quantity"])
    message: str = Field(examples=["Input should be less than or equal to 100"])


class Problem(BaseModel):
    """An error (RFC 9457). `code` is stable; branch on it, not on the texts."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "type": "about:blank",
                "title": "Sold out",
                "status": 409,
                "detail": "There are not enough seats left for this order.",
                "code": "sold_out",
                "request_id": "5f0c1d7e9a3b4c2d8e6f7a8b9c0d1e2f",
            }
        }
    )

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    errors: list[FieldProblem] | None = Field(
        default=None, description="With `invalid_request`: the fields at fault."
    )
    opens_at: str | None = Field(default=None, description="With `sale_not_open`: when it opens.")
    order_id: str | None = Field(
        default=None, description="With `payment_declined`: the hold that still stands."
    )


def problem(error: OnsaleError, request_id: str) -> Answer:
    """The answer to an error."""
    form = _form(error.code, error.detail)
    head, tail, retry_after_seconds = form.head, _END, form.retry_after_seconds
    if isinstance(error, _SAYS_MORE):
        more, retry_after_seconds = _more(error, retry_after_seconds)
        head += error.head if isinstance(error, RateLimited) else b""
        tail = b'",' + to_json(more)[1:] if more else tail
    if retry_after_seconds is not None:
        head += b"retry-after: %d\r\n" % _wait_seconds(retry_after_seconds)
    # The id is of letters, digits and a few signs: nothing in it wants escaping.
    return Answer(form.status, head, form.up_to_request_id + request_id.encode() + tail)


def refusal(error: OnsaleError, request_id: str) -> Answer:
    """The same, completed, for whole crowds: of an error that says no more than its sentence all
    but the id is made once.
    """
    if isinstance(error, _SAYS_MORE):
        return problem(error, request_id).completed(request_id)
    retry_after_seconds = KINDS[error.code].retry_after_seconds
    wait_seconds = None if retry_after_seconds is None else _wait_seconds(retry_after_seconds)
    id_ = request_id.encode()
    status, head, body = _up_to_request_id(error.code, error.detail, wait_seconds, len(id_))
    return Answer(status, head + id_ + b"\r\n", body + id_ + _END)


@lru_cache(maxsize=256)
def _up_to_request_id(
    code: str, detail: str, wait_seconds: int | None, request_id_bytes: int
) -> Answer:
    form = _form(code, detail)
    wait = b"" if wait_seconds is None else b"retry-after: %d\r\n" % wait_seconds
    body_bytes = len(form.up_to_request_id) + request_id_bytes + len(_END)
    head = b"%b%bcontent-length: %d\r\nx-request-id: " % (form.head, wait, body_bytes)
    return Answer(form.status, head, form.up_to_request_id)


def _wait_seconds(retry_after_seconds: float) -> int:
    return 1 + int(retry_after_seconds + random.random() * _RETRY_JITTER)


class _Form(NamedTuple):
    """What all answers to an error share."""

    status: int
    head: bytes
    up_to_request_id: bytes
    retry_after_seconds: float | None


# As many as there are codes with a few details each; a crowd is refused for one reason.
@lru_cache(maxsize=256)
def _form(code: str, detail: str) -> _Form:
    kind = KINDS[code]
    content = {
        "type": "about:blank",
        "title": kind.title,
        "status": kind.status,
        "detail": detail,
        "code": code,
        "request_id": "",
    }
    unauthenticated = kind.status == HTTPStatus.UNAUTHORIZED
    return _Form(
        kind.status,
        _HEAD + (b"www-authenticate: Bearer\r\n" if unauthenticated else b""),
        to_json(content).removesuffix(_END),
        kind.retry_after_seconds,
    )


_SAYS_MORE = (errors.InvalidRequest, errors.SaleNotOpen, errors.PaymentDeclined, RateLimited)


def _more(
    error: OnsaleError, retry_after_seconds: float | None
) -> tuple[dict[str, Any], float | None]:
    """What is told of this one error alone, and after what time to try again."""
    match error:
        case errors.InvalidRequest():
            return {"errors": [fault._asdict() for fault in error.errors]}, retry_after_seconds
        case errors.SaleNotOpen():
            return {"opens_at": error.opens_at}, error.opens_in_seconds
        case errors.PaymentDeclined():
            return {"order_id": error.order_id.hex()}, retry_after_seconds
        case RateLimited():
            return {}, error.wait_seconds
        case _:
            raise AssertionError(f"{error.code} says no more than its sentence")


def invalid(faults: Sequence[Any], skip: int = 0) -> errors.InvalidRequest:
    """pydantic's faults in our words; `skip` leading parts of each place are not the client's."""
    return errors.InvalidRequest(
        *(
            FieldError(
                ".".join(str(part) for part in fault["loc"][skip:]) or "body",
                fault["msg"],
            )
            for fault in faults[:FAULTS_MAX]
        )
    )


def invalid_body(error: ValidationError) -> errors.InvalidRequest:
    """What is wrong with a body that did not validate."""
    if error.error_count() > FAULTS_MAX:
        return errors.InvalidRequest(
            FieldError("body", f"{error.error_count()} faults; this is another kind of body")
        )
    return invalid(error.errors(include_url=False, include_context=False, include_input=False))


def responses(*codes: str) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's `responses` for a route that answers with these problems."""
    by_status: dict[int | str, list[str]] = {}
    for code in codes:
        by_status.setdefault(KINDS[code].status, []).append(code)
    return {
        status: {
            "model": Problem,
            "description": ", ".join(f"`{code}`" for code in sorted(codes)),
            "content": {
                MEDIA_TYPE: {
                    "schema": {"$ref": "#/components/schemas/Problem"},
                    "examples": {code: {"value": _example(code)} for code in sorted(codes)},
                }
            },
        }
        for status, codes in by_status.items()
    }


def _example(code: str) -> dict[str, Any]:
    kind = KINDS[code]
    return {
        "type": "about:blank",
        "title": kind.title,
        "status": kind.status,
        "detail": _DETAILS[code],
        "code": code,
        "request_id": "5f0c1d7e9a3b4c2d8e6f7a8b9c0d1e2f",
    }


def _all_errors(root: type[OnsaleError]) -> list[type[OnsaleError]]:
    return [
        root,
        *(below for child in root.__subclasses__() for below in _all_errors(child)),
    ]


_DETAILS = {
    error.code: (error.__doc__ or "").strip()
    for error in reversed(_all_errors(OnsaleError))
    if hasattr(error, "code")
}
