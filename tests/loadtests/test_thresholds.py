"""The scenarios against a service that is right, and at each fault one that is not.

Real k6 against a real server: green where nothing is wrong, red for the right reason otherwise.
"""

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from onsale.embedded import free_port
from onsale.loadtests import SCENARIOS, LoadResult, LoadTestError, Progress, run_k6
from tests.loadtests.counterfeit import AUTH_SECRET, EVENT_ID, TIER_IDS, Counterfeit, Fault, serving

# Whether a busy machine answers in half a second is not what these tests are about.
PATIENT = {"LATENCY_P95_MS_MAX": "10000", "LATENCY_P99_MS_MAX": "10000"}
ROUTES = {
    "POST /v1/events/{event_id}/orders",
    "POST /v1/events/{event_id}/orders/{order_id}/payment",
    "DELETE /v1/events/{event_id}/orders/{order_id}",
}
# What has to fail, and nothing else, in a flash sale on 20 tickets at each fault.
RED = {
    Fault.OVERSELLS: {"tickets_taken: count==20"},
    Fault.UNDERSELLS: {"tickets_taken: count==20"},
    Fault.IS_ABSENT: {
        "buyers_served: rate>=0.995",
        "http_req_failed: rate<=0.005",
        "outcome_unexpected: count==0",
        "tickets_taken: count==20",
    },
    Fault.FORGETS_KEYS: {"duplicate_orders: count==0"},
    Fault.STUMBLES: {"buyers_served: rate>=0.995", "http_req_failed: rate<=0.005"},
    Fault.ANSWERS_PLAINLY: {"buyers_served: rate>=0.995", "outcome_unexpected: count==0"},
}


def run(
    name: str,
    report_dir: Path,
    *,
    fault: Fault = Fault.NONE,
    stock: int = 20,
    buyers: int = 60,
    seconds: int = 1,
    env: Mapping[str, str] = PATIENT,
) -> tuple[LoadResult, int]:
    """Run a scenario against a fresh counterfeit; returns the result and what it sold."""
    service = Counterfeit(stock=stock, payment=SCENARIOS[name].payment, fault=fault)
    with serving(service) as base_url:
        result = run_k6(
            SCENARIOS[name],
            base_url=base_url,
            event_id=EVENT_ID,
            tier_ids=TIER_IDS,
            auth_secret=AUTH_SECRET,
            stock=stock,
            buyers=buyers,
            seconds=seconds,
            report_dir=report_dir,
            env=env,
        )
    return result, service.sold


def failed(result: LoadResult) -> set[str]:
    return {rule for rule, held in result.thresholds.items() if not held}


def test_a_right_service_passes_and_the_result_says_what_happened(tmp_path: Path) -> None:
    # k6 writes its report from two samples on, one a second.
    samples = tmp_path / "samples.json"
    result, sold = run(
        "flash_sale", tmp_path, seconds=3, env=PATIENT | {"K6_OUT": f"json={samples}"}
    )

    assert failed(result) == set()
    assert result.thresholds_passed
    assert result.k6_exit_code == 0
    assert sold == 20
    assert result.outcomes["confirmed"] == 20
    assert set(result.outcomes) == {"confirmed", "replayed", "sold_out"}
    assert sum(result.outcomes.values()) == result.requests
    assert result.iterations == 60
    assert result.dropped_iterations == 0
    assert result.duplicates > 0
    assert 0 < result.latency_ms["p50"] <= result.latency_ms["p95"] <= result.latency_ms["p99"]
    assert 0 < result.arrival_rate < result.answer_rate
    assert result.k6_cpu_seconds > 0
    assert result.report == tmp_path / "report.html"
    assert result.report.stat().st_size > 0
    assert result.run.buyers == 60
    assert result.run.began_at < result.run.ended_at
    assert phases(samples, result.run.testid) == ["opening", "rush", "tail"]


def phases(samples: Path, testid: str) -> list[str]:
    """The phases of a run in the order in which they were told first."""
    points = [json.loads(line) for line in samples.read_text().splitlines()]
    told = [
        point["data"]["tags"]
        for point in points
        if point["type"] == "Point" and point["metric"] == "phase"
    ]
    assert {tags["testid"] for tags in told} == {testid}
    return list(dict.fromkeys(tags["phase"] for tags in told))


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[Fault, LoadResult]:
    """A small flash sale at each fault, all at once: they mostly wait for their second to pass."""

    def result_at(fault: Fault) -> LoadResult:
        return run("flash_sale", tmp_path_factory.mktemp(fault.name), fault=fault)[0]

    with ThreadPoolExecutor() as pool:
        return dict(zip(RED, pool.map(result_at, RED), strict=True))


