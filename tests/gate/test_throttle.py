"""The script of the rate limits, on each server: bursts, what comes back, what stays behind."""

from redis.asyncio import Redis

from onsale.gate.gate import Gate
from onsale.gate.keys import limit_key

SECOND_US = 1_000_000


async def test_a_burst_passes_and_then_one_at_a_time(gate: Gate, redis: Redis) -> None:
    key = limit_key("buyer", "burst")
    await redis.delete(key)
    reply = await gate.throttle([key] * 5, [1, 100 * SECOND_US, 3])
    waits, full = reply[::2], reply[1::2]
    assert waits[:3] == [0, 0, 0]
    # Two more than there is room for wait as long as each other: neither took anything.
    assert waits[3] == waits[4] == 100 * SECOND_US
    assert full == [100 * SECOND_US, 200 * SECOND_US, *[300 * SECOND_US] * 3]


async def test_what_was_taken_comes_back(gate: Gate, redis: Redis) -> None:
    """By the server's clock: the bucket's time is moved as if it had passed."""
    key = limit_key("buyer", "back")
    await redis.delete(key)
    lane = [1, 100 * SECOND_US, 2]
    assert (await gate.throttle([key] * 3, lane))[::2][2] > 0
    await redis.set(key, int(await redis.get(key) or 0) - 100 * SECOND_US)
    wait, full = await gate.throttle([key], lane)
    assert wait == 0
    assert 190 * SECOND_US < full <= 200 * SECOND_US
    assert (await gate.throttle([key], lane))[0] > 0


async def test_a_bucket_that_is_full_again_is_gone(gate: Gate, redis: Redis) -> None:
    """Nothing stays behind of a buyer who left."""
    key = limit_key("buyer", "gone")
    await redis.delete(key)
    await gate.throttle([key], [1, 100 * SECOND_US, 3])
    assert 99_000 < await redis.pttl(key) <= 100_000


async def test_all_lanes_or_none(gate: Gate, redis: Redis) -> None:
    """Seen red with each lane taken from as it is looked at."""
    buyer, address = limit_key("buyer", "all"), limit_key("address", "all")
    await redis.delete(buyer, address)
    lanes = [2, 100 * SECOND_US, 1, 100 * SECOND_US, 5]
    wait, *_ = await gate.throttle([buyer, address], lanes)
    assert wait == 0
    taken = await redis.get(address)
    wait, *_ = await gate.throttle([buyer, address], lanes)
    assert wait > 0
    assert await redis.get(address) == taken
