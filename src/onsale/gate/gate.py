"""The gate's client: one method per script, names for what they answer.

Knows Redis and the domain, nothing of the ledger and nothing of HTTP. A refusal is an outcome; a
server that does not answer is `GateUnavailable`; one that holds something else than the ledger
authorised is `GateLost`.
"""

import asyncio
import struct
from collections import Counter
from collections.abc import AsyncIterator, Hashable, Iterable, Sequence
from contextlib import asynccontextmanager
from itertools import chain
from time import perf_counter
from typing import Any, NamedTuple, Self

from redis.exceptions import RedisError

from onsale.domain.errors import GateLost, GateUnavailable
from onsale.domain.event import Event, SaleSwitch
from onsale.domain.inventory import Outcome
from onsale.gate.codec import StoredOrder, decode_stored
from onsale.gate.connecting import Server, Servers, connect
from onsale.gate.keeping import GateEvicts, Keeping
from onsale.gate.keys import event_keys
from onsale.gate.scripts import ScriptName
from onsale.observability import metrics
from onsale.settings import Settings

# One chunk read keeps Redis busy for about a millisecond, and so does a quarter of one adopted.
CHUNK_ORDERS = 1_000
_ADOPTED_AT_ONCE = 250
# These are eight bytes each, and kept by whoever reads them.
_SEEN_AT_ONCE_ORDERS = 10_000

# The script adds 200,000 up in 96 ms, for which everybody waits: so many take it 5.
_ADDED_UP_AT_ONCE_ORDERS = 10_000
_CHUNKED_AUDITS_MAX = 3
# More than there can be.
_ORDERS_MAX = 2**53

_SEEN_NAME_BYTES = 8

# What a call raises that was not answered as it should be.
_FAILURES = (TimeoutError, RedisError, OSError, GateUnavailable)
_OUTCOMES = {str(outcome.value).encode()[0]: outcome for outcome in Outcome}


class Admission(NamedTuple):
    """What a batch came to: an outcome per order, and what is left of the tiers it asked for."""

    outcomes: list[Outcome]
    orders_ever_admitted: int
    available_units: dict[int, int]


class EventBatch(NamedTuple):
    """Orders of one event as `(order id, body)` pairs, for a gate of this epoch."""

    event_id: str
    epoch: str
    orders: Sequence[tuple[bytes, bytes]]


class Availability(NamedTuple):
    """How a sale stands at the gate, by the gate's clock."""

    now_ms: int
    switch: SaleSwitch
    orders_ever_admitted: int
    available_units: dict[int, int]


class GateTierBooks(NamedTuple):
    """One tier at one instant; `taken_units` is the sum over the orders themselves."""

    tier_number: int
    capacity_units: int
    available_units: int
    taken_units: int


class GateBooks(NamedTuple):
    """An event's books at one instant."""

    live_orders: int
    tiers: list[GateTierBooks]


class _Counted(NamedTuple):
    """An event's books, and how many orders were ever admitted; see the script."""

    books: GateBooks
    orders_ever_admitted: int

    @property
    def live_orders(self) -> int:
        return self.books.live_orders


class _Question(NamedTuple):
    """What a script is asked about an event: its keys, `sale` first, and its arguments."""

    keys: tuple[str, ...]
    epoch: str
    args: Sequence[Any]


