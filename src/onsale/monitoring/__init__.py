"""Prometheus, Alertmanager and the exporters beside a running service, on the shipped files.

`configuration` adapts what lies in `monitoring/` to given addresses; `stack` runs it.
"""

from onsale.monitoring.configuration import Service
from onsale.monitoring.stack import MonitoringStack

__all__ = ["MonitoringStack", "Service"]
