"""A campaign's report as a person reads it."""

from rich.console import Console
from rich.table import Table

from onsale.chaos.report import FaultLine, Report
from onsale.sales.invariants import RULES

_VIOLATIONS_SHOWN_MAX = 5


def render(report: Report, console: Console) -> None:
    """Print the faults, the rules, and what broke them."""
    told = ", ".join(f"{count:,} {outcome}" for outcome, count in sorted(report.operations.items()))
    console.print()
    console.print(
        f"seed {report.seed}: {report.seconds:.0f} s, {report.orders:,} orders; requests: {told}",
        highlight=False,
    )
    console.print()
    console.print(_faults(report))
    console.print()
    console.print(_rules(report))
    console.print()
    for verdict in report.verdicts:
        for violation in verdict.violations[:_VIOLATIONS_SHOWN_MAX]:
            console.print(
                f"{verdict.rule}: {violation.detail}", style="red", highlight=False, markup=False
            )
    if report.well:
        console.print("Every invariant held.", style="green")
    else:
        console.print(
            "Not every invariant held, or not every fault was injected.", style="bold red"
        )


def _faults(report: Report) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("fault", style="bold", no_wrap=True)
    for name in ("times", "orders\nduring it", "serves\nagain, s", "longest\nstop, s"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("invariants")
    for line in report.faults:
        if line.times == 0:
            table.add_row(line.fault, "0", "", "", "", line.not_done or "[red]not injected[/]")
            continue
        table.add_row(
            line.fault,
            f"{line.times}",
            f"{line.orders:,}",
            "never" if line.serves_after_seconds is None else f"{line.serves_after_seconds:.1f}",
            f"{line.longest_stop_seconds:.1f}",
            _invariants(line),
        )
    return table


def _invariants(line: FaultLine) -> str:
    return f"[red]{' '.join(line.broken)}[/]" if line.broken else "[green]held[/]"


def _rules(report: Report) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("", style="bold")
    table.add_column("invariant")
    table.add_column("looked at", justify="right")
    table.add_column("")
    for verdict in report.verdicts:
        told = "[green]held[/]" if verdict.kept else f"[red]{len(verdict.violations):,} broken[/]"
        table.add_row(verdict.rule, RULES[verdict.rule], f"{verdict.looked_at:,}", told)
    return table
