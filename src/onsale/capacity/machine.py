"""What a sale of some size uses of one machine, which the crowd may have to share with it.

By the costs at the rate at which buyers come: in a quiet service every order is a batch.
"""

from dataclasses import dataclass

from onsale.capacity.costs import MICRO, Costs, Cpu
from onsale.capacity.model import OnSale

_HALVINGS = 60
# On a machine that is full, whoever wants a core shares it with the crowd.
_SLOWED = 2.0
# More than any Python answers.
_PER_SECOND_MAX = 1e6


@dataclass(frozen=True)
class Use:
    """CPU of a whole sale by part, how long its tickets last, and how many orders a batch has."""

    api_cpu_seconds: float
    redis_cpu_seconds: float
    postgres_cpu_seconds: float
    sold_out_seconds: float
    batch_size: float


def use_of(sale: OnSale, costs: Costs, workers: int = 1) -> Use:
    """What a sale uses in which nobody pays or waits, and each buyer presses all at once."""
    sold_out_seconds = sale.arrivals.seconds_of(sale.orders)
    batch_size = costs.batch_size(
        sale.orders / sold_out_seconds / workers,
        together=sale.presses,
    )
    presses = sale.orders * sale.presses
    used = _press(costs, sale.presses, batch_size) * presses
    used += costs.watching * (sale.arrivals.seconds * workers)
    if sale.sells_out:
        refusals = sale.requests - presses
        seconds_left = sale.arrivals.seconds - sold_out_seconds
        used += costs.of_refusal(refusals / seconds_left / workers) * refusals
    used *= MICRO
    return Use(used.api, used.redis, used.postgres, sold_out_seconds, batch_size)


def presses_per_second_max(
    costs: Costs, presses: float, *, cores: float, crowd_us: float, workers: int = 1
) -> float:
    """Winners' presses that a machine answers in a second when more come than it can do.

    The crowd needs `crowd_us` of CPU for each press, of the same cores. Batches are as large as
    that rate makes them, for the service need not be at its limit when the machine is.
    """
    low, high = 0.0, _PER_SECOND_MAX
    for _ in range(_HALVINGS):
        rate = (low + high) / 2
        batch_size = costs.batch_size(rate / presses / workers, together=presses, slowed=_SLOWED)
        cpu = _press(costs, presses, batch_size)
        api_cores, all_cores = rate * cpu.api * MICRO, rate * (cpu.total + crowd_us) * MICRO
        low, high = (rate, high) if api_cores <= workers and all_cores <= cores else (low, rate)
    return low


def _press(costs: Costs, presses: float, batch_size: float) -> Cpu:
    """CPU of a winner's press, the first or again."""
    first = costs.in_batches(costs.order, batch_size)
    again = costs.in_batches(costs.replay, batch_size)
    return (first + again * (presses - 1)) * (1 / presses)
