"""What a check of the model found, as a person reads it in a terminal of 100 columns."""

from rich.console import Console
from rich.table import Table

from onsale.capacity.check import DEVIATION_MAX, Check


def render_check(check: Check, console: Console) -> None:
    """Print every figure as predicted and as measured."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("", style="bold")
    for name in ("predicted", "measured", "deviation"):
        table.add_column(name, justify="right", no_wrap=True)
    for figure in check.compared:
        table.add_row(
            f"{figure.name}, {figure.unit}",
            _amount(figure.predicted),
            _amount(figure.measured),
            f"{figure.deviation:+.0%}",
            style=None if figure.well else "red",
        )
    console.print()
    console.print(table)
    console.print()
    console.print(
        f"In the demo a batch had {check.batch.measured:.1f} orders, expected were"
        f" {check.batch.predicted:.1f}. When there were too many, k6 used"
        f" {check.crowd_us:,.0f} µs a request, and others left {check.cores:.2f} cores.",
        highlight=False,
    )
    if check.well:
        console.print(f"Every figure is within {DEVIATION_MAX:.0%}.", style="green")
    else:
        console.print(f"Not every figure is within {DEVIATION_MAX:.0%}.", style="red")


def _amount(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"
