"""What is said of the load generator: it was the limit, it was short of CPU, or nothing."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from onsale.demo.text import print_verdict
from onsale.loadtests import GeneratorUse
from tests.demo.test_verdict import LOAD, WELL

AT_EASE = GeneratorUse(cpus=2, cpu_seconds=4, wait_seconds=1, peak_cpus=1, idle_share=0.5)
STARVED = replace(AT_EASE, cpu_seconds=2, wait_seconds=8)
LIMIT = "The load generator was the limit, not the service"
STRAIN = "k6 was short of CPU, and the latencies contain that"


@pytest.mark.parametrize(
    ("use", "missed", "said"),
    [
        (AT_EASE, 0, set()),
        # All its virtual users were waiting for the service.
        (AT_EASE, 10, set()),
        (STARVED, 0, {STRAIN}),
        (STARVED, 10, {LIMIT}),
        # The machine was full, and the service had a part in that.
        (replace(STARVED, idle_share=0.0), 10, {STRAIN}),
    ],
)
def test_the_generator_is_blamed_for_what_it_did(
    use: GeneratorUse, missed: int, said: set[str]
) -> None:
    load = replace(
        LOAD,
        iterations=100 - missed,
        dropped_iterations=missed,
        run=replace(LOAD.run, generator=use),
    )
    # What the gate says of its tiers is not what this is about.
    verdict = replace(WELL, load=load, audit=WELL.audit | {"gate": {"tiers": []}})
    console = Console(record=True, width=200, file=io.StringIO())
    print_verdict(console, verdict)
    text = console.export_text()
    assert {line for line in (LIMIT, STRAIN) if line in text} == said
    assert ("had no virtual buyer free for 10" in text) is (missed > 0)
