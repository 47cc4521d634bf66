"""What was asked of the stores, by the metrics that production counts it with."""

from prometheus_client import REGISTRY

EVENTS_READ = ("onsale_db_query_duration_seconds_count", {"operation": "read_events"})
GATE_LOOKS = ("onsale_redis_operation_duration_seconds_count", {"operation": "availability"})
ADMISSIONS = ("onsale_redis_operation_duration_seconds_count", {"operation": "admit"})
SPLITS: tuple[str, dict[str, str]] = ("onsale_batch_splits_total", {})

_COUNTED = {
    "events_read": EVENTS_READ,
    "gate_looks": GATE_LOOKS,
    "admissions": ADMISSIONS,
    "splits": SPLITS,
}


class Meter:
    """Counts since it was made."""

    def __init__(self) -> None:
        self._before = {name: _now(name) for name in _COUNTED}

    def __getattr__(self, name: str) -> int:
        if name not in _COUNTED:
            raise AttributeError(name)
        return int(_now(name) - self._before[name])


def look_count() -> float:
    """How often this process has looked at a sale."""
    return _now("gate_looks")


def _now(name: str) -> float:
    metric, labels = _COUNTED[name]
    return REGISTRY.get_sample_value(metric, labels) or 0.0
