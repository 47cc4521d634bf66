"""The composition keeps the service's promises, and names nothing that does not exist.

Each promise is a small function that yields its violations; `test_each_promise_can_be_broken`
breaks them one at a time.
"""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from onsale.settings import Settings

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")

SECRET = "${ONSALE_AUTH_SECRET:?put ONSALE_AUTH_SECRET into .env, made by: openssl rand -hex 32}"

Compose = dict[str, Any]

MONITORING = {
    "prometheus",
    "alertmanager",
    "grafana",
    "loki",
    "alloy",
    "postgres-exporter",
    "redis-exporter",
    "node-exporter",
    "cadvisor",
}
TRACING = {"tempo"}
SERVICES = {"api", "worker", "migrate", "postgres", "redis", "k6"} | MONITORING | TRACING
# They end when their work is done; all others run until they are stopped.
JOBS = {"migrate", "k6"}
# Everything else is for this machine only.
PUBLIC = {"api"}
SECRET_NAME = re.compile(r"SECRET|PASSWORD|TOKEN|PRIVATE|CREDENTIAL")
# `${NAME:?how to make one}`: refuses to start without, and says what to do.
REQUIRED = r"\$\{\w+:\?[^}]*openssl rand[^}]*\}"
# The password in a URL: user:password@host.
URL_PASSWORD = re.compile(r"://[^/\s:@]+:(?P<password>(?:\$\{[^}]*\}|[^@\s])+)@")


def long_running(compose: Compose) -> dict[str, Any]:
    """The services that are no jobs."""
    return {name: s for name, s in compose["services"].items() if name not in JOBS}


def services_are_all_there(compose: Compose) -> Iterator[str]:
    """The list of the contract, with the extras behind a profile."""
    for name in SERVICES ^ compose["services"].keys():
        yield f"missing or unexpected: {name}"
    profiles = {n: s["profiles"] for n, s in compose["services"].items() if "profiles" in s}
    behind = {"k6": {"k6"}, "monitoring": MONITORING, "tracing": TRACING}
    if profiles != {name: [profile] for profile, names in behind.items() for name in names}:
        yield f"profiles: {profiles}"


def settings_exist(compose: Compose) -> Iterator[str]:
    """Every ONSALE_ variable is a setting, and its value one that the setting takes."""
    for name, service in compose["services"].items():
        for variable, value in service.get("environment", {}).items():
            field = variable.removeprefix("ONSALE_").lower()
            if not variable.startswith("ONSALE_"):
                continue
            if field not in Settings.model_fields:
                yield f"no setting {variable}: {name}"
                continue
            given = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value)
            try:
                Settings.model_validate({field: re.sub(r"\$\{[^}]*\}", "x" * 64, given)})
            except ValueError as error:
                yield f"a bad value of {variable}: {error}"


def no_secret_is_written_down(compose: Compose) -> Iterator[str]:
    """Secrets come from outside, and their absence says how to make one."""
    for name, service in compose["services"].items():
        for variable, value in service.get("environment", {}).items():
            if SECRET_NAME.search(variable) and not re.fullmatch(REQUIRED, value):
                yield f"a secret in the file: {name} {variable}"
    for match in URL_PASSWORD.finditer(yaml.safe_dump(compose, width=10_000)):
        if not re.fullmatch(REQUIRED, match["password"]):
            yield f"a password in a URL: {match[0]}"


def images_are_pinned(compose: Compose) -> Iterator[str]:
    """The stores as the contract has them, everything else at one release."""
    for name, exact in {"postgres": "postgres:18", "redis": "redis:8"}.items():
        if compose["services"][name]["image"] != exact:
            yield f"not pinned to {exact}: {name}"
    for name, service in compose["services"].items():
        if "build" not in service and not re.search(r":v?\d+(\.\d+)*(-alpine)?$", service["image"]):
            yield f"not pinned: {name}"


def ports_are_private(compose: Compose) -> Iterator[str]:
    """Stores and dashboards listen on this machine only; the API on the port of its settings."""
    for name, service in compose["services"].items():
        for mapping in service.get("ports", []):
            if name not in PUBLIC and not mapping.startswith("127.0.0.1:"):
                yield f"open to the network: {name} {mapping}"
    port = Settings.model_fields["port"].default
    if compose["services"]["api"]["ports"] != [f"{port}:{port}"]:
        yield "the API is not where its settings say"