@pytest.mark.parametrize("fault", RED, ids=lambda fault: fault.name)
def test_a_fault_turns_its_thresholds_red(results: dict[Fault, LoadResult], fault: Fault) -> None:
    assert failed(results[fault]) == RED[fault]
    assert not results[fault].thresholds_passed


def test_a_slow_service_is_not_good_enough_by_default(tmp_path: Path) -> None:
    result, sold = run("flash_sale", tmp_path, fault=Fault.IS_SLOW, env={})

    assert "http_req_duration{name:POST /v1/events/{event_id}/orders}: p(95)<500" in failed(result)
    assert sold == 20  # slow, and right


def test_a_service_that_is_down_fails_and_is_not_called_unexpected(tmp_path: Path) -> None:
    result = run_k6(
        SCENARIOS["flash_sale"],
        base_url=f"http://127.0.0.1:{free_port()}",
        event_id=EVENT_ID,
        tier_ids=TIER_IDS,
        auth_secret=AUTH_SECRET,
        stock=5,
        buyers=20,
        seconds=1,
        report_dir=tmp_path,
    )

    assert set(result.outcomes) == {"no_answer"}
    assert result.answer_rate == 0
    assert "buyers_served: rate>=0.995" in failed(result)


def test_checkout_sells_what_is_given_back_and_no_more(tmp_path: Path) -> None:
    samples = tmp_path / "samples.json"
    env = PATIENT | {"K6_OUT": f"json={samples}"}
    result, sold = run("checkout", tmp_path, stock=30, env=env)

    assert failed(result) == set()
    assert sold == result.outcomes["confirmed"] <= 30
    assert result.outcomes["held"] > 30
    assert result.outcomes["released"] == result.outcomes["held"] - sold
    assert result.outcomes["declined"] > 0
    assert_tags_are_bounded(samples)


def assert_tags_are_bounded(samples: Path) -> None:
    lines = map(json.loads, samples.read_text().splitlines())
    points = [line for line in lines if line["type"] == "Point"]
    tags = [point["data"]["tags"] for point in points if point["metric"] == "http_reqs"]
    assert {tag["name"] for tag in tags} == ROUTES
    assert not any({"url", "ip", "error"} & set(tag) for tag in tags)


def test_retries_with_the_same_key_get_every_buyer_served(tmp_path: Path) -> None:
    result, sold = run("retry_storm", tmp_path, fault=Fault.STUMBLES)

    assert failed(result) == set()
    assert sold == result.outcomes["confirmed"] == 20
    # Asked again later, the key of each winner leads to the order, sold out or not.
    assert result.outcomes["replayed"] >= 20
    assert result.outcomes["overloaded"] > 0


def test_a_winner_who_asks_again_after_the_sell_out_must_get_the_order(tmp_path: Path) -> None:
    result, _ = run("retry_storm", tmp_path, fault=Fault.FORGETS_ONCE_SOLD_OUT)

    assert "checks: rate==1" in failed(result)


def test_stress_ends_where_the_service_bends(tmp_path: Path) -> None:
    result, _ = run("stress", tmp_path, fault=Fault.IS_SLOW, stock=500, seconds=20, env={})

    assert not result.thresholds_passed
    assert result.duration_seconds < 20
    assert result.iterations < 60


def test_progress_is_told_and_an_interruption_ends_k6_in_order(tmp_path: Path) -> None:
    seen: list[Progress] = []

    def interrupt(progress: Progress) -> None:
        seen.append(progress)
        if progress.requests > 0:
            raise KeyboardInterrupt

    service = Counterfeit(stock=1000, payment="none", fault=Fault.NONE)
    with serving(service) as base_url, pytest.raises(KeyboardInterrupt):
        run_k6(
            SCENARIOS["flash_sale"],
            base_url=base_url,
            event_id=EVENT_ID,
            tier_ids=TIER_IDS,
            auth_secret=AUTH_SECRET,
            stock=1000,
            buyers=3000,
            seconds=60,
            report_dir=tmp_path,
            on_progress=interrupt,
        )

    assert seen[-1].buyers > 0
    assert seen[-1].outcomes["confirmed"] > 0
    assert (tmp_path / "summary.json").exists()  # k6 summed up before it went


def test_a_run_that_cannot_start_says_why_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(LoadTestError) as raised:
        run("flash_sale", tmp_path, buyers=0)

    message = str(raised.value)
    assert "BUYERS has to be a whole number >= 1" in message
    assert str(tmp_path / "k6.log") in message
    assert "\n" not in message