class Gate:
    """The gate of every event; `Gate.connect(settings)` makes one."""

    def __init__(self, servers: Servers, deadline_seconds: float) -> None:
        self._servers = servers
        self._deadline_seconds = deadline_seconds

    @classmethod
    def connect(cls, settings: Settings) -> Self:
        """A client that opens its connections when it first needs them."""
        return cls(connect(settings), settings.gate_deadline_seconds)

    async def close(self) -> None:
        """Close every connection."""
        await self._servers.close()

    def home(self, event_id: str) -> Hashable:
        """What the events of one server have in common, as far as is known."""
        return self._servers.home(event_keys(event_id).sale)

    # -- what buyers ask

    async def admit(
        self, event_id: str, epoch: str, orders: Sequence[tuple[bytes, bytes]]
    ) -> Admission:
        """Decide `(order id, body)` pairs in their order, all of an order's items or none.

        Raises `GateUnavailable`, also when it is not answered before its deadline, `GateLost`.
        """
        (answer,) = await self.admit_all([EventBatch(event_id, epoch, orders)])
        if isinstance(answer, GateUnavailable):
            raise answer
        return answer

    async def admit_all(self, batches: Sequence[EventBatch]) -> list[Admission | GateUnavailable]:
        """Decide a batch of each of several events, those of one server in one round trip.

        An event that is not decided has the error of `admit` in place of its admission.
        """
        questions = [_question_of(batch) for batch in batches]
        replies = await self._run_all(ScriptName.ADMIT, questions, self._deadline_seconds)
        return [
            reply if isinstance(reply, GateUnavailable) else _admission(reply) for reply in replies
        ]

    async def give_back(
        self, event_id: str, epoch: str, order_ids: Sequence[bytes]
    ) -> tuple[int, dict[int, int]]:
        """Return the stock of orders that are no longer live.

        How many were still here, and what is left now of the tiers that gained. Raises
        `GateUnavailable`, `GateLost`.
        """
        keys = event_keys(event_id)
        reply = await self._run(
            ScriptName.GIVE_BACK,
            (keys.sale, keys.avail, keys.orders, keys.buyers),
            epoch,
            order_ids,
        )
        return reply[0], _pairs(reply[1:])

    async def availability(self, event_id: str, epoch: str) -> Availability:
        """How the sale stands. Raises `GateUnavailable`, `GateLost`."""
        (answer,) = await self.availabilities([(event_id, epoch)])
        if isinstance(answer, GateUnavailable):
            raise answer
        return answer

    async def availabilities(
        self, events: Sequence[tuple[str, str]]
    ) -> list[Availability | GateUnavailable]:
        """How the sales of `(event id, epoch)` stand, or what `availability` raises for each."""
        questions = []
        for event_id, epoch in events:
            keys = event_keys(event_id)
            questions.append(_Question((keys.sale, keys.avail, keys.seen), epoch, [epoch]))
        replies = await self._run_all(ScriptName.AVAILABILITY, questions)
        return [
            reply if isinstance(reply, GateUnavailable) else _availability(reply)
            for reply in replies
        ]

    async def seen(self, event_id: str, epoch: str, known_orders: int) -> tuple[int, ...]:
        """Orders that were ever admitted, by `seen_name`, in the order of their admission: some of
        those after the first `known_orders`. Raises `GateUnavailable`, `GateLost`.
        """
        keys = event_keys(event_id)
        (names,) = await self._run(
            ScriptName.SEEN, (keys.sale, keys.seen), epoch, (known_orders, _SEEN_AT_ONCE_ORDERS)
        )
        return struct.unpack(f">{len(names) // _SEEN_NAME_BYTES}Q", names)

    async def throttle(self, keys: Sequence[str], args: Sequence[int]) -> list[int]:
        """Rate limits of a batch, see the script. Any run of any server may keep them.

        Raises `GateUnavailable`, also when it is not answered before its deadline.
        """
        async with self._measured(ScriptName.THROTTLE, keys[0]):
            server = await self._servers.of(keys[0])
            with server.watched():
                async with asyncio.timeout(self._deadline_seconds):
                    replies = await server.scripts.run_all(ScriptName.THROTTLE, [(keys, args)])
        waits: list[int] = replies[0]
        return waits

    # -- what organisers and workers ask

    async def load(self, event: Event, epoch: str) -> None:
        """Begin to load the event under a new epoch; nobody is admitted until `open`.

        Raises `GateUnavailable`, and `GateLost` when a later loading has begun.
        """
        args: list[str | int] = [
            event.switch,
            event.sale_opens_at_ms,
            event.sale_closes_at_ms,
            event.max_per_buyer_units,
            event.version,
            *_capacities(event),
        ]
        keys = event_keys(event.id)
        await self._run(
            ScriptName.LOAD,
            (keys.sale, keys.avail, keys.orders, keys.buyers, keys.seen, keys.capacity),
            epoch,
            args,
        )

    async def adopt(self, event_id: str, epoch: str, orders: Sequence[tuple[bytes, bytes]]) -> int:
        """Take stock for `(order id, body)` pairs that the ledger has; how many were missing.

        Raises `GateUnavailable`, `GateLost`.
        """
        keys = event_keys(event_id)
        adopted = 0
        for at in range(0, len(orders), _ADOPTED_AT_ONCE):
            reply = await self._run(
                ScriptName.ADOPT,
                (keys.sale, keys.avail, keys.orders, keys.buyers, keys.seen),
                epoch,
                [part for order in orders[at : at + _ADOPTED_AT_ONCE] for part in order],
            )
            adopted += reply[0]
        return adopted

    async def mark_seen(self, event_id: str, epoch: str, order_ids: Sequence[bytes]) -> None:
        """Remember orders that have ended. Raises `GateUnavailable`, `GateLost`."""
        keys = event_keys(event_id)
        await self._run(ScriptName.MARK, (keys.sale, keys.seen), epoch, order_ids)

    async def open(self, event_id: str, epoch: str) -> None:
        """End the loading of an epoch. Raises `GateUnavailable`, `GateLost`."""
        await self._run(ScriptName.OPEN, (event_keys(event_id).sale,), epoch, ())

    async def configure(self, event: Event, epoch: str) -> tuple[int, dict[int, int]]:
        """Set switch and capacities as the ledger has them, unless the gate has heard newer ones.

        Says how many differed, and what is left of each tier. Raises `GateUnavailable`, `GateLost`.
        """
        keys = event_keys(event.id)
        reply = await self._run(
            ScriptName.CONFIGURE,
            (keys.sale, keys.avail, keys.capacity),
            epoch,
            [event.switch, event.version, *_capacities(event)],
        )
        return reply[0], _pairs(reply[1:])

    async def retire(self, event_id: str, keep_seconds: int) -> None:
        """Let the event's keys go after `keep_seconds`. Raises `GateUnavailable`."""
        keys = event_keys(event_id)
        async with self._measured("retire", keys.sale):
            server = await self._servers.of(keys.sale)
            for key in keys:
                await server.redis.expire(key, keep_seconds)

    async def audit(self, event_id: str, epoch: str) -> GateBooks:
        """Add up the event's orders at one instant. Raises `GateUnavailable`, `GateLost`.

        Many orders are read in chunks, between two instants at which they are the same. Those of a
        sale that does not keep still for so long are added up in one step after all, for which
        everybody waits.
        """
        for _ in range(_CHUNKED_AUDITS_MAX):
            counted = await self._counted(event_id, epoch, _ADDED_UP_AT_ONCE_ORDERS)
            if counted.live_orders <= _ADDED_UP_AT_ONCE_ORDERS:
                return counted.books
            orders, taken_units = await self._taken(event_id)
            same = counted == await self._counted(event_id, epoch, _ADDED_UP_AT_ONCE_ORDERS)
            if same and orders == counted.live_orders:
                tiers = [
                    tier._replace(taken_units=taken_units[tier.tier_number])
                    for tier in counted.books.tiers
                ]
                return GateBooks(orders, tiers)
        return (await self._counted(event_id, epoch, _ORDERS_MAX)).books

    async def _counted(self, event_id: str, epoch: str, orders_max: int) -> "_Counted":
        keys = event_keys(event_id)
        live, ever_admitted, *flat = await self._run(
            ScriptName.AUDIT,
            (keys.sale, keys.avail, keys.orders, keys.capacity, keys.seen),
            epoch,
            (orders_max,),
        )
        tiers = [GateTierBooks(*flat[i : i + 4]) for i in range(0, len(flat), 4)]
        return _Counted(GateBooks(live, sorted(tiers)), ever_admitted)

    async def _taken(self, event_id: str) -> tuple[int, Counter[int]]:
        """How many orders there are, and how many units of each tier they have."""
        orders, taken_units = 0, Counter[int]()
        async for chunk in self.orders(event_id):
            orders += len(chunk)
            for stored in chunk.values():
                for tier_number, quantity in stored.taken.items:
                    taken_units[tier_number] += quantity
        return orders, taken_units

    async def orders(self, event_id: str) -> AsyncIterator[dict[bytes, StoredOrder]]:
        """The event's orders in chunks, by id; one that comes or goes meanwhile may be missed.

        Raises `GateUnavailable`.
        """
        orders_key = event_keys(event_id).orders
        cursor = 0
        chunk: Any
        while True:
            async with self._measured("scan_orders", orders_key):
                server = await self._servers.of(orders_key)
                cursor, chunk = await server.redis.hscan(orders_key, cursor, count=CHUNK_ORDERS)
            if chunk:
                yield {key: decode_stored(key, stored) for key, stored in chunk.items()}
            if cursor == 0:
                return

    async def missing(self, event_id: str, order_ids: Sequence[bytes]) -> list[bytes]:
        """Those of the ids that the gate does not hold. Raises `GateUnavailable`."""
        if not order_ids:
            return []
        orders_key = event_keys(event_id).orders
        async with self._measured("missing", orders_key):
            server = await self._servers.of(orders_key)
            held = await server.redis.hmget(orders_key, list(order_ids))
        return [key for key, stored in zip(order_ids, held, strict=True) if stored is None]

    async def now_seconds(self, event_id: str) -> int:
        """The clock of the event's gate. Raises `GateUnavailable`."""
        key = event_keys(event_id).sale
        async with self._measured("time", key):
            server = await self._servers.of(key)
            seconds, _ = await server.redis.time()
        return int(seconds)

    async def run_id(self, event_id: str) -> str:
        """Which run of which server answers for the event now. Raises `GateUnavailable`."""
        key = event_keys(event_id).sale
        async with self._measured("run_id", key):
            server = await self._servers.answering(key)
        assert server.run_id is not None, "a connection that answered has told its run id"
        return server.run_id

    async def ping(self) -> None:
        """Whether there is a gate to decide. Raises `GateUnavailable`."""
        async with self._measured("ping"):
            await self._servers.ping()

    async def keeping(self) -> list[Keeping]:
        """How well each server that answers keeps what it is told. Raises `GateUnavailable`."""
        async with self._measured("keeping"):
            return await self._servers.keeping()

    async def require_noeviction(self) -> None:
        """Raises `GateEvicts` when a server answers that lets keys go when it is full.

        One that does not answer is no reason not to start: the ledger decides until it does.
        """
        try:
            kept = await self.keeping()
        except GateUnavailable:
            return
        for keeping in kept:
            if keeping.evicts:
                raise GateEvicts(keeping)

    # -- how

    async def _run(
        self, name: ScriptName, keys: tuple[str, ...], epoch: str, args: Iterable[Any]
    ) -> list[Any]:
        (reply,) = await self._run_all(name, [_Question(keys, epoch, [epoch, *args])])
        if isinstance(reply, GateUnavailable):
            raise reply
        return reply

    async def _run_all(
        self,
        name: ScriptName,
        questions: Sequence[_Question],
        deadline_seconds: float | None = None,
    ) -> list[list[Any] | GateUnavailable]:
        """Ask a script about several events, those of one server in one round trip."""
        deadline = _from_now(deadline_seconds)
        replies: dict[int, list[Any] | GateUnavailable] = {}
        asked: dict[Server, list[int]] = {}
        for number, question in enumerate(questions):
            try:
                server = await self._server_named_by(question.epoch, question.keys[0], deadline)
            except _FAILURES as error:
                replies[number] = self._meaning_of(error, name, question.keys[0])
            else:
                asked.setdefault(server, []).append(number)
        # One server as a rule: who asks about many events asks about those of one home together.
        for server, numbers in asked.items():
            heard = await self._ask(server, name, [questions[n] for n in numbers], deadline)
            replies.update(zip(numbers, heard, strict=True))
        return [replies[number] for number in range(len(questions))]

    async def _ask(
        self,
        server: Server,
        name: ScriptName,
        questions: Sequence[_Question],
        deadline: float | None,
    ) -> list[list[Any] | GateUnavailable]:
        calls = [(question.keys, question.args) for question in questions]
        started = perf_counter()
        try:
            with server.watched():
                async with asyncio.timeout_at(deadline):
                    replies = await server.scripts.run_all(name, calls)
        except _FAILURES as error:
            replies = [error] * len(questions)
        else:
            _answered(name, started)
        return [
            self._checked(server, name, question, reply)
            for question, reply in zip(questions, replies, strict=True)
        ]

    def _checked(
        self, server: Server, name: ScriptName, question: _Question, reply: Any
    ) -> list[Any] | GateUnavailable:
        if isinstance(reply, Exception):
            return self._meaning_of(reply, name, question.keys[0])
        # The call may have been the first on a new connection, to a server that was restarted with
        # what it had saved. What the script did there goes when that gate is loaded anew.
        if reply[0] == b"LOST" or not server.is_named_by(question.epoch):
            return GateLost()
        answer: list[Any] = reply
        return answer

    async def _server_named_by(self, epoch: str, key: str, deadline: float | None) -> Server:
        server = self._servers.known(key)
        if server is None:
            async with asyncio.timeout_at(deadline):
                server = await self._servers.of(key)
        if not server.is_named_by(epoch):
            # Which run answers is told by new connections alone, and an idle process has none since
            # a restart: only then is another epoch than ours wrong for certain.
            server = await self._servers.answering(key, deadline)
        if not server.is_named_by(epoch):
            raise GateLost
        return server

    @asynccontextmanager
    async def _measured(self, operation: str, key: str | None = None) -> AsyncIterator[None]:
        started = perf_counter()
        try:
            yield
        except _FAILURES as error:
            raise self._meaning_of(error, operation, key) from error
        _answered(operation, started)

    def _meaning_of(self, error: Exception, operation: str, key: str | None) -> GateUnavailable:
        """What a call that failed says of the gate of the event whose key it was."""
        if isinstance(error, GateUnavailable):
            return error
        if key is not None and self._servers.learn(key, error):
            meaning: GateUnavailable = GateLost()
        else:
            metrics.redis_errors_total.labels(operation, type(error).__name__).inc()
            metrics.dependency_up.labels("redis").set(0)
            meaning = GateUnavailable()
        meaning.__cause__ = error
        return meaning


