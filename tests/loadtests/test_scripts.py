"""Rules that every scenario keeps, as k6 itself reads them."""

import json
import os
import re
import subprocess
from typing import Any

import pytest

from onsale.embedded import find_k6
from onsale.loadtests import SCENARIOS, scripts_dir
from onsale.loadtests.runner import PROGRESS_OUTCOMES

OPEN_MODEL = {"constant-arrival-rate", "ramping-arrival-rate"}
SETTINGS = {
    "BASE_URL": "http://127.0.0.1:1",
    "EVENT_ID": "ev-1",
    "TIER_IDS": "floor",
    "ONSALE_AUTH_SECRET": "s",
    "STOCK": "10",
    "BUYERS": "100",
    "DURATION_SECONDS": "5",
    "RUN_ID": "r",
}


def options_of(name: str) -> dict[str, Any]:
    script = scripts_dir() / "scenarios" / f"{name}.js"
    argv = [str(find_k6()), "inspect", "--include-system-env-vars", str(script)]
    shown = subprocess.run(argv, env=os.environ | SETTINGS, capture_output=True, check=True)
    options: dict[str, Any] = json.loads(shown.stdout)
    return options


def test_every_script_is_a_scenario() -> None:
    assert {path.stem for path in scripts_dir().glob("scenarios/*.js")} == set(SCENARIOS)


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenarios_are_open_model_and_judge_service_speed_and_truth(name: str) -> None:
    options = options_of(name)

    assert {each["executor"] for each in options["scenarios"].values()} <= OPEN_MODEL
    assert {
        "buyers",
        "buyers_served",
        "checks",
        "dropped_iterations",
        "duplicate_orders",
        "http_req_duration{name:POST /v1/events/{event_id}/orders}",
        "http_req_failed",
        "outcome_unexpected",
        "tickets_taken",
    } <= set(options["thresholds"])
    assert {"p(50)", "p(95)", "p(99)"} <= set(options["summaryTrendStats"])
    assert "name" in options["systemTags"]
    assert not {"url", "ip", "error", "vu", "iter"} & set(options["systemTags"])


def test_every_request_has_a_name() -> None:
    """Each call of k6's http takes its options from `params`, which cannot be had without one."""
    for script in scripts_dir().rglob("*.js"):
        for call in re.findall(r"http\.(?:get|post|put|patch|del|request)\(.*", script.read_text()):
            assert "params(" in call or "options" in call, f"{script.name}: {call}"


def test_the_environment_is_read_in_one_place_and_documented() -> None:
    scripts = {path.name: path.read_text() for path in scripts_dir().rglob("*.js")}
    config = scripts.pop("config.js")
    assert [name for name, text in scripts.items() if "__ENV" in text] == []

    read = set(re.findall(r"(?:required|number|whole|share)\('([A-Z0-9_]+)'", config))
    read |= set(re.findall(r"__ENV\.([A-Z0-9_]+)", config))
    readme = (scripts_dir() / "README.md").read_text()
    assert set(re.findall(r"^\| `([A-Z0-9_]+)` \|", readme, re.MULTILINE)) == read


def test_the_outcomes_shown_while_running_exist() -> None:
    outcomes = (scripts_dir() / "lib" / "outcomes.js").read_text()
    assert all(f"'{outcome}'" in outcomes for outcome in PROGRESS_OUTCOMES)
