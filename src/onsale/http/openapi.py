"""Where the document that FastAPI derives from the routes would not be true, it is corrected."""

from typing import Any

from fastapi import FastAPI

from onsale.http.intake import ROUTE
from onsale.http.problems import MEDIA_TYPE

_FRAMEWORK_ERRORS = ("HTTPValidationError", "ValidationError")


def tell_the_truth(api: FastAPI) -> None:
    """Correct the app's OpenAPI document."""
    derive = api.openapi

    def corrected() -> dict[str, Any]:
        if api.openapi_schema is None:
            document = derive()
            for operations in (*document["paths"].values(), *document["webhooks"].values()):
                for operation in operations.values():
                    _errors_are_problems(operation)
            for unused in _FRAMEWORK_ERRORS:
                document["components"]["schemas"].pop(unused, None)
            _key_is_required(document["paths"][ROUTE]["post"])
        return derive()

    api.openapi = corrected  # type: ignore[method-assign]  # as FastAPI's documentation does


def _errors_are_problems(operation: dict[str, Any]) -> None:
    """FastAPI declares its default media type beside the one that is sent, and errors of its own
    wherever there is a parameter, even one that can only be found or not.
    """
    answers = operation["responses"]
    if MEDIA_TYPE not in answers.get("422", {}).get("content", {MEDIA_TYPE: None}):
        del answers["422"]
    for answer in answers.values():
        content = answer.get("content", {})
        if MEDIA_TYPE in content:
            content.pop("application/json", None)


def _key_is_required(operation: dict[str, Any]) -> None:
    """Optional to FastAPI, so that its absence is answered with a code of its own."""
    for parameter in operation["parameters"]:
        if parameter["name"] == "idempotency-key":
            parameter["required"] = True
