"""What a sale of some size uses of one machine, which the crowd may have to share with it.

By the costs at the rate at which buyers come: in a quiet service every order is a batch.
"""

from dataclasses import dataclass

from onsale.capacity.costs import MICRO, Costs, Cpu
from onsale.capacity.model import OnSale


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
    presses = sale.orders * sale.presses
    batch_size = costs.batch_size(
        sale.orders / sold_out_seconds / workers,
        together=sale.presses,
        evenly=sale.arrivals.evenly,
    )
    used = _press(costs, sale.presses, batch_size) * presses
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

    Then batches are full. The crowd needs `crowd_us` of CPU for each press, of the same cores.
    """
    cpu = _press(costs, presses, costs.order.batch_size)
    return min(workers / (cpu.api * MICRO), cores / ((cpu.total + crowd_us) * MICRO))


def _press(costs: Costs, presses: float, batch_size: float) -> Cpu:
    """CPU of a winner's press, the first or again."""
    first = costs.in_batches(costs.order, batch_size)
    again = costs.in_batches(costs.replay, batch_size)
    return (first + again * (presses - 1)) * (1 / presses)
