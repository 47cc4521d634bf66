"""What breaks is told in time. About half a minute a kill: `uv run pytest -m campaign`.

`uv run python -m monitoring.detection` prints the same as a table.
"""

import shutil
from pathlib import Path

import pytest

from monitoring.detection import DETECTION_SECONDS_MAX, KILLS, Kill, measure
from tests.monitoring.test_runbooks import rules

pytestmark = pytest.mark.skipif(
    shutil.which("prometheus-alertmanager") is None, reason="no Alertmanager on PATH"
)


@pytest.mark.campaign
@pytest.mark.parametrize("kill", KILLS, ids=lambda kill: kill.name)
def test_a_kill_is_told_in_time(kill: Kill, tmp_path: Path) -> None:
    found = measure(kill, tmp_path)
    assert found.well, f"{kill.alert} after {found.seconds} s; {DETECTION_SECONDS_MAX:g} s at most"


def test_every_kill_has_its_alert() -> None:
    assert {kill.alert for kill in KILLS} <= {rule["alert"] for rule in rules("alert")}
