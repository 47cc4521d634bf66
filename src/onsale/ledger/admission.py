"""Admission by the ledger alone: what the gate does, for when there is no gate to ask.

One transaction decides a batch in arrival order. It locks as every other statement does (orders,
then buyers, then tiers) and counts only what it has locked, so that any number of processes may
admit like this beside others that ask the gate: every unit is counted on the rows that both write.
Candidates are written down before the tiers are locked and taken away again when they are refused;
the other way round, a twin on its way through the gate would be waited for with the tiers locked.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from onsale.domain.event import SaleState, SaleSwitch, sale_state
from onsale.domain.inventory import Outcome
from onsale.domain.order import OrderRequest, OrderStatus
from onsale.ledger import statements

_STATE_OUTCOMES = {
    SaleState.SCHEDULED: Outcome.NOT_OPEN,
    SaleState.PAUSED: Outcome.PAUSED,
    SaleState.CLOSED: Outcome.CLOSED,
}

# (event id, tier number) and (event id, buyer id)
Tier = tuple[str, int]
Buyer = tuple[str, str]


class Standing(NamedTuple):
    """How the sales of a batch stand: why an event sells nothing now, what is left of each tier,
    and what each buyer may still have. A buyer who is not in it may have any number.
    """

    refusals: Mapping[str, Outcome]
    available_units: Mapping[Tier, int]
    allowance_units: Mapping[Buyer, int]


def decide(requests: Iterable[OrderRequest], standing: Standing) -> list[Outcome]:
    """Each request in its order, with all of its items or none: `ADMITTED`, or why not."""
    available, allowance = dict(standing.available_units), dict(standing.allowance_units)
    outcomes = []
    for request in requests:
        buyer = (request.event_id, request.buyer_id)
        outcome = _decide_one(request, standing.refusals, available, allowance.get(buyer))
        if outcome is Outcome.ADMITTED:
            for tier_number, quantity in request.items:
                available[request.event_id, tier_number] -= quantity
            if buyer in allowance:
                allowance[buyer] -= request.units
        outcomes.append(outcome)
    return outcomes


def _decide_one(
    request: OrderRequest,
    refusals: Mapping[str, Outcome],
    available_units: Mapping[Tier, int],
    allowance_units: int | None,
) -> Outcome:
    refusal = refusals.get(request.event_id)
    if refusal is not None:
        return refusal
    if allowance_units is not None and request.units > allowance_units:
        return Outcome.BUYER_LIMIT
    short = any(
        available_units[request.event_id, tier_number] < quantity
        for tier_number, quantity in request.items
    )
    return Outcome.SOLD_OUT if short else Outcome.ADMITTED


async def admit(connection: Any, requests: Sequence[OrderRequest]) -> list[Outcome]:
    """Decide requests of distinct ids in one transaction of asyncpg's `connection`, and write those
    down that are admitted; `SEEN` are those whose id is in the ledger already.
    """
    async with connection.transaction():
        # In this order: an order that is committed in between is seen, and not refused for want of
        # the seats that it took itself.
        glance = await _glance(connection, requests)
        seen = await _seen(connection, requests)
        # The crowd's losers end here, without a lock; what they could not have, nobody could.
        at_first = {
            request.order_id: outcome
            for request in requests
            if request.order_id not in seen
            and (outcome := decide([request], glance)[0]) is not Outcome.ADMITTED
        }
        hopeful = [
            request
            for request in requests
            if request.order_id not in seen and request.order_id not in at_first
        ]
        new = await _write_candidates(connection, hopeful)
        candidates = [request for request in hopeful if request.order_id in new]
        decided: dict[bytes, Outcome] = {}
        if candidates:
            standing = await _lock(connection, candidates, glance.refusals)
            outcomes = decide(candidates, standing)
            await _settle(connection, candidates, outcomes)
            decided = {
                request.order_id: outcome
                for request, outcome in zip(candidates, outcomes, strict=True)
            }
    known = at_first | decided
    return [known.get(request.order_id, Outcome.SEEN) for request in requests]


async def _seen(connection: Any, requests: Sequence[OrderRequest]) -> set[bytes]:
    rows = await connection.fetch(statements.SEEN, *_keys(requests))
    return {row["id"].bytes for row in rows}


async def _glance(connection: Any, requests: Sequence[OrderRequest]) -> Standing:
    """How the sales stand at this instant; nothing is locked, and buyers are not looked at."""
    event_ids = sorted({request.event_id for request in requests})
    sales = await connection.fetch(statements.SALES, event_ids)
    refusals = {}
    for row in sales:
        state = sale_state(
            SaleSwitch(row["switch"]), row["now_ms"], row["opens_at_ms"], row["closes_at_ms"]
        )
        if state is not SaleState.OPEN:
            refusals[row["id"].hex] = _STATE_OUTCOMES[state]
    tiers = await connection.fetch(statements.AVAILABLE, event_ids)
    return Standing(refusals, _available(tiers), {})


async def _write_candidates(connection: Any, requests: Sequence[OrderRequest]) -> set[bytes]:
    if not requests:
        return set()
    rows = await connection.fetch(
        statements.WRITE_CANDIDATES,
        *_keys(requests),
        [request.buyer_id for request in requests],
        [request.status.value for request in requests],
        [statements.signed(request.fingerprint) for request in requests],
        [request.amount_minor_units for request in requests],
        [request.hold_seconds for request in requests],
    )
    return {row["id"].bytes for row in rows}


async def _lock(
    connection: Any, requests: Sequence[OrderRequest], refusals: Mapping[str, Outcome]
) -> Standing:
    buyers = sorted({(request.event_id, request.buyer_id) for request in requests})
    tiers = sorted(
        {(request.event_id, item.tier_number) for request in requests for item in request.items}
    )
    buyer_rows = await connection.fetch(statements.LOCK_BUYERS, *_columns(buyers, 2))
    tier_rows = await connection.fetch(statements.LOCK_TIERS, *_columns(tiers, 2))
    allowances = {
        (row["event_id"].hex, row["buyer_id"]): row["allowance_units"] for row in buyer_rows
    }
    return Standing(refusals, _available(tier_rows), allowances)


async def _settle(
    connection: Any, requests: Sequence[OrderRequest], outcomes: Sequence[Outcome]
) -> None:
    decided = list(zip(requests, outcomes, strict=True))
    admitted = [request for request, outcome in decided if outcome is Outcome.ADMITTED]
    refused = [request for request, outcome in decided if outcome is not Outcome.ADMITTED]
    if refused:
        await connection.execute(statements.TAKE_AWAY, *_keys(refused))
    if not admitted:
        return
    reserved: Counter[Tier] = Counter()
    sold: Counter[Tier] = Counter()
    bought: Counter[Buyer] = Counter()
    items = []
    for request in admitted:
        bought[request.event_id, request.buyer_id] += request.units
        for tier_number, quantity in request.items:
            items.append((request.event_id, request.order_id.hex(), tier_number, quantity))
            reserved[request.event_id, tier_number] += quantity
            if request.status is OrderStatus.CONFIRMED:
                sold[request.event_id, tier_number] += quantity
    counted = [(*tier, units, sold[tier]) for tier, units in reserved.items()]
    spent = [(*buyer, units) for buyer, units in bought.items()]
    await connection.execute(
        statements.SETTLE, *_columns(items, 4), *_columns(spent, 3), *_columns(counted, 4)
    )


def _keys(requests: Sequence[OrderRequest]) -> list[list[str]]:
    return [
        [request.event_id for request in requests],
        [request.order_id.hex() for request in requests],
    ]


def _columns(rows: Sequence[tuple[Any, ...]], width: int) -> list[list[Any]]:
    return [[row[column] for row in rows] for column in range(width)]


def _available(rows: Iterable[Any]) -> dict[Tier, int]:
    return {(row["event_id"].hex, row["number"]): row["available_units"] for row in rows}
