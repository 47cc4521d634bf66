"""The service with a bug in it: `ONSALE_PLANTED=name python -m tests.chaos.planted serve`.

Each bug is one that somebody might make, in the words of the code that it is made in. Without a
name it is the sound service.
"""

import asyncio
import os
import re
import time
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

from onsale import cli
from onsale.domain.errors import Overloaded
from onsale.domain.ids import order_id
from onsale.domain.inventory import Outcome
from onsale.domain.order import Order
from onsale.gate import scripts
from onsale.gate.connecting import Server
from onsale.gate.scripts import ScriptName
from onsale.http import intake
from onsale.ledger import statements
from onsale.ledger.ledger import Ledger, OrderKey, PaymentDue
from onsale.sales import placing
from onsale.sales.ending import Ending
from onsale.sales.group_commit import GroupCommit, Pending
from onsale.sales.placing import Placing
from onsale.sales.sale import PendingOrder, Refusal
from onsale.workers.reconciler import Reconciler


def no_fence() -> None:
    """Stock is given back because an order has been on its way for long."""

    async def take_for_abandoned(
        reconciler: Reconciler, event_id: str, order_ids: list[bytes]
    ) -> list[bytes]:
        return order_ids

    _replace(Reconciler, "_fence", take_for_abandoned)


def id_stays() -> None:
    """The stock comes back, and the order stays: it comes back again when that is repeated."""
    _alter(ScriptName.GIVE_BACK, "    redis.call('HDEL', KEYS[3], ARGV[i])\n", "")


def own_clock() -> None:
    """The sweeper goes by the clock of its host, which is an hour ahead."""
    by_the_ledger = "expires_at <= now()"
    assert by_the_ledger in statements.EXPIRE

    async def expire(ledger: Ledger, size_max: int) -> list[OrderKey]:
        by_the_host = f"expires_at <= to_timestamp({time.time() + 3_600})"
        async with ledger._database.driver("expire") as connection:
            query = statements.EXPIRE.replace(by_the_ledger, by_the_host)
            rows = await connection.fetch(query, size_max)
        return [OrderKey(row["event_id"].hex, row["id"].bytes) for row in rows]

    _replace(Ledger, "expire", expire)


def batch_fails_whole() -> None:
    """One order that does not fit is everybody's in its batch."""

    async def refuse_all(service: Placing, batch: list[PendingOrder]) -> None:
        for pending in batch:
            sale = await service._catalog.require(pending.job.event_id)
            await service._give_back(sale, [pending.job.order_id])
            pending.answer(Refusal(Outcome.SOLD_OUT, stranger=True))

    _replace(Placing, "_decide_again", refuse_all)


def beyond_the_last() -> None:
    """The outbox asks for what comes after the last that it has seen."""
    sound, last = Ledger.payments_due, b""

    async def payments_due(ledger: Ledger, *args: Any) -> list[PaymentDue]:
        nonlocal last
        due = [each for each in await sound(ledger, *args) if each.key.order_id > last]
        last = max((each.key.order_id for each in due), default=last)
        return due

    _replace(Ledger, "payments_due", payments_due)


def not_shielded() -> None:
    """Who goes away takes the commit of his batch along; the others are told that it failed."""
    stages: list[GroupCommit[Any, Any]] = []
    init, fail, read_body = GroupCommit.__init__, Pending.fail, intake.read_body

    def remember(made: GroupCommit[Any, Any], *args: Any, **kwargs: Any) -> None:
        init(made, *args, **kwargs)
        stages.append(made)

    async def watch(receive: Any, request: "asyncio.Task[Any]") -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        for stage in stages if not request.done() else ():
            for flight in stage._flights:
                flight.cancel()

    async def read_and_watch(receive: Any, content_length: Any) -> bytes:
        body = await read_body(receive, content_length)
        request = asyncio.current_task()
        assert request is not None
        watching = asyncio.create_task(watch(receive, request))
        request.add_done_callback(lambda _: watching.cancel())
        return body

    def fail_for_certain(pending: Pending[Any, Any], error: BaseException) -> None:
        fail(pending, Overloaded() if isinstance(error, asyncio.CancelledError) else error)

    _replace(GroupCommit, "__init__", remember)
    _replace(Pending, "fail", fail_for_certain)
    _replace(intake, "read_body", read_and_watch)


def no_epoch() -> None:
    """Whatever is at the gate is taken for the gate."""
    check = re.compile(r"if .* then return \{ 'LOST' \} end")
    loading = (ScriptName.LOAD, ScriptName.OPEN, ScriptName.THROTTLE)
    sound = scripts.source

    def source(name: ScriptName) -> str:
        if name in loading:
            return sound(name)
        altered, times = check.subn("", sound(name))
        assert times == 1, "what this bug takes out is written otherwise now"
        return altered

    _replace(scripts, "source", source)
    _replace(Server, "is_named_by", lambda *_: True)


def new_id() -> None:
    """Every press is an order of its own."""
    presses = count()

    def order_id_of(event_id: str, buyer_id: str, key: str, attempt: int = 0) -> bytes:
        return order_id(event_id, buyer_id, f"{key}-{next(presses)}-{os.getpid()}", attempt)

    _replace(placing, "order_id", order_id_of)


def no_stock_test() -> None:
    """The gate admits whoever asks."""
    _alter(ScriptName.ADMIT, "lacking = lacking or units_left(tier) < quantity", "units_left(tier)")


def refund_forgets() -> None:
    """A refunded order keeps its seats at the gate."""

    async def refund(ending: Ending, key: OrderKey) -> Order:
        await ending._ledger.refund(key)
        order = await ending._ledger.get(key)
        assert order is not None
        return order

    _replace(Ending, "refund", refund)


def _replace(owner: Any, name: str, by: Any) -> None:
    assert hasattr(owner, name), "what this bug is made in is called otherwise now"
    setattr(owner, name, by)


def _alter(script: ScriptName, sound_text: str, text: str) -> None:
    sound = scripts.source

    def source(name: ScriptName) -> str:
        if name is not script:
            return sound(name)
        assert sound_text in sound(name), "what this bug takes out is written otherwise now"
        return sound(name).replace(sound_text, text)

    _replace(scripts, "source", source)


BUGS: Sequence[Callable[[], None]] = (
    *(no_fence, id_stays, own_clock, batch_fails_whole, beyond_the_last),
    *(not_shielded, no_epoch, new_id, no_stock_test, refund_forgets),
)


def main() -> None:
    """Plant the bug that the environment names, and run the command line."""
    planted = os.environ.get("ONSALE_PLANTED")
    for bug in BUGS:
        if bug.__name__ == planted:
            bug()
    cli.main()


if __name__ == "__main__":
    main()
