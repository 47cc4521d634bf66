"""Crashes at named points between two steps of the protocol, for the fault campaign.

`ONSALE_FAILPOINT=name` ends the process there, as kill -9 does, the first time that it gets there;
`name:3` the third time. It is read once, at the start, and then one method of one collaborator is
wrapped. Without it nothing is: a point that is off costs nothing.
"""

import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

from onsale.domain.inventory import Outcome
from onsale.gate.gate import Admission
from onsale.ledger.ledger import Placement


class Failpoint(NamedTuple):
    """Where a process may crash: `before` a collaborator's method, or after it when what it
    answered takes the protocol a step further.
    """

    collaborator: str
    method: str
    before: bool = False
    goes_on: Callable[[Any], bool] = bool


def _anybody_admitted(answers: Any) -> bool:
    return any(
        isinstance(answer, Admission) and Outcome.ADMITTED in answer.outcomes for answer in answers
    )


def _anything_written(placements: Any) -> bool:
    return any(isinstance(placed, Placement) and placed.new for placed in placements)


def _anything_confirmed(settled: Any) -> bool:
    return any(each.held_seconds is not None for each in settled)


def _always(answer: Any) -> bool:
    return True


FAILPOINTS = {
    # placing: gate, ledger, answer
    "admitted": Failpoint("gate", "admit_all", goes_on=_anybody_admitted),
    "before-place": Failpoint("ledger", "place", before=True),
    "placed": Failpoint("ledger", "place", goes_on=_anything_written),
    # placing by the ledger alone: ledger, answer; gate, ledger
    "admitted-by-ledger": Failpoint("ledger", "admit", goes_on=_anything_written),
    "adopted": Failpoint("ledger", "heard", before=True),
    # ending: ledger, gate
    "released": Failpoint("ledger", "release"),
    "expired": Failpoint("ledger", "expire"),
    "refunded": Failpoint("ledger", "refund"),
    # paying: provider, ledger, provider, ledger
    "authorized": Failpoint("provider", "authorize", goes_on=_always),
    "confirmed": Failpoint("ledger", "confirm_orders", goes_on=_anything_confirmed),
    "before-capture": Failpoint("provider", "capture", before=True),
    "captured": Failpoint("provider", "capture", goes_on=_always),
    # telling: ledger, receiver, ledger
    "claimed": Failpoint("webhooks", "claim"),
    "delivered": Failpoint("webhooks", "mark_delivered", before=True),
    # reconciling: fence, give back
    "fenced": Failpoint("ledger", "fence"),
    # loading: empty, chunk by chunk, open, authorised
    "gate-emptied": Failpoint("gate", "load", goes_on=_always),
    "gate-chunk": Failpoint("gate", "adopt", goes_on=_always),
    "gate-opened": Failpoint("gate", "open", goes_on=_always),
}


def arm(setting: str, collaborators: Mapping[str, Any]) -> None:
    """Wrap the method of the point that the setting names. Raises `ValueError` for no such point.

    `collaborators` are by the names that `FAILPOINTS` calls them.
    """
    name, _, times = setting.partition(":")
    if name not in FAILPOINTS or not (times or "1").isdecimal():
        raise ValueError(f"no failpoint {setting!r}; there are: {', '.join(FAILPOINTS)}")
    point = FAILPOINTS[name]
    collaborator = collaborators[point.collaborator]
    method = getattr(collaborator, point.method)
    setattr(collaborator, point.method, _crashing(method, point, int(times or 1)))


def _crashing(
    method: Callable[..., Awaitable[Any]], point: Failpoint, times: int
) -> Callable[..., Awaitable[Any]]:
    async def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal times
        if point.before:
            times -= 1
            _crash_if(times == 0)
            return await method(*args, **kwargs)
        answer = await method(*args, **kwargs)
        if point.goes_on(answer):
            times -= 1
            _crash_if(times == 0)
        return answer

    return call


def _crash_if(now: bool) -> None:
    if now:
        os.kill(os.getpid(), signal.SIGKILL)
