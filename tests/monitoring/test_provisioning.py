"""Prometheus and Grafana are pointed at what the composition and the settings really have."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from onsale.embedded import Monitor, NodeExporter, PostgresExporter, Prometheus
from onsale.settings import Settings

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "monitoring/prometheus/prometheus.yml"
GRAFANA = ROOT / "monitoring/grafana"
TEXTS = {
    "compose": (ROOT / "docker-compose.yml").read_text(encoding="utf-8"),
    "prometheus": PROMETHEUS.read_text(encoding="utf-8"),
    "datasource": (GRAFANA / "provisioning/datasources/prometheus.yml").read_text(encoding="utf-8"),
    "others": (GRAFANA / "provisioning/datasources/others.yml").read_text(encoding="utf-8"),
    "tempo": (ROOT / "monitoring/tempo/tempo.yml").read_text(encoding="utf-8"),
    "dashboards": (GRAFANA / "provisioning/dashboards/onsale.yml").read_text(encoding="utf-8"),
}
Documents = dict[str, Any]


def expected_targets(compose: dict[str, Any]) -> dict[str, list[str]]:
    """The address of every process that reports metrics, by scrape job."""
    api, worker = (
        Settings.model_fields[f].default for f in ("metrics_port", "worker_metrics_port")
    )
    command = compose["services"]["api"]["command"]
    workers = int(command[command.index("--workers") + 1])
    return {
        "onsale-api": [f"api:{api + number}" for number in range(workers)],
        "onsale-worker": [f"worker:{worker}"],
        "prometheus": ["localhost:9090"],
    } | {
        job: [f"{service}:{port}"]
        for job, service, port in (
            ("postgres", "postgres-exporter", 9187),
            ("redis", "redis-exporter", 9121),
            ("node", "node-exporter", 9100),
            ("cadvisor", "cadvisor", 8080),
            ("alertmanager", "alertmanager", 9093),
        )
    }


def mounted(compose: dict[str, Any], service: str, path: str) -> Path:
    """The file of the checkout that a container sees at `path`; fails when there is none."""
    for volume in compose["services"][service]["volumes"]:
        source, target = str(volume).split(":")[:2]
        if source.startswith("./") and Path(path).is_relative_to(target):
            return ROOT / source / Path(path).relative_to(target)
    raise AssertionError(f"{service} sees nothing at {path}")


def scrape_faults(documents: Documents) -> Iterator[str]:
    """What Prometheus would not see, or would look for in vain."""
    prometheus = documents["prometheus"]
    targets = {
        job["job_name"]: [t for config in job["static_configs"] for t in config["targets"]]
        for job in prometheus["scrape_configs"]
    }
    if targets != expected_targets(documents["compose"]):
        yield f"the targets are not the processes: {targets}"
    if prometheus["global"]["scrape_interval"] not in {f"{seconds}s" for seconds in range(1, 6)}:
        yield "a scrape interval that hides a spike"
    for pattern in prometheus.get("rule_files", []):
        if not list(PROMETHEUS.parent.glob(pattern)):
            yield f"no such rules: {pattern}"


def grafana_faults(documents: Documents) -> Iterator[str]:
    """What Grafana would not find."""
    compose, (source,) = documents["compose"], documents["datasource"]["datasources"]
    address = urlsplit(source["url"])
    port = f":{address.port}:{address.port}"
    published = compose["services"].get(address.hostname, {}).get("ports", [])
    if not any(mapping.endswith(port) for mapping in published):
        yield f"no service at {source['url']}"
    if source["jsonData"]["timeInterval"] != documents["prometheus"]["global"]["scrape_interval"]:
        yield "the rate interval does not fit the scrape interval"
    (provider,) = documents["dashboards"]["providers"]
    if not list(mounted(compose, "grafana", provider["options"]["path"]).glob("*.json")):
        yield "no dashboards where they are looked for"
    home = compose["services"]["grafana"]["environment"][
        "GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"
    ]
    if not mounted(compose, "grafana", home).is_file():
        yield "no home dashboard"
    for other in documents["others"]["datasources"]:
        if urlsplit(other["url"]).hostname not in compose["services"]:
            yield f"no service at {other['url']}"
    for name in ("datasources/prometheus.yml", "datasources/others.yml", "dashboards/onsale.yml"):
        if not mounted(compose, "grafana", f"/etc/grafana/provisioning/{name}").is_file():
            yield f"Grafana does not see {name}"


def tracing_faults(documents: Documents) -> Iterator[str]:
    """Where the way of a trace breaks: from the service to Tempo, from a point or a line to it."""
    tempo = documents["tempo"]
    receiver = tempo["distributor"]["receivers"]["otlp"]["protocols"]["http"]["endpoint"]
    if f"http://tempo:{receiver.rpartition(':')[2]}" not in TEXTS["compose"]:
        yield "Tempo does not listen where the composition's head says"
    sources = {source["uid"]: source for source in documents["others"]["datasources"]}
    if urlsplit(sources["tempo"]["url"]).port != tempo["server"]["http_listen_port"]:
        yield "Grafana asks Tempo elsewhere"
    (prometheus,) = documents["datasource"]["datasources"]
    ways = {
        "exemplars": prometheus["jsonData"]["exemplarTraceIdDestinations"],
        "lines": sources["loki"]["jsonData"]["derivedFields"],
    }
    for name, (way,) in ways.items():
        if (way["name"], way["datasourceUid"]) != ("trace_id", "tempo"):
            yield f"{name} do not lead to Tempo"
    if sources["tempo"]["jsonData"]["tracesToLogsV2"]["datasourceUid"] != "loki":
        yield "traces do not lead to their lines"


# What depends on where a program runs and not on what it is to do.
PLACES = (
    "--web.listen-address=",
    "--web.external-url=",
    "--web.user-assets=",
    "--config.file=",
    "--storage.tsdb.path=",
    "--extend.query-path=",
)


def native_faults(documents: Documents) -> Iterator[str]:
    """What runs otherwise in the composition than by `onsale monitor`."""
    nowhere = Path("nowhere")
    natively: dict[str, Monitor] = {
        "prometheus": Prometheus(nowhere),
        "node-exporter": NodeExporter(nowhere),
        "postgres-exporter": PostgresExporter(nowhere, "postgresql://", queries=""),
    }
    for name, monitor in natively.items():
        wanted = {option for option in monitor.options() if not option.startswith(PLACES)}
        missing = wanted - set(documents["compose"]["services"][name]["command"])
        if missing:
            yield f"{name} runs without {missing}"


def mounts_faults(documents: Documents) -> Iterator[str]:
    """Configuration files that a container is told to read and does not see."""
    for name, service in documents["compose"]["services"].items():
        for word in service.get("command", []):
            path = word.rpartition("=")[2]
            if "/etc/" in path and not mounted(documents["compose"], name, path).is_file():
                yield f"{name} does not see {path}"


def runbooks_faults(documents: Documents) -> Iterator[str]:
    """Pages that alerts link to and Prometheus does not serve."""
    prometheus = documents["compose"]["services"]["prometheus"]
    option = "--web.user-assets="
    (assets,) = (word for word in prometheus["command"] if word.startswith(option))
    served = f"{assets.removeprefix(option)}/runbooks"
    if f"./docs/runbooks:{served}:ro" not in prometheus["volumes"]:
        yield f"no runbooks at {served}"


def faults(texts: dict[str, str]) -> list[str]:
    """Everything that does not fit; none when all is in order."""
    documents = {name: yaml.safe_load(text) for name, text in texts.items()}
    checks = (
        scrape_faults,
        grafana_faults,
        tracing_faults,
        native_faults,
        mounts_faults,
        runbooks_faults,
    )
    return [fault for check in checks for fault in check(documents)]


def test_everything_points_at_something() -> None:
    assert faults(TEXTS) == []


@pytest.mark.parametrize(
    ("file", "old", "new", "fault"),
    [
        ("prometheus", "api:9101", "api:9102", "not the processes"),
        ("prometheus", "worker:9200", "sweeper:9200", "not the processes"),
        ("compose", '--workers, "2"', '--workers, "3"', "not the processes"),
        ("prometheus", "scrape_interval: 5s", "scrape_interval: 15s", "hides a spike"),
        ("prometheus", "rules/*.yml", "rules/none*.yml", "rules"),
        ("others", "loki:3100", "logs:3100", "no service"),
        ("compose", "--collector.pressure", "--collector.wifi", "node-exporter runs without"),
        ("compose", ",exemplar-storage", "", "prometheus runs without"),
        ("compose", "/etc/tempo/tempo.yml", "/etc/tempo/local.yml", "tempo does not see"),
        ("tempo", ":4318", ":4317", "does not listen where"),
        ("tempo", "listen_port: 3200", "listen_port: 3100", "asks Tempo elsewhere"),
        ("others", "tempo:3200", "traces:3200", "no service"),
        ("others", "name: trace_id", "name: traceID", "lines do not lead"),
        ("datasource", "datasourceUid: tempo", "datasourceUid: jaeger", "exemplars do not lead"),
        ("compose", "/srv/runbooks", "/srv/books", "no runbooks"),
        ("compose", "/etc/loki/loki.yml", "/etc/loki/local.yml", "loki does not see"),
        ("datasource", "timeInterval: 5s", "timeInterval: 15s", "rate interval"),
        ("datasource", "prometheus:9090", "prometheus:9091", "no service"),
        ("dashboards", "/etc/grafana/dashboards", "/etc/grafana/provisioning", "no dashboards"),
        ("compose", "dashboards/flash-sale.json", "dashboards/flash.json", "no home"),
        (
            "compose",
            "./monitoring/grafana/provisioning:",
            "./monitoring/grafana:",
            "does not see",
        ),
    ],
)
def test_each_guard_can_fail(file: str, old: str, new: str, fault: str) -> None:
    assert old in TEXTS[file]
    texts = TEXTS | {file: TEXTS[file].replace(old, new)}
    assert any(fault in found for found in faults(texts))


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not on PATH")
@pytest.mark.parametrize(("old", "valid"), [("", True), ("scrape_timeout", False)])
def test_promtool_accepts_the_configuration(tmp_path: Path, old: str, valid: bool) -> None:
    # The second case is the guard's own test: a key that Prometheus does not know.
    path = tmp_path / "prometheus.yml"
    path.write_text(TEXTS["prometheus"].replace(old, "patience") if old else TEXTS["prometheus"])
    check = subprocess.run(
        ["promtool", "check", "config", path],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (check.returncode == 0) is valid, check.stderr
