"""Alerts tried out by `promtool test rules`: given series, which of them fire at a given time."""

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
RULES = ROOT / "monitoring/prometheus/rules"

# A name of a series, and its values in promtool's notation.
Series = dict[str, str]
# How many series of an alert fire, by its name and severity.
Firing = Mapping[tuple[str, str], int]


@dataclass(frozen=True)
class Moment:
    """What is to be true at a time of the test."""

    at: str
    expression: str
    # The labels of each expected sample, as in PromQL, and its value.
    expected: Mapping[str, float]


def firing(at: str, expected: Firing, only: str = "") -> Moment:
    """Exactly these alerts fire; of all but the watchdog, or `only` of one name."""
    names = f'alertname="{only}"' if only else 'alertname!="Watchdog"'
    return Moment(
        at,
        f'count by (alertname, severity) (ALERTS{{alertstate="firing",{names}}})',
        {
            f'{{alertname="{name}", severity="{severity}"}}': count
            for (name, severity), count in expected.items()
        },
    )


def case(series: Series, moments: list[Moment], sample_interval: str) -> dict[str, Any]:
    """One test as promtool reads it."""
    return {
        "interval": sample_interval,
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {
                "expr": moment.expression,
                "eval_time": moment.at,
                "exp_samples": [
                    {"labels": labels, "value": value} for labels, value in moment.expected.items()
                ],
            }
            for moment in moments
        ],
    }


def complaints(
    folder: Path,
    tests: list[dict[str, Any]],
    *,
    evaluation_interval: str,
    rules: Path = RULES,
    files: str = "*.yml",
) -> str:
    """What promtool has against it; empty when every moment was as expected."""
    path = folder / "test.yml"
    document = {
        "rule_files": [str(file) for file in sorted(rules.glob(files))],
        "evaluation_interval": evaluation_interval,
        "tests": tests,
    }
    path.write_text(yaml.safe_dump(document, sort_keys=False, width=10_000))
    run = subprocess.run(
        ["promtool", "test", "rules", path],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return "" if run.returncode == 0 else run.stdout + run.stderr
