"""Ids follow from what they name: stable across processes and versions, and never shared."""

import subprocess
import sys

from hypothesis import assume, given
from hypothesis import strategies as st

from onsale.domain.ids import (
    BUYER_ID,
    FINGERPRINT_BYTES,
    HEX_ID,
    IDEMPOTENCY_KEY,
    ORDER_ID_BYTES,
    TIER_ID,
    buyer_ref,
    fingerprint,
    order_id,
)
from onsale.domain.order import Item

EVENT_ID = "0198c5a0b7d27c3e9f00112233445566"

keys = st.from_regex(IDEMPOTENCY_KEY, fullmatch=True)
buyers = st.from_regex(BUYER_ID, fullmatch=True)
events = st.from_regex(HEX_ID, fullmatch=True)
items = st.lists(
    st.builds(Item, st.integers(1, 100), st.integers(1, 100)),
    min_size=1,
    max_size=10,
    unique_by=lambda item: item.tier_number,
)
methods = st.sampled_from([None, "ok", "declined"])


def test_the_derivation_is_the_one_that_the_ledger_was_written_with() -> None:
    """A change here makes every retry across the release a second order."""
    assert order_id(EVENT_ID, "buyer-1", "key-1").hex() == "fad6d51b782035e5ab6b185104ad983f"
    assert order_id(EVENT_ID, "buyer-1", "key-1", 1).hex() == "3a01bb1dc366380d252f7e2a47cae371"
    assert fingerprint([Item(1, 2), Item(3, 1)], None).hex() == "3cbc15eb39cb2a2e"
    assert fingerprint([Item(1, 2), Item(3, 1)], "ok").hex() == "db3f87e33e67ff77"
    assert buyer_ref("buyer-1").hex() == "e10cc01507bdb543"


def test_another_process_derives_the_same() -> None:
    """Python's own hash would not: it is seeded anew in every process."""
    program = f"from onsale.domain.ids import order_id; print(order_id('{EVENT_ID}','b','k').hex())"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert said.stdout.decode().strip() == order_id(EVENT_ID, "b", "k").hex()


@given(events, buyers, keys)
def test_sizes_are_those_that_the_stores_expect(event: str, buyer: str, key: str) -> None:
    assert len(order_id(event, buyer, key)) == ORDER_ID_BYTES
    assert HEX_ID.fullmatch(order_id(event, buyer, key).hex())
    assert len(buyer_ref(buyer)) == 8
    assert len(fingerprint([Item(1, 1)], None)) == FINGERPRINT_BYTES


@given(st.lists(st.tuples(events, buyers, keys, st.integers(0, 7)), unique=True, min_size=2))
def test_whatever_differs_is_another_order(named: list[tuple[str, str, str, int]]) -> None:
    assert len({order_id(*parts) for parts in named}) == len(named)


@given(buyers, keys, st.integers(0, 300))
def test_parts_do_not_run_into_each_other(buyer: str, key: str, cut: int) -> None:
    """`ab` + `c` is not `a` + `bc`: else one buyer could name another's order."""
    joined = buyer + key
    cut = cut % len(joined)
    assume(cut not in (0, len(buyer)))
    assert order_id(EVENT_ID, buyer, key) != order_id(EVENT_ID, joined[:cut], joined[cut:])


def test_a_later_attempt_is_another_order() -> None:
    attempts = {order_id(EVENT_ID, "buyer", "key", attempt) for attempt in range(8)}
    assert len(attempts) == 8


@given(st.data(), items, methods)
def test_the_order_of_items_is_no_matter(
    data: st.DataObject, asked: list[Item], method: str | None
) -> None:
    shuffled = data.draw(st.permutations(asked))
    assert fingerprint(shuffled, method) == fingerprint(asked, method)


@given(items, items, methods, methods)
def test_another_body_has_another_fingerprint(
    asked: list[Item], others: list[Item], method: str | None, other_method: str | None
) -> None:
    same = (sorted(asked), method) == (sorted(others), other_method)
    assert (fingerprint(asked, method) == fingerprint(others, other_method)) == same


def test_what_may_be_a_key() -> None:
    for good in ("a", "~" * 255, "order:1/2?x=é".replace("é", "e")):
        assert IDEMPOTENCY_KEY.fullmatch(good)
    for bad in ("", "a" * 256, "two words", "tab\t", "é", "line\n"):
        assert not IDEMPOTENCY_KEY.fullmatch(bad)


def test_what_may_be_a_tier() -> None:
    for good in ("a", "floor-1", "A.b_c", "9" * 64):
        assert TIER_ID.fullmatch(good)
    for bad in ("", "-a", ".a", "a" * 65, "a b", "a/b", "é"):
        assert not TIER_ID.fullmatch(bad)
