"""One direction of imports, and what each room may not know: the contracts in pyproject.toml."""

import os
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import grimp
import pytest

PROJECT = Path(__file__).parent.parent
PACKAGE = Path(str(files("onsale")))

LINT = "from importlinter.cli import lint_imports_command; lint_imports_command()"
ONE_DIRECTION = "One direction of imports, top to bottom"

# A line that nobody should write, where it stands, and the contract that forbids it.
BREACHES = [
    ("domain/ids.py", "import redis", "The domain is pure"),
    ("domain/tier.py", "import asyncio", "The domain is pure"),
    ("domain/tier.py", "from onsale import settings", ONE_DIRECTION),
    ("gate/keys.py", "from onsale.ledger import tables", ONE_DIRECTION),
    ("ledger/tables.py", "from onsale.gate import keys", ONE_DIRECTION),
    ("payments/provider.py", "from onsale.gate import keys", ONE_DIRECTION),
    ("webhooks/targets.py", "from onsale.ledger import tables", ONE_DIRECTION),
    ("sales/sale.py", "from onsale.http import problems", ONE_DIRECTION),
    ("http/problems.py", "from onsale.workers import loop", ONE_DIRECTION),
    ("workers/loop.py", "from onsale.http import problems", ONE_DIRECTION),
    ("observability/metrics.py", "from onsale.sales import meters", ONE_DIRECTION),
    ("gate/codec.py", "import sqlalchemy", "The gate knows nothing of Postgres and of HTTP"),
    ("gate/codec.py", "import fastapi", "The gate knows nothing of Postgres and of HTTP"),
    ("ledger/tables.py", "import redis", "The ledger knows nothing of Redis and of HTTP"),
    ("ledger/tables.py", "import starlette", "The ledger knows nothing of Redis and of HTTP"),
    (
        "webhooks/sending.py",
        "import asyncpg",
        "What goes over the wire to webhooks knows nothing of the stores",
    ),
    (
        "sales/sale.py",
        "import sqlalchemy",
        "The use cases speak to the stores through gate and ledger alone",
    ),
    ("http/problems.py", "import asyncpg", "Postgres and Redis are spoken to in one room each"),
    ("workers/loop.py", "import redis", "Postgres and Redis are spoken to in one room each"),
    (
        "sales/placing.py",
        "from opentelemetry import trace",
        "Spans are made in three places, which are loaded where traces are on",
    ),
    (
        "embedded/folders.py",
        "from onsale import settings",
        "The embedded servers know nothing of the sale",
    ),
]


def lint(sources: Path) -> subprocess.CompletedProcess[str]:
    """Hold the package in this folder to the project's contracts."""
    return subprocess.run(
        [sys.executable, "-c", LINT, "--config", str(PROJECT / "pyproject.toml"), "--no-cache"],
        env=os.environ | {"PYTHONPATH": str(sources), "COLUMNS": "200", "NO_COLOR": "1"},
        cwd=sources,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_every_contract_is_kept() -> None:
    linted = lint(PACKAGE.parent)
    assert linted.returncode == 0, linted.stdout + linted.stderr


@pytest.mark.parametrize(("module", "line", "contract"), BREACHES)
def test_a_breach_is_found(module: str, line: str, contract: str, tmp_path: Path) -> None:
    linted = lint(copy_with(tmp_path, module, line))
    assert linted.returncode != 0
    assert f"{contract} BROKEN" in linted.stdout


def test_a_room_without_a_place_is_found(tmp_path: Path) -> None:
    linted = lint(copy_with(tmp_path, "a_new_room.py", ""))
    assert linted.returncode != 0
    assert "a_new_room" in linted.stdout


def copy_with(folder: Path, module: str, line: str) -> Path:
    """A folder with a copy of the package in which this module has one line more."""
    shutil.copytree(PACKAGE, folder / "onsale", ignore=shutil.ignore_patterns("__pycache__"))
    with (folder / "onsale" / module).open("a") as changed:
        changed.write(f"\n{line}\n")
    return folder


def test_the_domain_needs_the_standard_library_alone() -> None:
    """Forbidding the frameworks that we use says nothing of the next one."""
    graph = grimp.build_graph("onsale", include_external_packages=True, cache_dir=None)
    ours = {"onsale.domain"} | graph.find_descendants("onsale.domain")
    used = {name for module in ours for name in graph.find_modules_directly_imported_by(module)}
    roots = {name.partition(".")[0] for name in used - ours}
    assert roots <= sys.stdlib_module_names, roots - sys.stdlib_module_names
    assert "dataclasses" in roots, "the graph has no imports to look at"
