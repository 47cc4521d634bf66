"""What the sale asks of a payment provider.

Every call carries a `key` that names the payment attempt; a provider answers a repeated call with
the result of the first. So a call whose answer was lost is simply made again.
"""

from typing import Protocol


class Declined(Exception):
    """The provider said no; nothing is charged and nothing is to be voided."""


class AnswerLost(Exception):
    """The provider may or may not have done what was asked; ask again under the same key."""


class PaymentProvider(Protocol):
    """A provider of card payments. Every method is idempotent in `key`.

    Any method raises `AnswerLost` when no answer came.
    """

    async def authorize(
        self, key: str, amount_minor_units: int, currency: str, method: str
    ) -> None:
        """Reserve the amount. Raises `Declined`."""
        ...

    async def capture(self, key: str) -> None:
        """Take the reserved amount."""
        ...

    async def void(self, key: str) -> None:
        """Let the reserved amount go; also when it never was reserved."""
        ...

    async def refund(self, key: str) -> None:
        """Give a captured amount back."""
        ...
