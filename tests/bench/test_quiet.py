"""The service that counts nothing: beside the one that does, in processes of their own."""

import subprocess
import sys

import pytest

COUNT = """
import asyncio
from prometheus_client import generate_latest
from onsale.http.metering import RouteMeter
from onsale.observability import metrics
from onsale.observability.logging import configure_logging, get_logger

async def count():
    RouteMeter("POST", "/orders").observe(201, 0.1, 50)
    metrics.http_requests_in_flight.inc()
    metrics.sales_open.set(3)
    await asyncio.sleep(0)  # answers are counted at the end of a turn of the loop
    await asyncio.sleep(0)

configure_logging("INFO")
if {silent}:
    from onsale.bench.quiet import silence
    silence()
asyncio.run(count())
get_logger("bench").error("something to say")
counted = [line for line in generate_latest().decode().splitlines()
           if line.startswith("onsale_") and not line.endswith(" 0.0")]
print(len(counted))
"""


@pytest.mark.parametrize("silent", [False, True])
def test_nothing_is_counted_and_nothing_said(silent: bool) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", COUNT.format(silent=silent)], capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    assert (int(ended.stdout) == 0) is silent
    assert ("something to say" not in ended.stderr) is silent
