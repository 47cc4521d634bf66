"""The verdict for people at a terminal."""

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from onsale.bottleneck.engine import Finding, Reading, Verdict, figure

_COLOURS = {"good": "green", "warning": "yellow", "bad": "red"}


def render(verdict: Verdict, console: Console, *, evidence: bool = False) -> None:
    """The answer, every stage in a line, what to try; with `evidence`, the queries too."""
    colour = _COLOURS[verdict.level]
    console.print()
    console.print(f"[bold {colour}]{verdict.headline}[/]", highlight=False)
    console.print(verdict.explanation, highlight=False)
    console.print()
    console.print(_table(verdict))
    for line in verdict.advice:
        console.print(f"  → {line}", highlight=False, markup=False)
    if evidence:
        for fact in verdict.evidence:
            console.print(f"\n{fact.says}", highlight=False, markup=False)
            console.print(fact.query, style="dim", highlight=False, markup=False, soft_wrap=True)


def as_json(verdict: Verdict) -> dict[str, Any]:
    """The object that `--json` prints."""
    return {
        "limit": verdict.limit,
        "headline": verdict.headline,
        "level": verdict.level,
        "explanation": verdict.explanation,
        "advice": list(verdict.advice),
        "evidence": [{"says": fact.says, "query": fact.query} for fact in verdict.evidence],
        "stages": [
            {
                "stage": each.stage.name,
                "since_seconds": each.since_seconds,
                "explained_by": list(each.explained_by),
                "share": round(each.share, 3),
                "signals": {r.signal.name: r.worst for r in each.observed.readings},
            }
            for each in verdict.findings
        ],
    }


def _table(verdict: Verdict) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("", "stage", "at its worst", "knee", "from", "also"):
        table.add_column(heading, justify="right" if heading in ("knee", "from") else "left")
    for finding in verdict.findings:
        table.add_row(*_row(finding, is_limit=finding.stage.name == verdict.limit))
    return table


def _row(finding: Finding, *, is_limit: bool) -> tuple[Text | str, ...]:
    mark, style = _mark(finding, is_limit=is_limit)
    decisive = finding.observed.decisive
    others = [each for each in finding.observed.readings if each is not decisive]
    since = finding.since_seconds
    return (
        Text(mark, style=style),
        Text(finding.stage.title, style=style),
        Text(_value(decisive), style=style),
        figure(decisive.signal.knee, decisive.signal.unit),
        "" if since is None else f"{since:.0f} s",
        Text(", ".join(_value(each) for each in others), style="dim"),
    )


def _mark(finding: Finding, *, is_limit: bool) -> tuple[str, str]:
    """The limit, what is saturated as well, and what is well."""
    if is_limit:
        return "●", "bold red"
    return ("○", "yellow") if finding.is_saturated else ("·", "")


def _value(reading: Reading) -> str:
    return f"{reading.signal.name} {figure(reading.worst, reading.signal.unit)}"
