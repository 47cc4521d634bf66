"""What a person reads in the terminal."""

from rich.console import Console
from rich.table import Table

from onsale.demo.sale import Verdict
from onsale.loadtests import Progress

_OUTCOME_TEXTS = {
    "confirmed": "confirmed",
    "held": "held",
    "replayed": "same order again (pressed twice)",
    "sold_out": "refused: sold out",
    "limit": "refused: limit per buyer",
    "not_open": "refused: sale not open",
}


def print_progress(console: Console, progress: Progress) -> None:
    """One line of a run under way."""
    outcomes = "  ".join(f"{name} {count:,}" for name, count in progress.outcomes.items() if count)
    console.print(
        f"  {progress.elapsed_seconds:5.1f} s  {progress.requests:>7,} requests"
        f"  {progress.requests_per_second:>6,.0f}/s  {outcomes}",
        highlight=False,
    )


def print_verdict(console: Console, verdict: Verdict) -> None:
    """What came of a load test: sold, refused and why, rates, latencies, books, report."""
    load = verdict.load
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(justify="right", style="bold")
    table.add_column()
    table.add_row(f"{verdict.sold:,}", f"sold of {verdict.capacity:,}")
    if verdict.held:
        table.add_row(f"{verdict.held:,}", "held, unpaid")
    table.add_row(f"{verdict.available:,}", "left")
    table.add_row(f"{verdict.oversold:,}", "oversold")
    table.add_row("", "")
    for outcome, count in sorted(load.outcomes.items(), key=lambda pair: -pair[1]):
        table.add_row(f"{count:,}", _OUTCOME_TEXTS.get(outcome, outcome.replace("_", " ")))
    table.add_row(f"{load.duplicates:,}", "buyers pressed twice at once, under one key")
    table.add_row("", "")
    table.add_row(f"{load.arrival_rate:,.0f}/s", "buyers arrived")
    table.add_row(f"{load.answer_rate:,.0f}/s", f"requests answered, {load.requests:,} in all")
    for rank, milliseconds in load.latency_ms.items():
        table.add_row(f"{milliseconds:,.1f} ms", f"{rank} of an order, as its buyer saw it")
    console.print()
    console.print(table)
    console.print()
    _print_books(console, verdict)
    _print_end(console, verdict)


def _print_books(console: Console, verdict: Verdict) -> None:
    """Both stores' word on every tier; the gate knows what is taken, not what was paid for."""
    gate = {tier["id"]: tier for tier in verdict.audit["gate"]["tiers"]}
    table = Table(box=None, padding=(0, 2))
    table.add_column("tier")
    table.add_column("store")
    for part in ("capacity", "available", "taken", "held", "sold"):
        table.add_column(part, justify="right")
    for tier in verdict.audit["tiers"]:
        counted = [tier["capacity"], tier["available"], tier["held"] + tier["sold"]]
        table.add_row(
            tier["id"],
            "ledger",
            *(f"{units:,}" for units in (*counted, tier["held"], tier["sold"])),
        )
        seen = gate.get(tier["id"])
        if seen is not None:
            counted = [seen["capacity"], seen["available"], seen["taken"]]
            table.add_row("", "gate", *(f"{units:,}" for units in counted), "", "")
    console.print(table)


def _print_end(console: Console, verdict: Verdict) -> None:
    console.print()
    if verdict.audit["balanced"]:
        console.print("The books balance.", style="green")
    else:
        console.print("The books do not balance.", style="bold red")
    if verdict.load.thresholds_passed:
        console.print("Every threshold held.", style="green")
    for fault in verdict.faults:
        console.print(f"  {fault}", style="red", highlight=False)
    if verdict.load.dropped_iterations:
        console.print(
            f"k6 had no virtual buyer free for {verdict.load.dropped_iterations:,} arrivals.",
            style="yellow",
        )
    strain, limit = verdict.load.run.generator.strain, verdict.load.generator_limit
    if limit:
        console.print(
            f"The load generator was the limit, not the service: {limit}.", style="yellow"
        )
    elif strain:
        console.print(
            f"k6 was short of CPU, and the latencies contain that: {strain}.", style="yellow"
        )
    if verdict.load.report is not None:
        console.print(f"k6 report: {verdict.load.report}", highlight=False, soft_wrap=True)
