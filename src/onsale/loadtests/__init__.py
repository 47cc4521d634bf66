"""Runs the k6 scenarios of `loadtest/` and reads what they found.

`scenarios` names them, `runner` runs one, `summary` turns k6's figures into a `LoadResult`;
`generator` watches k6 itself, and `remote_write` tells Prometheus of that.
"""

from onsale.loadtests.errors import LoadTestError
from onsale.loadtests.generator import GeneratorUse
from onsale.loadtests.runner import Progress, run_k6
from onsale.loadtests.scenarios import SCENARIOS, PaymentKind, Scenario, scripts_dir
from onsale.loadtests.summary import LoadResult, Run

__all__ = [
    "SCENARIOS",
    "GeneratorUse",
    "LoadResult",
    "LoadTestError",
    "PaymentKind",
    "Progress",
    "Run",
    "Scenario",
    "run_k6",
    "scripts_dir",
]
