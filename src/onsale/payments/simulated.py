"""A provider whose methods are scripts: each says with its name how the payment goes.

    ok        authorised at once
    declined  refused
    slow      authorised after a while
    timeout   never answers, authorises nothing
    lost      authorises, and the first answer is lost

It keeps no books: like a real provider it is idempotent in the key, and here the outcome follows
from the method alone, so that it is the same at every process and after every crash.
"""

import asyncio
from collections import OrderedDict
from enum import StrEnum

from onsale.payments.provider import AnswerLost, Declined

# As many lost answers as are remembered before the oldest could be lost a second time.
_LOST_KEYS_MAX = 10_000


class SimulatedMethod(StrEnum):
    OK = "ok"
    DECLINED = "declined"
    SLOW = "slow"
    TIMEOUT = "timeout"
    LOST = "lost"


class SimulatedProvider:
    """See the module. `slow_seconds` is how long `slow` takes; `timeout` waits to be cancelled."""

    def __init__(self, slow_seconds: float) -> None:
        self._slow_seconds = slow_seconds
        self._lost: OrderedDict[str, None] = OrderedDict()

    async def authorize(
        self, key: str, amount_minor_units: int, currency: str, method: str
    ) -> None:
        """Goes as the method says. Raises `Declined`, `AnswerLost`."""
        match SimulatedMethod(method):
            case SimulatedMethod.OK:
                return
            case SimulatedMethod.DECLINED:
                raise Declined
            case SimulatedMethod.SLOW:
                await asyncio.sleep(self._slow_seconds)
            case SimulatedMethod.TIMEOUT:
                await asyncio.Event().wait()
            case SimulatedMethod.LOST:
                if key not in self._lost:
                    self._lost[key] = None
                    if len(self._lost) > _LOST_KEYS_MAX:
                        self._lost.popitem(last=False)
                    raise AnswerLost

    async def capture(self, key: str) -> None:
        """Always goes well."""

    async def void(self, key: str) -> None:
        """Always goes well."""

    async def refund(self, key: str) -> None:
        """Always goes well."""