def every_service_is_looked_after(compose: Compose) -> Iterator[str]:
    """Restarted when it falls, known to be well, and bounded in CPU, memory and logs."""
    for name, service in compose["services"].items():
        limits = service.get("deploy", {}).get("resources", {}).get("limits", {})
        if not {"cpus", "memory"} <= limits.keys():
            yield f"unbounded: {name}"
        elif float(limits["cpus"]) > 2:
            yield f"more cores than the reference machine has: {name}"
        if service.get("logging") != {"driver": "local"}:
            yield f"logs that fill the disk: {name}"
        if service.get("restart") != ("no" if name in JOBS else "unless-stopped"):
            yield f"restart policy: {name}"
    for name, service in long_running(compose).items():
        inherits = service.get("build", {}).get("target") == "runtime"
        if not service.get("healthcheck", {}).get("test") and not (inherits and name == "api"):
            yield f"no healthcheck: {name}"
    if compose["services"]["api"]["ulimits"]["nofile"]["soft"] < 10_000:
        yield "too few descriptors for the crowd: api"


def worker_is_checked_where_it_reports(compose: Compose) -> Iterator[str]:
    """The worker's healthcheck asks its metrics port."""
    port = Settings.model_fields["worker_metrics_port"].default
    if f"'127.0.0.1', {port}," not in compose["services"]["worker"]["healthcheck"]["test"][-1]:
        yield "the worker is checked on another port than it has"


def nothing_starts_before_the_migration(compose: Compose) -> Iterator[str]:
    """The service finds its tables and both stores."""
    for name in ("api", "worker"):
        waits = {d: c["condition"] for d, c in compose["services"][name]["depends_on"].items()}
        if waits.get("migrate") != "service_completed_successfully":
            yield f"does not wait for the migration: {name}"
        if {waits.get("postgres"), waits.get("redis")} != {"service_healthy"}:
            yield f"does not wait for the stores: {name}"
    if compose["services"]["migrate"]["depends_on"] != {
        "postgres": {"condition": "service_healthy"}
    }:
        yield "the migration does not wait for its server"


def stores_keep_what_they_are_told(compose: Compose) -> Iterator[str]:
    """Data on volumes where the images keep it; Redis evicts nothing and writes its file."""
    services = compose["services"]
    if "postgres-data:/var/lib/postgresql" not in services["postgres"]["volumes"]:
        yield "postgres:18 keeps its data below /var/lib/postgresql"
    if services["redis"]["volumes"] != ["redis-data:/data"]:
        yield "redis keeps its data in /data"
    command = " ".join(services["redis"]["command"])
    for option in (
        "--appendonly yes",
        "--appendfsync everysec",
        "--maxmemory-policy noeviction",
        "--hash-max-listpack-entries 32",
    ):
        if option not in command:
            yield f"redis without {option}"


def volumes_exist(compose: Compose) -> Iterator[str]:
    """Every mounted file is in the checkout, every named volume is declared."""
    for name, service in compose["services"].items():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("."):
                if not (ROOT / source).exists():
                    yield f"no such file: {name} {source}"
                if not volume.endswith(":ro"):
                    yield f"writes into the checkout: {name} {source}"
            elif source.startswith("/"):
                if "ro" not in volume.split(":")[-1].split(","):
                    yield f"writes to the host: {name} {source}"
            elif source not in compose["volumes"]:
                yield f"no such volume: {name} {source}"


PROMISES: list[Callable[[Compose], Iterator[str]]] = [
    settings_exist,
    no_secret_is_written_down,
    images_are_pinned,
    ports_are_private,
    every_service_is_looked_after,
    worker_is_checked_where_it_reports,
    nothing_starts_before_the_migration,
    stores_keep_what_they_are_told,
    volumes_exist,
]


def violations(text: str) -> list[str]:
    """Every broken promise of a composition; of one without its services, only that."""
    compose = yaml.safe_load(text)
    missing = list(services_are_all_there(compose))
    return missing or [violation for promise in PROMISES for violation in promise(compose)]


def test_every_promise_is_kept() -> None:
    assert violations(TEXT) == []


