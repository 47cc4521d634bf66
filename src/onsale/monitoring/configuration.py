"""The files of `monitoring/`, with the addresses of the composition replaced by given ones."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from onsale.resources import project_folder

Targets = Mapping[str, Sequence[str]]


def prometheus_files(
    targets: Targets, alertmanagers: Sequence[str] = (), scrape_seconds: int | None = None
) -> dict[str, str]:
    """`prometheus.yml`, its rules and the runbooks that they link to by relative path, scraping
    `targets` by the name of the job.

    A job of the shipped file that has no targets is left out; one that is not in it is a mistake,
    and raises `KeyError`. `scrape_seconds` replaces the shipped interval: a load test of ten
    seconds has two points at that.
    """
    folder = project_folder("monitoring") / "prometheus"
    config: dict[str, Any] = yaml.safe_load((folder / "prometheus.yml").read_text("utf-8"))
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    for name, addresses in targets.items():
        jobs[name]["static_configs"] = [{"targets": list(addresses)}]
    config["scrape_configs"] = [job for name, job in jobs.items() if targets.get(name)]
    config["alerting"]["alertmanagers"] = [{"static_configs": [{"targets": list(alertmanagers)}]}]
    if scrape_seconds is not None:
        intervals = ("scrape_interval", "scrape_timeout", "evaluation_interval")
        config["global"] |= dict.fromkeys(intervals, f"{scrape_seconds}s")
    rules = sorted((folder / "rules").glob("*.yml"))
    runbooks = sorted((project_folder("docs") / "runbooks").glob("*.md"))
    return (
        {"prometheus.yml": yaml.safe_dump(config, sort_keys=False)}
        | {f"rules/{path.name}": path.read_text("utf-8") for path in rules}
        | {f"assets/runbooks/{path.name}": path.read_text("utf-8") for path in runbooks}
    )


def alertmanager_files() -> dict[str, str]:
    """`alertmanager.yml`, as it is shipped."""
    return {"alertmanager.yml": _read("alertmanager/alertmanager.yml")}


def grafana_files(prometheus_url: str, dashboards: str) -> dict[str, str]:
    """Grafana's provisioning, and the dashboards for it to find in the folder `dashboards`."""
    sources = yaml.safe_load(_read("grafana/provisioning/datasources/prometheus.yml"))
    sources["datasources"][0]["url"] = prometheus_url
    # They lead to Tempo, which is a container's.
    del sources["datasources"][0]["jsonData"]["exemplarTraceIdDestinations"]
    providers = yaml.safe_load(_read("grafana/provisioning/dashboards/onsale.yml"))
    providers["providers"][0]["options"]["path"] = dashboards
    shipped = sorted((project_folder("monitoring") / "grafana/dashboards").glob("*.json"))
    return {
        "provisioning/datasources/prometheus.yml": yaml.safe_dump(sources),
        "provisioning/dashboards/onsale.yml": yaml.safe_dump(providers),
    } | {f"dashboards/{path.name}": path.read_text("utf-8") for path in shipped}


def postgres_queries() -> str:
    """What the Postgres exporter asks."""
    return _read("postgres/queries.yml")


def _read(name: str) -> str:
    return (project_folder("monitoring") / name).read_text("utf-8")
