"""A payment provider with books, so that money can be counted where it is.

Every call is idempotent in its key, and the books are pessimistic: an authorisation that arrives
after its attempt was voided counts.
"""

from dataclasses import dataclass

from onsale.payments.provider import Declined
from tests.simulation.network import Server


@dataclass(slots=True)
class Account:
    """What the provider did under one key."""

    authorized: bool = False
    captured: bool = False
    refunded: bool = False

    @property
    def charged(self) -> bool:
        """Whether the buyer's money is with the seller."""
        return self.captured and not self.refunded


class ProviderServer(Server):
    """See the module."""

    def __init__(self) -> None:
        super().__init__("provider")
        self.accounts: dict[str, Account] = {}

    def authorize(self, key: str, method: str) -> None:
        """Reserve the amount. Raises `Declined`."""
        if method == "declined":
            raise Declined
        self._account(key).authorized = True

    def capture(self, key: str) -> None:
        """Take what is reserved; nothing, when nothing is."""
        account = self._account(key)
        account.captured |= account.authorized

    def void(self, key: str) -> None:
        """Let what is reserved go; a captured amount is not reserved any more."""
        account = self._account(key)
        account.authorized &= account.captured

    def refund(self, key: str) -> None:
        """Give a captured amount back."""
        account = self._account(key)
        account.refunded |= account.captured

    def _account(self, key: str) -> Account:
        return self.accounts.setdefault(key, Account())
