"""Runs the k6 scenarios of `loadtest/` and reads what they found.

`scenarios` names them, `runner` runs one, `summary` turns k6's figures into a `LoadResult`.
"""

from onsale.loadtests.errors import LoadTestError
from onsale.loadtests.runner import Progress, run_k6
from onsale.loadtests.scenarios import SCENARIOS, PaymentKind, Scenario, scripts_dir
from onsale.loadtests.summary import LoadResult

__all__ = [
    "SCENARIOS",
    "LoadResult",
    "LoadTestError",
    "PaymentKind",
    "Progress",
    "Scenario",
    "run_k6",
    "scripts_dir",
]
