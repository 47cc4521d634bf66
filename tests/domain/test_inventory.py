"""The reference model is held to what it is the reference of: no seat twice, none lost."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from onsale.domain.inventory import Inventory, Outcome, TakenOrder
from onsale.domain.order import Item

CAPACITIES = {1: 10, 2: 4, 3: 0}
NOW_MS = 1_000

orders = st.builds(
    TakenOrder,
    order_id=st.integers(0, 15).map(lambda number: bytes([number])),
    buyer=st.sampled_from([b"ada", b"bob", b"cyd"]),
    fingerprint=st.sampled_from([b"one", b"two"]),
    items=st.lists(
        st.builds(Item, st.sampled_from([1, 2, 3]), st.integers(1, 5)),
        min_size=1,
        unique_by=lambda item: item.tier_number,
    ).map(tuple),
)
batches = st.lists(orders, max_size=40)
limits = st.integers(0, 12)


def taken_units(inventory: Inventory) -> Counter[int]:
    taken: Counter[int] = Counter()
    for order in inventory.orders.values():
        for item in order.items:
            taken[item.tier_number] += item.quantity
    return taken


@given(batches, limits)
def test_admission_never_goes_below_zero_nor_over_the_limit(
    batch: list[TakenOrder], limit_units: int
) -> None:
    inventory = Inventory(dict(CAPACITIES), limit_units=limit_units)
    outcomes = inventory.admit(batch, NOW_MS)
    for tier_number, capacity_units in CAPACITIES.items():
        assert 0 <= inventory.available_units(tier_number) <= capacity_units
        assert inventory.available_units(tier_number) == (
            capacity_units - taken_units(inventory)[tier_number]
        )
    if limit_units:
        assert all(inventory.units_of(buyer) <= limit_units for buyer in (b"ada", b"bob", b"cyd"))
    assert outcomes.count(Outcome.ADMITTED) == len(inventory.orders)


@given(batches, limits)
def test_whoever_was_refused_would_have_been_too_much(
    batch: list[TakenOrder], limit_units: int
) -> None:
    """Nobody is refused a seat that was there."""
    inventory = Inventory(dict(CAPACITIES), limit_units=limit_units)
    for order in batch:
        before = {tier: inventory.available_units(tier) for tier in CAPACITIES}
        had_units = inventory.units_of(order.buyer)
        (outcome,) = inventory.admit([order], NOW_MS)
        if outcome is Outcome.SOLD_OUT:
            assert any(item.quantity > before[item.tier_number] for item in order.items)
        if outcome is Outcome.BUYER_LIMIT:
            assert had_units + order.units > limit_units > 0


@given(batches, limits)
def test_a_batch_is_its_orders_one_by_one(batch: list[TakenOrder], limit_units: int) -> None:
    together = Inventory(dict(CAPACITIES), limit_units=limit_units)
    one_by_one = Inventory(dict(CAPACITIES), limit_units=limit_units)
    outcomes = together.admit(batch, NOW_MS)
    assert outcomes == [one_by_one.admit([order], NOW_MS)[0] for order in batch]
    assert together.orders == one_by_one.orders


@given(batches)
def test_asking_again_changes_nothing(batch: list[TakenOrder]) -> None:
    inventory = Inventory(dict(CAPACITIES))
    inventory.admit(batch, NOW_MS)
    before = dict(inventory.orders)
    admitted = [order for order in batch if order.order_id in before]
    for order, outcome in zip(admitted, inventory.admit(admitted, NOW_MS), strict=True):
        same = before[order.order_id].fingerprint == order.fingerprint
        assert outcome is (Outcome.SEEN if same else Outcome.SEEN_WITH_OTHER_BODY)
    assert inventory.orders == before


@given(batches, batches)
def test_giving_back_returns_each_order_once(
    batch: list[TakenOrder], others: list[TakenOrder]
) -> None:
    inventory = Inventory(dict(CAPACITIES))
    inventory.admit(batch, NOW_MS)
    live = len(inventory.orders)
    ids = [order.order_id for order in [*batch, *others]]
    assert inventory.give_back(ids) == live
    assert inventory.give_back(ids) == 0
    assert {tier: inventory.available_units(tier) for tier in CAPACITIES} == CAPACITIES


@given(batches, batches)
def test_adopting_takes_whatever_the_ledger_has_and_once(
    batch: list[TakenOrder], adopted: list[TakenOrder]
) -> None:
    inventory = Inventory(dict(CAPACITIES))
    inventory.admit(batch, NOW_MS)
    before = dict(inventory.orders)
    new_ids = {order.order_id for order in adopted} - before.keys()
    assert inventory.adopt(adopted) == len(new_ids)
    assert inventory.adopt(adopted) == 0
    assert inventory.orders.keys() == before.keys() | new_ids
    assert {key: inventory.orders[key] for key in before} == before


@given(batches, limits)
def test_only_an_open_sale_admits(batch: list[TakenOrder], limit_units: int) -> None:
    inventory = Inventory(
        dict(CAPACITIES), limit_units=limit_units, opens_at_ms=NOW_MS + 1, closes_at_ms=NOW_MS + 2
    )
    assert set(inventory.admit(batch, NOW_MS)) <= {Outcome.NOT_OPEN}
    assert set(inventory.admit(batch, NOW_MS + 2)) <= {Outcome.CLOSED}
    assert not inventory.orders