@pytest.mark.parametrize(
    ("old", "new", "violation"),
    [
        ("  migrate:\n    <<", "  migration:\n    <<", "unexpected"),
        ("profiles: [k6]", "profiles: [load]", "profiles"),
        ("ONSALE_REDIS_URL:", "ONSALE_GATE_URL:", "no setting ONSALE_GATE_URL"),
        ("profiles: [tracing]", "profiles: [monitoring]", "profiles"),
        ("SHARE:-0.01", "SHARE:-1%", "a bad value of ONSALE_TRACING_SAMPLE_SHARE"),
        ("ONSALE_REDIS_URL: redis", "ONSALE_PORT: redis", "a bad value of ONSALE_PORT"),
        (
            f'"{SECRET}"',
            "0123456789abcdef0123456789abcdef",
            "a secret in the file",
        ),
        ("${ONSALE_AUTH_SECRET:?put", "${ONSALE_AUTH_SECRET:-put", "a secret in the file"),
        (
            f"{SECRET.replace('ONSALE_AUTH_SECRET', 'POSTGRES_PASSWORD')}@",
            "hunter2@",
            "a password in a URL",
        ),
        ("postgres:18", "postgres:17", "not pinned to postgres:18"),
        ("redis:8\n", "redis:latest\n", "not pinned to redis:8"),
        ("grafana/grafana:12.4.0", "grafana/grafana:latest", "not pinned: grafana"),
        ("grafana/grafana:12.4.0", "grafana/grafana", "not pinned: grafana"),
        ('"127.0.0.1:5432:5432"', '"5432:5432"', "open to the network: postgres"),
        ('"8000:8000"', '"8000:8001"', "not where its settings say"),
        ('limits: {cpus: "2", memory: 2G}', 'limits: {cpus: "2"}', "unbounded: k6"),
        ('limits: {cpus: "2", memory: 2G}', 'limits: {cpus: "4", memory: 2G}', "more cores"),
        ("driver: local", "driver: json-file", "fill the disk"),
        ("restart: unless-stopped", "restart: always", "restart policy: api"),
        ('restart: "no"', "restart: unless-stopped", "restart policy: migrate"),
        ("test: [CMD, promtool", "tests: [CMD, promtool", "no healthcheck: prometheus"),
        ("target: runtime", "target: base", "no healthcheck: api"),
        ("nofile: {soft: 65536", "nofile: {soft: 1024", "too few descriptors"),
        ("'127.0.0.1', 9200", "'127.0.0.1', 9100", "checked on another port"),
        ("service_completed_successfully", "service_started", "wait for the migration: api"),
        ("redis: {condition: service_healthy}", "redis: {condition: service_started}", "stores"),
        (
            "postgres: {condition: service_healthy}\n    restart",
            "postgres: {condition: service_started}\n    restart",
            "its server",
        ),
        ("/var/lib/postgresql", "/var/lib/postgresql/data", "keeps its data below"),
        ("redis-data:/data", "redis-data:/var/lib/redis", "in /data"),
        ("noeviction,", "allkeys-lru,", "redis without"),
        ("./monitoring/prometheus:", "./monitoring/prometheux:", "no such file"),
        ("/etc/prometheus:ro", "/etc/prometheus", "writes into the checkout"),
        ("/:/host:ro,rslave", "/:/host:rslave", "writes to the host"),
        ("\n  redis-data:\n", "\n", "no such volume: redis redis-data"),
    ],
)
def test_each_promise_can_be_broken(old: str, new: str, violation: str) -> None:
    assert old in TEXT
    assert any(violation in found for found in violations(TEXT.replace(old, new)))


def own_commands(compose: Compose) -> list[list[str]]:
    """What the services built from this checkout run."""
    return [s["command"] for s in compose["services"].values() if "build" in s]


def understood(command: list[str]) -> bool:
    """Whether the command line knows this command and its options; it runs nothing."""
    program, *arguments = command
    assert program == "onsale"
    run = subprocess.run(
        [sys.executable, "-m", "onsale", *arguments, "--help"],
        capture_output=True,
        timeout=60,
        check=False,
    )
    return run.returncode == 0


@pytest.mark.parametrize("command", own_commands(yaml.safe_load(TEXT)), ids=" ".join)
def test_every_command_exists(command: list[str]) -> None:
    assert understood(command)


@pytest.mark.parametrize("command", [["onsale", "sell"], ["onsale", "serve", "--wrokers", "2"]])
def test_a_command_that_does_not_exist_is_noticed(command: list[str]) -> None:
    assert not understood(command)
