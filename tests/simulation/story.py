"""The story of a run, line by line, for whoever has to understand a seed."""

from collections.abc import Callable
from typing import Any

from onsale.domain.inventory import TakenOrder
from tests.simulation.history import History
from tests.simulation.scheduler import Scheduler


class Story:
    """Tells what happens to `write`, or keeps quiet, which is faster."""

    def __init__(self, scheduler: Scheduler, write: Callable[[str], None] | None) -> None:
        self._scheduler = scheduler
        self._write = write
        self.history: History | None = None

    def call(
        self, host: str, server: str, operation: Callable[..., Any], args: Any, answer: object
    ) -> None:
        """A server executed something and this is its answer, which may yet be lost."""
        if self._write is not None:
            asked = ", ".join(self._shown(arg) for arg in args)
            self.tell(host, f"{server}.{operation.__name__}({asked}) = {self._shown(answer)}")

    def tell(self, who: str, what: str) -> None:
        """Something happened."""
        if self._write is not None:
            self._write(f"{self._scheduler.now_ms:>6} ms  {who:<10}  {what}")

    def _shown(self, value: object) -> str:
        match value:
            case bytes():
                return self._name(value)
            case TakenOrder():
                items = ",".join(f"{tier}x{quantity}" for tier, quantity in value.items)
                return f"{self._name(value.order_id)}:{items}"
            case dict():
                return "{" + ", ".join(map(self._pair, value.items())) + "}"
            case tuple() if hasattr(value, "_fields"):
                return f"{type(value).__name__}({', '.join(map(self._shown, value))})"
            case list() | tuple() | frozenset():
                return "[" + ", ".join(sorted(map(self._shown, value))) + "]"
            case _:
                return getattr(value, "name", None) or str(value)

    def _pair(self, pair: tuple[object, object]) -> str:
        return f"{self._shown(pair[0])}: {self._shown(pair[1])}"

    def _name(self, value: bytes) -> str:
        """An order id as buyer/key#attempt."""
        key = self.history.ids.get(value) if self.history is not None else None
        if key is None:
            return value.decode() if value.isascii() else value.hex()[:6]
        attempts = [n for n in range(8) if key.order_id(n) == value]
        return f"{key.buyer}/{key.name}#{attempts[0] if attempts else '?'}"
