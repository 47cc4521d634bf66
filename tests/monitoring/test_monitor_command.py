"""`onsale monitor` beside a running service: what it starts, says and leaves behind."""

import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from onsale.demo.stack import Stack
from onsale.embedded import free_port
from onsale.monitoring import Service
from tests.support import SECRET, wait_until

# As much of Grafana as `onsale monitor` relies on: where it listens, and its health.
GRAFANA = """#!/usr/bin/python3
import http.server, os, pathlib, sys
assert sys.argv[1] == "server", sys.argv
folder = pathlib.Path(os.environ["GF_PATHS_PROVISIONING"])
found = b"".join(path.read_bytes() for path in folder.rglob("*.yml"))
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(found)
    def log_message(self, *words):
        pass
address = os.environ["GF_SERVER_HTTP_ADDR"], int(os.environ["GF_SERVER_HTTP_PORT"])
http.server.HTTPServer(address, Answer).serve_forever()
"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The embedded service, as `onsale dev` runs it."""
    with Stack(tmp_path_factory.mktemp("dev") / "data", SECRET) as running:
        yield running


@contextmanager
def monitor(
    *options: str | Path, env: Mapping[str, str] | None = None
) -> Iterator["subprocess.Popen[str]"]:
    """The command, ended in any case."""
    ports = ("--prometheus-port", "0", "--alertmanager-port", "0", "--grafana-port", "0")
    command = [sys.executable, "-m", "onsale", "monitor", *ports, *options]
    with subprocess.Popen(
        command,
        env={**os.environ, **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


def said(process: "subprocess.Popen[str]", until: str = "Ctrl-C") -> str:
    """What it prints, up to and with a line."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if until in line:
            break
    return "".join(lines)


async def targets_up(prometheus_url: str) -> set[str]:
    async with httpx.AsyncClient(timeout=60) as client:
        answer = await client.get(f"{prometheus_url}/api/v1/query", params={"query": "up == 1"})
    return {line["metric"]["job"] for line in answer.json()["data"]["result"]}


async def test_it_watches_all_of_a_running_dev_and_leaves_nothing_behind(stack: Stack) -> None:
    with monitor("--data-dir", stack.data_dir) as process:
        text = said(process)
        url = re.search(r"Prometheus\s+(http://\S+)", text)
        assert url, text
        assert "Grafana is not installed" in text

        async def all_up() -> bool:
            assert url
            return await targets_up(url[1]) == {
                "onsale-api",
                "onsale-worker",
                "postgres",
                "redis",
                "node",
                "alertmanager",
                "prometheus",
            }

        await wait_until(all_up)
        children = psutil.Process(process.pid).children()
        assert len(children) == 5
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
    assert not [child for child in children if child.is_running()]


@pytest.fixture
def programs() -> Iterator[Path]:
    """A folder for PATH that the user of the servers can enter."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.skipif(not Path("/usr/bin/python3").exists(), reason="the stand-in needs it")
def test_grafana_is_used_where_it_is_installed(stack: Stack, programs: Path) -> None:
    (programs / "grafana").write_text(GRAFANA)
    (programs / "grafana").chmod(0o755)
    env = {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    with monitor("--data-dir", stack.data_dir, env=env) as process:
        text = said(process)
        grafana = re.search(r"Grafana\s+(http://\S+)", text)
        prometheus = re.search(r"Prometheus\s+(http://\S+)", text)
        assert grafana, text
        assert prometheus
        provisioned = httpx.get(grafana[1]).text
    assert prometheus[1] in provisioned
    assert "/dashboards" in provisioned
    assert list((stack.data_dir / "monitoring/grafana/data/dashboards").glob("*.json"))


def test_what_is_missing_is_named_with_its_command(stack: Stack, programs: Path) -> None:
    found = shutil.which("prometheus")
    assert found
    (programs / "prometheus").symlink_to(found)
    with monitor("--data-dir", stack.data_dir, env={"PATH": str(programs)}) as process:
        text = " ".join(said(process).split())
    assert "apt-get install prometheus-alertmanager" in text
    assert "prometheus-redis-exporter prometheus-postgres-exporter" in text
    (programs / "prometheus").unlink()
    with monitor("--data-dir", stack.data_dir, env={"PATH": str(programs)}) as process:
        assert "apt-get install prometheus" in said(process)
        assert process.wait(timeout=30) == 1


def test_a_port_that_is_taken_is_named(stack: Stack) -> None:
    with monitor("--data-dir", stack.data_dir, "--prometheus-port", str(stack.port)) as process:
        assert f"port {stack.port} is in use" in said(process, "in use")
        assert process.wait(timeout=30) == 1


def test_no_service_there_is_said(tmp_path: Path) -> None:
    with monitor("--data-dir", tmp_path) as process:
        assert "no `onsale dev` runs on" in said(process)
        assert process.wait(timeout=30) == 1


def test_a_running_service_is_found_by_its_owner_alone(tmp_path: Path) -> None:
    service = Service(["a:1"], ["b:2"], "postgresql+asyncpg://u:p@h/d", "redis://h")
    assert Service.running_on(tmp_path) is None
    service.remember(tmp_path)
    assert Service.running_on(tmp_path) == service
    (file,) = tmp_path.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    Service.forget(tmp_path)
    assert Service.running_on(tmp_path) is None


def test_serve_is_found_by_its_settings() -> None:
    from onsale.settings import Settings

    port = free_port()
    found = Service.of_settings(Settings(metrics_port=port, workers=2))
    assert found.api == [f"127.0.0.1:{port}", f"127.0.0.1:{port + 1}"]
