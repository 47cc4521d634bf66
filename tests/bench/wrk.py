"""Whether the load generator is there."""

import shutil

import pytest

needs_wrk = pytest.mark.skipif(
    shutil.which("wrk") is None, reason="wrk is not installed (`apt-get install wrk`)"
)
