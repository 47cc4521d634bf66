"""Alertmanager tells the right people, once, and not of what follows from what they know."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from onsale.embedded import Alertmanager
from onsale.monitoring.configuration import alertmanager_files
from tests.monitoring.test_runbooks import rules
from tests.support import wait_until

CONFIG = Path(__file__).parents[2] / "monitoring/alertmanager/alertmanager.yml"
RECEIVERS = {"critical": "page", "warning": "chat", "info": "mail", "none": "alive"}

pytestmark = pytest.mark.skipif(shutil.which("amtool") is None, reason="no amtool on PATH")


def amtool(*words: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["amtool", *words], capture_output=True, text=True, timeout=30, check=False
    )


def test_amtool_accepts_the_configuration(tmp_path: Path) -> None:
    assert amtool("check-config", CONFIG).returncode == 0
    wrong = tmp_path / "alertmanager.yml"
    wrong.write_text(CONFIG.read_text("utf-8").replace("receiver: page", "receiver: pager"))
    assert amtool("check-config", wrong).returncode != 0


@pytest.mark.parametrize("alert", rules("alert"), ids=lambda rule: rule["alert"])
def test_every_alert_reaches_who_its_severity_says(alert: dict[str, Any]) -> None:
    labels = [f"{name}={value}" for name, value in alert["labels"].items()]
    routed = amtool(
        "config",
        "routes",
        "test",
        f"--config.file={CONFIG}",
        f"alertname={alert['alert']}",
        *labels,
    )
    assert routed.stdout.strip() == RECEIVERS[alert["labels"]["severity"]], routed.stderr


@pytest.fixture(scope="module")
def alertmanager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alertmanager]:
    folder = tmp_path_factory.mktemp("alertmanager") / "data"
    with Alertmanager(folder, files=alertmanager_files()) as server:
        yield server


async def inhibited(server: Alertmanager, *alerts: dict[str, str]) -> set[str]:
    """Send alerts; the names of those that Alertmanager keeps quiet because of the others."""
    async with httpx.AsyncClient(base_url=f"{server.url}/api/v2") as client:
        sent = await client.post("/alerts", json=[{"labels": labels} for labels in alerts])
        assert sent.status_code == 200
        found: list[dict[str, Any]] = []

        async def settled() -> bool:
            nonlocal found
            found = (await client.get("/alerts")).json()
            names = {alert["labels"]["alertname"] for alert in found}
            return names >= {labels["alertname"] for labels in alerts} and all(
                alert["status"]["state"] != "unprocessed" for alert in found
            )

        await wait_until(settled)
        return {alert["labels"]["alertname"] for alert in found if alert["status"]["inhibitedBy"]}


def labels_of(name: str, **more: str) -> dict[str, str]:
    """An alert's labels, by the committed rules."""
    rule = next(rule for rule in rules("alert") if rule["alert"] == name)
    return {"alertname": name, **rule["labels"], **more}


async def test_a_store_that_is_down_explains_its_symptoms(alertmanager: Alertmanager) -> None:
    """One test, for alerts that were sent stay."""
    slow, gate_only = labels_of("OnsaleP95High"), labels_of("GateLedgerOnly")
    cpu = labels_of("HostCpuSaturated", instance="node")
    assert await inhibited(alertmanager, slow, gate_only, cpu) == set()
    assert await inhibited(alertmanager, labels_of("RedisDown")) == {"GateLedgerOnly"}
    assert await inhibited(alertmanager, labels_of("PostgresDown")) == {
        "GateLedgerOnly",
        "OnsaleP95High",
    }


async def test_a_page_silences_the_warning_of_the_same(alertmanager: Alertmanager) -> None:
    disk = {"alertname": "HostDiskFull", "instance": "a", "severity": "warning"}
    other = {"alertname": "HostMemoryHigh", "instance": "a", "severity": "warning"}
    page = disk | {"severity": "critical"}
    found = await inhibited(alertmanager, disk, other, page)
    assert "HostDiskFull" in found
    assert "HostMemoryHigh" not in found