def seen_name(order_id: bytes) -> int:
    """What an order is called in the log of those that were ever admitted.

    Ids are hashes: two of a million orders share one with a probability of 3 in 10^8, and then a
    loser is looked up in the ledger before he is refused.
    """
    return int.from_bytes(order_id[:_SEEN_NAME_BYTES], "big")


def _answered(operation: str, started: float) -> None:
    metrics.dependency_up.labels("redis").set(1)
    metrics.redis_operation_duration_seconds.labels(operation).observe(perf_counter() - started)


def _question_of(batch: EventBatch) -> _Question:
    keys = event_keys(batch.event_id)
    return _Question(
        (keys.sale, keys.avail, keys.orders, keys.buyers, keys.seen),
        batch.epoch,
        [1 + 2 * len(batch.orders), batch.epoch, *chain.from_iterable(batch.orders)],
    )


def _admission(reply: list[Any]) -> Admission:
    outcomes, ever_admitted, *tiers = reply
    return Admission([_OUTCOMES[digit] for digit in outcomes], ever_admitted, _pairs(tiers))


def _availability(reply: list[Any]) -> Availability:
    now_ms, switch, ever_admitted, *tiers = reply
    return Availability(now_ms, SaleSwitch(switch.decode()), ever_admitted, _pairs(tiers))


def _from_now(seconds: float | None) -> float | None:
    return None if seconds is None else asyncio.get_running_loop().time() + seconds


def _pairs(flat: Sequence[int]) -> dict[int, int]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _capacities(event: Event) -> list[int]:
    return [part for tier in event.tiers for part in (tier.number, tier.capacity_units)]
