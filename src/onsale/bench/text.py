"""A benchmark's result as a person reads it, in a terminal of 100 columns."""

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table

from onsale.bench.goals import Verdict, check
from onsale.bench.overload import OverloadResult
from onsale.bench.result import BenchResult, Spread

# Load a CPU at which the rest of the machine counts as quiet.
_QUIET_LOAD = 0.25

_STYLES = {
    Verdict.AIM: "green",
    Verdict.MET: "green",
    Verdict.NOISE: "yellow",
    Verdict.SHORT: "red",
    Verdict.UNKNOWN: "dim",
}


def render(result: BenchResult, console: Console) -> None:
    """Print medians with their lowest and highest, ratios, and faults if there are any."""
    rounds = max((len(turns) for turns in result.turns.values()), default=0)
    console.print(
        f"{rounds} rounds of {result.seconds} s, {result.connections} connections,"
        f" {result.cpus} CPUs; load average before: {result.load_average:.1f}."
        "\nCPU is per request; medians, (lowest–highest) of the rounds.",
        highlight=False,
    )
    if result.load_average > _QUIET_LOAD * result.cpus:
        console.print("The machine was busy with something else: expect noise.", style="yellow")
    for table in (_speeds(result), _costs(result), _ratios(result), _memory(result)):
        if table.row_count:
            console.print()
            console.print(table)
    console.print()
    if result.well:
        console.print("Every answer was right, and every order is in the ledger.", style="green")
    for fault in result.faults:
        console.print(fault, style="red", highlight=False)


def render_overload(result: OverloadResult, console: Console) -> None:
    """Print every crowd of the last round, what the valve is held to, and faults."""
    header = ("variant", "crowd", "arrivals/s", "served/s", "refused/s", "p50 ms", "p99 ms", "MiB")
    rows = [
        (
            load.variant,
            f"{load.load:g}×",
            f"{load.offered_per_second:,.0f}",
            f"{load.placed_per_second:,.0f}",
            f"{load.shed_per_second:,.0f}",
            f"{load.placed_p50_ms:.0f}",
            f"{load.placed_p99_ms:.0f}",
            f"{load.resident_bytes / 2**20:.0f}",
        )
        for load in result.rounds[-1]
    ]
    table = _table(header, rows)
    console.print(table)
    console.print()
    for verdict in result.verdicts():
        style = "green" if verdict.holds else "red"
        said = f"{verdict.title}: {verdict.measured:.2f} (limit {verdict.limit:g})"
        console.print(said, style=style, highlight=False)
    for fault in result.faults:
        console.print(fault, style="red", highlight=False)


def render_check(result: BenchResult, console: Console) -> None:
    """Print every goal with what was measured."""
    table = _table(("goal", "measured", "must", "aim"), ())
    table.add_column("")
    for goal, verdict in check(result).items():
        sign = "≥" if goal.at_least else "≤"
        table.add_row(
            goal.title,
            _text(goal.spread(result), goal.digits),
            f"{sign} {goal.must:g}",
            f"{goal.aim:g}",
            verdict.value,
            style=_STYLES[verdict],
        )
    console.print()
    console.print(table)


def _speeds(result: BenchResult) -> Table:
    header = ("", "requests/s", "p50 ms", "p99 ms", "p99 ms\nat 70 %", "API CPU µs")
    rows = (
        (
            name,
            _text(result.spread(name, "requests_per_second"), 0),
            _median(result.spread(name, "p50_ms"), 1),
            _text(result.spread(name, "p99_ms"), 0),
            _text(result.spread(name, "open_p99_ms"), 0),
            _text(result.spread(name, "api_cpu_us"), 0),
        )
        for name in result.turns
    )
    return _table(header, rows)


def _costs(result: BenchResult) -> Table:
    header = (
        *("", "Redis\nCPU µs", "Postgres\nCPU µs", "gate\nbatch", "ledger\nbatch"),
        *("Redis\nB/order", "Postgres\nB/order"),
    )
    rows = (
        (
            name,
            _text(result.spread(name, "redis_cpu_us"), 1),
            _text(result.spread(name, "postgres_cpu_us"), 0),
            _median(result.spread(name, "gate_batch_mean"), 0),
            _median(result.spread(name, "ledger_batch_mean"), 0),
            _number(result.bytes_per_order(name, "redis"), 0),
            _number(result.bytes_per_order(name, "postgres"), 0),
        )
        for name in result.turns
        if result.spread(name, "postgres_cpu_us") is not None
    )
    return _table(header, rows)


def _ratios(result: BenchResult) -> Table:
    figures = ("requests_per_second", "api_cpu_us", "order_load_p99_ms")
    header = ("ratio, round by round", "requests/s", "API CPU", "p99 at 70 %\nof order")
    spreads: dict[str, dict[str, Spread]] = {}
    for ratio, spread in result.ratios().items():
        spreads.setdefault(f"{ratio.variant} / {ratio.base}", {})[ratio.figure] = spread
    rows = (
        (name, *(_text(by_figure.get(figure), 2) for figure in figures))
        for name, by_figure in spreads.items()
    )
    return _table(header, rows)


def _memory(result: BenchResult) -> Table:
    rows = (
        (f"{requests:,} requests", _number(resident_bytes / 2**20, 1))
        for requests, resident_bytes in result.footprints
    )
    return _table(("API memory after", "MiB"), rows)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """The table, without columns in which nobody has anything."""
    cells = list(rows)
    kept = [number for number in range(len(header)) if not cells or any(r[number] for r in cells)]
    table = Table(box=None, padding=(0, 2, 0, 0))
    for number in kept:
        first = number == 0
        table.add_column(
            header[number],
            style="bold" if first else None,
            justify="left" if first else "right",
            no_wrap=True,
        )
    for row in cells:
        table.add_row(*(row[number] for number in kept))
    return table


def _text(spread: Spread | None, digits: int) -> str:
    if spread is None:
        return ""
    median, low, high = (_number(value, digits) for value in spread)
    return median if low == high else f"{median} ({low}–{high})"


def _median(spread: Spread | None, digits: int) -> str:
    return _number(spread.median if spread else None, digits)


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"
