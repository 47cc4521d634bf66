"""A provider's own books: every call it heeded, a line each, shared by all processes of a machine.

The simulated provider keeps none. With them one can ask it at the end what a real provider could
be asked: whose money was taken, and whose was given back.
"""

import os
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from onsale.payments.provider import AnswerLost, PaymentProvider


class Entry(StrEnum):
    """What the provider did."""

    AUTHORIZED = "authorized"
    CAPTURED = "captured"
    VOIDED = "voided"
    REFUNDED = "refunded"


class ProviderLine(NamedTuple):
    """One line; `amount_minor_units` is 0 where the call names none."""

    entry: Entry
    key: str
    amount_minor_units: int


class BookedProvider:
    """A provider that writes down what another one does."""

    def __init__(self, provider: PaymentProvider, path: Path) -> None:
        self._provider = provider
        self._path = path

    async def authorize(
        self, key: str, amount_minor_units: int, currency: str, method: str
    ) -> None:
        """See `PaymentProvider`."""
        try:
            await self._provider.authorize(key, amount_minor_units, currency, method)
        except AnswerLost:
            self._write(Entry.AUTHORIZED, key, amount_minor_units)
            raise
        self._write(Entry.AUTHORIZED, key, amount_minor_units)

    async def capture(self, key: str) -> None:
        """See `PaymentProvider`."""
        await self._provider.capture(key)
        self._write(Entry.CAPTURED, key)

    async def void(self, key: str) -> None:
        """See `PaymentProvider`."""
        await self._provider.void(key)
        self._write(Entry.VOIDED, key)

    async def refund(self, key: str) -> None:
        """See `PaymentProvider`."""
        await self._provider.refund(key)
        self._write(Entry.REFUNDED, key)

    def _write(self, entry: Entry, key: str, amount_minor_units: int = 0) -> None:
        # One write to the end of the file: lines of several processes do not run into each other.
        fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(fd, f"{entry} {key} {amount_minor_units}\n".encode())
        finally:
            os.close(fd)


def read_books(path: Path) -> Iterable[ProviderLine]:
    """Every line, in the order the provider did it; none where nobody ever paid."""
    if not path.exists():
        return
    with path.open() as lines:
        for line in lines:
            entry, key, amount = line.split()
            yield ProviderLine(Entry(entry), key, int(amount))
