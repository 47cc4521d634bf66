"""What the model says, as a person reads it in a terminal of 100 columns."""

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from onsale.capacity.costs import Costs
from onsale.capacity.model import Name, OnSale, Plan, Setup
from onsale.capacity.reference import Reference

_REASONS = {
    Name.API: "each process is one core of Python; more of them carry more.",
    Name.GATE: "one event lives on one shard, and a shard is one thread: more shards carry more"
    " events, not this one faster.",
    Name.LEDGER: "more cores carry more.",
    Name.TIER: "each batch locks the row until its commit; more tiers or a faster disk carry more.",
    Name.PAYING: "a batch locks the tier's row until it is on disk; more tiers, or more time"
    " to pay, carry more.",
}


def render(plan: Plan, sale: OnSale, setup: Setup, reference: Reference, console: Console) -> None:
    """Print what the sale needs part by part, what breaks first, and what becomes of the crowd."""
    for line in _crowd(plan, sale):
        console.print(line, highlight=False)
    console.print()
    console.print(_parts(plan))
    console.print()
    first = plan.first_to_break
    console.print(
        f"[bold]Breaks first: {first.name}, at {first.breaks_at:,.0f} {first.rate_unit}[/]:"
        f" {_REASONS[first.name]}",
        highlight=False,
    )
    console.print()
    console.print(_needs(plan, sale, setup))
    console.print()
    for line in _source(reference):
        console.print(line, style="dim", highlight=False)


def _crowd(plan: Plan, sale: OnSale) -> Iterator[str]:
    opening = sale.arrivals.stretches[0]
    yield (
        f"{sale.arrivals.buyers:,.0f} buyers within {_time(sale.arrivals.seconds)},"
        f" {plan.buyers_per_second:,.0f}/s in the first {_time(opening.seconds)};"
        f" each presses {sale.presses:g} times."
    )
    paying = f", paid within {_time(sale.pay_seconds)}" if sale.pay_seconds else ", nothing to pay"
    yield f"{sale.tickets:,} tickets in {plan.orders:,} orders{paying}."


def _parts(plan: Plan) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("at the peak", style="bold")
    for name in ("needs", "has", "load", "breaks at"):
        table.add_column(name, justify="right", no_wrap=True)
    for part in plan.parts:
        table.add_row(
            part.name,
            f"{_amount(part.needs)} {part.unit}",
            _amount(part.has),
            f"{part.load:.0%}",
            f"{part.breaks_at:,.0f} {part.rate_unit}",
            style="red" if part.load > 1 else None,
        )
    return table


def _needs(plan: Plan, sale: OnSale, setup: Setup) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for name, text in _answers(plan, sale, setup):
        table.add_row(name, text)
    return table


def _answers(plan: Plan, sale: OnSale, setup: Setup) -> Iterator[tuple[str, str]]:
    queue = plan.queue
    room = "as given" if setup.workers else f"{setup.utilisation:.0%} in use at most"
    yield "API", f"{_several(plan.workers, 'process', 'processes')} of one core ({room})"
    yield "Redis", f"1 shard for the event, {_size(plan.redis_bytes)} of orders"
    yield "Postgres", f"{_several(plan.postgres_cores, 'core')}, {_size(plan.postgres_bytes)}"
    yield (
        "writes",
        f"{plan.orders_per_second:,.0f} orders/s in {plan.commits_per_second:,.0f} commits/s,"
        f" {plan.orders:,} in all",
    )
    if sale.sells_out:
        yield "sold out", f"{_time(queue.sold_out_seconds)} after the opening"
    yield (
        "queue",
        f"{_time(queue.wait_seconds_max)} at most, {queue.waiting_max:,.0f} buyers at once;"
        f" room for {plan.queue_size_max:,}",
    )
    if plan.paid_seconds is not None:
        yield "paid", f"{_time(plan.paid_seconds)} after the tickets were taken"
    yield (
        "connections",
        f"{plan.client_connections:,.0f} of buyers, unless a proxy has them;"
        f" {plan.postgres_connections_max:,} of Postgres and {plan.redis_connections_max:,} of"
        " Redis at most",
    )
    yield (
        "network",
        f"{plan.network_in_bits_per_second / 1e6:,.0f} Mbit/s in,"
        f" {plan.network_out_bits_per_second / 1e6:,.0f} Mbit/s out, of HTTP at the peak",
    )


def _source(reference: Reference) -> Iterator[str]:
    yield (
        f"By {reference.name}: {_several(reference.cpus, 'CPU')},"
        f" load average {reference.load_average:.1f}."
    )
    missing = list(_missing(reference.costs))
    if missing:
        yield f"Not measured there, so left out: {', '.join(missing)}."


def _missing(costs: Costs) -> Iterator[str]:
    if costs.pay is None:
        yield "payments"
    if costs.order_seconds is None:
        yield "the tier's row"


def _amount(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.2f}"


def _several(count: int, one: str, many: str | None = None) -> str:
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def _size(count_bytes: float) -> str:
    return f"{count_bytes / 1e6:,.1f} MB"


def _time(seconds: float) -> str:
    if seconds >= 120:
        return f"{seconds / 60:,.3g} min"
    return f"{seconds:,.3g} s" if seconds >= 0.1 or not seconds else f"{seconds * 1e3:,.2g} ms"
