"""What is planted is named. Half a minute a plant: `uv run pytest -m campaign tests/bottleneck`.

`uv run python -m tests.bottleneck.planted` prints the same as a table. That the suite can fail is
the last plant: nothing is planted, and nothing may be named.
"""

import shutil
from pathlib import Path

import pytest

from onsale.bottleneck.stages import STAGES
from tests.bottleneck.planted import run_planted
from tests.bottleneck.plants import PLANTS, Plant

# What the other plants are short of in the end: an exhausted host is no stage of the service, and
# a slow Postgres is one of pool, locks and log.
UNPLANTED = {"host", "ledger"}


@pytest.mark.campaign
@pytest.mark.skipif(shutil.which("prometheus") is None, reason="no prometheus on PATH")
@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.name)
def test_what_is_planted_is_named(plant: Plant, tmp_path: Path) -> None:
    found = run_planted(plant, tmp_path)
    assert found.limit == plant.stage, f"{found.headline}. {found.explanation}"


def test_every_stage_has_a_plant() -> None:
    planted = {plant.stage for plant in PLANTS}
    assert planted == {stage.name for stage in STAGES} - UNPLANTED | {None}
