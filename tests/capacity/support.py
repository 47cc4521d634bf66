"""Costs with round figures, so that results can be computed by hand."""

from hypothesis import settings

from onsale.capacity.costs import Costs, Cpu, Kind
from onsale.capacity.model import Setup

ORDER = Kind(Cpu(100, 10, 30), 5_000, batch_size=50, redis_bytes=100, postgres_bytes=400)
HOLD = Kind(Cpu(120, 10, 40), 5_000, batch_size=50, redis_bytes=120, postgres_bytes=500)
REPLAY = Kind(Cpu(80, 5, 20), 6_000, batch_size=50)
SOLD_OUT = Kind(Cpu(50, 1, 0), 10_000)
PAY = Kind(Cpu(1_000, 0, 1_000), 200, postgres_bytes=300)

COSTS = Costs(order=ORDER, hold=HOLD, replay=REPLAY, sold_out=SOLD_OUT, pay=PAY)

SETUP = Setup(
    ledger_batch_size_max=512,
    batch_queue_size_max=10_000,
    db_pool_size_max=10,
    redis_connections_max=32,
    keep_alive_seconds=30,
)

# Others may be busy on the same machine.
UNHURRIED = settings(deadline=None)
